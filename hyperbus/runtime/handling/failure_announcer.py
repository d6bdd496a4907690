"""Announces what failed, and what becomes of it: once a call of a handler, however many events it was called with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from hyperbus.declaration.consumer import Declaration
from hyperbus.declaration.outcome import Acked, DeadLettered, Outcome, Reject, Retried, Retry
from hyperbus.event.envelope import Event
from hyperbus.runtime.in_flight.received import Received
from hyperbus.signals import Announcer, DeliveryFailed

#: A delivery that failed: what was received, the event (None: it could not be read), the error, and how it ends.
Failure = tuple[Received, Event[Any] | None, BaseException, Outcome]


class FailureAnnouncer:
    """Announces the failed deliveries of one consumer."""

    def __init__(self, declaration: Declaration, announcer: Announcer) -> None:
        self._declaration = declaration
        self._announcer = announcer

    def announce(self, received: Received, event: Event[Any] | None, error: BaseException, outcome: Outcome) -> None:
        """Announce one."""
        self.announce_all([(received, event, error, outcome)])

    def announce_all(self, failures: Iterable[Failure]) -> None:
        """Announce those of one call: once an error and a way to end."""
        together: dict[tuple[int, type[Outcome]], list[Failure]] = {}
        for failure in failures:
            together.setdefault((id(failure[2]), type(failure[3])), []).append(failure)
        for alike in together.values():
            self._announcer.announce(self._signal(alike[0], len(alike)))

    def _signal(self, first: Failure, count: int) -> DeliveryFailed:
        received, event, error, outcome = first
        declaration = self._declaration
        policy = declaration.policy_for(error)
        tries_once = isinstance(outcome, Acked) or policy is None
        return DeliveryFailed(
            consumer=declaration.name,
            group=declaration.group,
            stream=received.stream,
            entry_id=received.id.decode(),
            event_type=received.event_type,
            event_id=getattr(event, "id", None),  # its handler may have changed it, or taken it apart
            workflow_id=getattr(event, "workflow_id", None),
            tries=received.tries,
            most_tries=None if tries_once or policy is None else policy.tries,
            cause=_cause(error, outcome),
            after=outcome.after if isinstance(outcome, Retried) else None,
            dead_lettered=isinstance(outcome, DeadLettered) and declaration.audience == "group",
            error=error,
            count=count,
        )


def _cause(error: BaseException, outcome: Outcome) -> Literal["raised", "retry", "reject", "undecodable", "poison"]:
    if isinstance(outcome, DeadLettered) and outcome.reason in ("undecodable", "poison"):
        return "undecodable" if outcome.reason == "undecodable" else "poison"
    if issubclass(type(error), Retry):
        return "retry"
    return "reject" if issubclass(type(error), Reject) else "raised"
