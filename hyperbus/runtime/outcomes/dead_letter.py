"""What is kept of an entry that a group has given up."""

from __future__ import annotations

import traceback

from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.received import Received
from hyperbus.signals import EntryDeadLettered
from hyperbus.transport import DeadLetter

#: Characters of an error's message, and of its trace, that are kept.
MESSAGE_LIMIT = 1_000
TRACE_LIMIT = 8_000


def letter_of(received: Received, reason: str, error: BaseException | None, now: float) -> DeadLetter:
    """Return the dead letter that an entry becomes."""
    trace = "".join(traceback.format_exception(error)) if error is not None else ""
    return DeadLetter(
        entry_id=received.id,
        fields=received.fields,
        reason=reason,
        error=type(error).__name__ if error is not None else "",
        message=str(error)[:MESSAGE_LIMIT] if error is not None else "",
        trace=trace[-TRACE_LIMIT:],
        tries=received.tries,
        first_time=received.first_time,
        last_time=now,
    )


def announce_dead_letter(member: Member, stream: str, letter: DeadLetter) -> None:
    """Announce that the server has taken a dead letter."""
    member.announcer.announce(
        EntryDeadLettered(member.group, stream, letter.entry_id.decode(), letter.reason, letter.error, letter.message)
    )
