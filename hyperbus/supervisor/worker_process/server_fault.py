"""Whether the server is to blame for an error: it was away, or refused what it was asked, with whatever word."""

from __future__ import annotations

from hyperbus.errors import (
    BusUnavailable,
    NoServerError,
    PublishFailed,
    PublishRefusedError,
    PublishUncertain,
    ServerError,
    WrongTypeError,
)

_SERVERS = (BusUnavailable, ServerError, PublishRefusedError, PublishUncertain, PublishFailed)
#: What no server mends by and by: there is none to start, or a key that somebody has to delete.
_NOT_ITS_FAULT = (NoServerError, WrongTypeError)
#: So far are causes followed; a chain may be a circle.
_LONGEST_CHAIN = 20


def is_server_at_fault(error: BaseException) -> bool:
    """Tell whether waiting for the server may mend what was raised, or what that was raised because of."""
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None or isinstance(cause, _NOT_ITS_FAULT):
            return False
        if isinstance(cause, _SERVERS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
