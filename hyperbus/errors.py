"""One tree of errors. Each says what to do, and each has the exit code that the command line ends with.

Exit codes are part of the public interface: docs/exit-codes.md lists them, a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence


class HyperbusError(Exception):
    """Anything hyperbus raises on purpose."""

    #: What the `hyperbus` command exits with when this error ends it.
    exit_code: int = 1


class InvalidSettingError(HyperbusError):
    """A setting, an option or a URL has a value that cannot be used."""

    exit_code = 3


class BusUnavailable(HyperbusError):  # noqa: N818 - a public name, fixed by the design
    """The server cannot be reached. What was asked for was not sent, or is safe to ask again."""

    exit_code = 10


class AuthenticationError(BusUnavailable):
    """The server refused the user name or the password."""

    exit_code = 11


class UnsupportedServerError(HyperbusError):
    """The server is older than Redis 7.0 or Valkey 7.2."""

    exit_code = 12


class NoServerError(BusUnavailable):
    """No server binary was found to start an embedded server with."""

    exit_code = 13


class ConsumersNotFoundError(HyperbusError):
    """A module that was named is not there, or declares no consumer."""

    exit_code = 14


class DeclarationError(HyperbusError):
    """A consumer or an event type is declared in a way that cannot work."""

    exit_code = 15


class DuplicateTypeError(DeclarationError):
    """Two event classes claim one type."""

    exit_code = 16


class EncodeError(HyperbusError):
    """An event holds something that its codec cannot write."""

    exit_code = 17


class EventTooLargeError(HyperbusError):
    """An encoded event is over the size limit. Nothing was sent."""

    exit_code = 18


class PortInUseError(HyperbusError):
    """A port that hyperbus was told to listen on is taken."""

    exit_code = 19


class MissingExtraError(HyperbusError):
    """A feature needs an optional dependency that is not installed."""

    exit_code = 20


class CrashLoopError(HyperbusError):
    """Worker processes kept dying before they were ready."""

    exit_code = 21


class DrainTimeoutError(HyperbusError):
    """Work was still running when the drain time was up; what was in flight will be handled again."""

    exit_code = 22


class PublishUncertain(HyperbusError):  # noqa: N818 - a public name, fixed by the design
    """The connection broke, or the wait ended, after sending: the event may be stored or not."""

    exit_code = 23


class PublishRefusedError(HyperbusError):
    """The server answered an append with an error. The event is not stored."""

    exit_code = 24


class PublishFailed(HyperbusError):  # noqa: N818 - a public name, fixed by the design
    """Some events of a `publish_many` were not stored, or it is not known whether they were.

    `results` has one item an event, in order: its entry id (str), or the error it met.
    """

    exit_code = 25

    def __init__(self, results: Sequence[str | HyperbusError]) -> None:
        self.results: tuple[str | HyperbusError, ...] = tuple(results)
        errors = [result for result in results if isinstance(result, HyperbusError)]
        uncertain = sum(isinstance(error, PublishUncertain) for error in errors)
        stored = len(results) - sum(not isinstance(error, NotDurable) for error in errors)
        super().__init__(
            f"{stored} of {len(results)} events stored, {uncertain} uncertain, "
            f"{len(results) - stored - uncertain} not stored (see .results, one an event); first error: {errors[0]}"
        )


class ServerError(HyperbusError):
    """The server answered with an error that hyperbus has no better name for."""

    exit_code = 26


class OutOfMemoryError(ServerError):
    """The server is at its `maxmemory` and takes no new data."""

    exit_code = 27


class GroupNotFoundError(ServerError):
    """The stream, or the consumer group on it, is gone (NOGROUP, UNBLOCKED)."""

    exit_code = 28


class WrongTypeError(ServerError):
    """A key that should be a stream holds something else (WRONGTYPE)."""

    exit_code = 29


class DecodeError(HyperbusError):
    """An entry does not hold an event that this consumer can read."""

    exit_code = 30


class DemoDisagreesError(HyperbusError):
    """The two ends of the demo counted different numbers."""

    exit_code = 31


class NotDurable(HyperbusError):  # noqa: N818 - a public name beside PublishUncertain and PublishFailed
    """The event is stored, as `entry_id`, but not known to be as safe as was asked for. Do not publish it again."""

    exit_code = 32

    def __init__(self, entry_id: str, shortfall: str) -> None:
        self.entry_id = entry_id
        super().__init__(f"the event is stored as {entry_id}, but {shortfall}; it need not be published again")


class DurabilityUnsupported(HyperbusError):  # noqa: N818 - a public name beside NotDurable
    """This server cannot tell whether events are as safe as was asked for. Nothing was sent."""

    exit_code = 33
