"""Which error each refusal of a server becomes."""

from __future__ import annotations

import pytest

from hyperbus.errors import (
    AuthenticationError,
    BusUnavailable,
    GroupNotFoundError,
    OutOfMemoryError,
    ServerError,
    WrongTypeError,
)
from hyperbus.transports.redis.protocol.replies import Refusal, error_of, is_away, is_wake


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
