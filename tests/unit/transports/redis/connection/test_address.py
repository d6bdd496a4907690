"""What a URL says, and that its secrets never show."""

from __future__ import annotations

import pytest

from hyperbus.errors import (
    InvalidSettingError,
)
from hyperbus.transports.redis.connection.address import Address


@pytest.mark.parametrize(
    ("url", "description"),
    [
        ("redis://", "redis://localhost:6379"),
        ("redis://user:s3cret@host:7000/2", "redis://host:7000/2"),
        ("redis://:s3cret@[::1]/", "redis://[::1]:6379"),
        ("rediss://host/1?ssl_cert_reqs=none&password=s3cret", "rediss://host:6379/1"),
        ("redis://:p@s3cret@host", "redis://host:6379"),
        ("redis://:100%s3cret@host", "redis://host:6379"),
        ("redis://s3cret@host", "redis://host:6379"),
        ("redis://:s3cret@", "redis://localhost:6379"),
        ("redis://host?username=u&password=a@s3cret/b", "redis://host:6379"),
        ("redis://host/1?client_name=a@b", "redis://host:6379/1"),
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
        "redis://app:2024/s3cret!@127.0.0.1:1/0",
        "redis://app:20/24/s3cret@127.0.0.1:1/0",
        "redis://:a?s3cret@host:6379/0",
        "redis://:s3cret?b@host",
        "redis://:s3cret@a?b@host",
        "redis://:a#s3cret@host",
        "redis://s3cret/b@host",
        "redis://:s3cret[@host",
        "rediss://a:b@c/s3cret@host",
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
