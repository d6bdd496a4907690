"""Which error each refusal of a server becomes, and that a URL's secrets never show."""

from __future__ import annotations

import pytest

from hyperbus.errors import (
    AuthenticationError,
    BusUnavailable,
    GroupNotFoundError,
    InvalidSettingError,
    OutOfMemoryError,
    ServerError,
    UnsupportedServerError,
    WrongTypeError,
)
from hyperbus.transports.redis.connection.address import Address
from hyperbus.transports.redis.protocol.replies import Refusal, error_of, is_away, is_wake
from hyperbus.transports.redis.transport import check_version


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOGROUP No such key 'k' or consumer group 'g'", GroupNotFoundError),
        ("UNBLOCKED the stream key no longer exists", GroupNotFoundError),
        ("ERR The XGROUP subcommand requires the key to exist. Note", GroupNotFoundError),
        ("WRONGTYPE Operation against a key", WrongTypeError),
        ("OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:3.", OutOfMemoryError),
        ("NOAUTH Authentication required.", AuthenticationError),
        ("WRONGPASS invalid username-password pair", AuthenticationError),
        ("NOPERM this user has no permissions", ServerError),
        ("READONLY You can't write against a read only replica.", BusUnavailable),
        ("LOADING Redis is loading the dataset in memory", BusUnavailable),
        ("MASTERDOWN Link with MASTER is down", BusUnavailable),
        ("CLUSTERDOWN The cluster is down", BusUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", BusUnavailable),
        (
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            BusUnavailable,
        ),
        ("ERR syntax error", ServerError),
    ],
)
def test_each_refusal_has_its_error(text, kind):
    """The error has the exact type, names the server, and quotes the reply."""
    error = error_of(Refusal(text), "redis://here")
    assert type(error) is kind
    assert "redis://here" in str(error)
    assert text in str(error)
    assert is_away(Refusal(text)) == (kind is BusUnavailable)


def test_an_unblock_by_somebody_else_is_no_error():
    """CLIENT UNBLOCK ... ERROR ends a read; the group is still there."""
    assert is_wake(Refusal("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
    assert not is_wake(Refusal("UNBLOCKED the stream key no longer exists"))


@pytest.mark.parametrize(
    ("url", "description"),
    [
        ("redis://", "redis://localhost:6379"),
        ("redis://user:s3cret@host:7000/2", "redis://host:7000/2"),
        ("redis://:s3cret@[::1]/", "redis://[::1]:6379"),
        ("rediss://host/1?ssl_cert_reqs=none&password=s3cret", "rediss://host:6379/1"),
        ("unix:///run/redis.sock?db=3&password=s3cret", "unix:///run/redis.sock"),
    ],
)
def test_a_description_has_no_secrets(url, description):
    """It is the URL without user, password and options."""
    assert Address(url, connect_timeout=1).description == description


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@host:port/",
        "redis://:s3cret@host:6379/five",
        "redis://:s3cret@host/?socket_timeout=3",
        "redis://:s3cret@host/?db=x",
        "rediss://:s3cret@host/?ssl_cert_reqs=perhaps",
        "redis://:s3cret@host/?ssl_cert_reqs=none",
        "redis://:s3cret@[host/",
        "unix://",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url):
    """The error does not show the password either."""
    with pytest.raises(InvalidSettingError) as caught:
        Address(url, connect_timeout=1)
    assert "s3cret" not in str(caught.value)


def test_a_connection_has_what_the_url_says():
    """User, password, database and TLS options reach redis-py."""
    connection = Address("redis://us%40er:p%2Fw@host:7000/2", connect_timeout=3).connection()
    assert (connection.host, connection.port, connection.db) == ("host", 7000, 2)
    assert (connection.username, connection.password) == ("us@er", "p/w")
    assert connection.socket_timeout is None
    assert connection.socket_connect_timeout == 3
    assert (
        Address("rediss://h/?ssl_check_hostname=false", connect_timeout=3).connection().ssl_context.check_hostname
        is False
    )


@pytest.mark.parametrize(
    "info",
    [
        "redis_version:7.0.0",
        "redis_version:8.6.3",
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2",
        "redis_version:7.2.4\r\nvalkey_version:7.2.4",
        "redis_version:7.0.15-rc1",
    ],
)
def test_new_servers_pass(info):
    """Redis from 7.0 and Valkey from 7.2 on."""
    check_version(info, "redis://here")


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ("redis_version:6.2.14", "Redis 6.2.14"),
        ("redis_version:7.2.4\r\nvalkey_version:7.1.9", "Valkey 7.1.9"),
        ("something:else", "unknown version"),
    ],
)
def test_old_servers_are_named(info, found):
    """The error says what was found and what is needed."""
    with pytest.raises(UnsupportedServerError, match=rf"{found}.*7\.0.*7\.2"):
        check_version(info, "redis://here")
