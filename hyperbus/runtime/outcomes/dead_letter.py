"""What is kept of an entry that a group has given up."""

from __future__ import annotations

from hyperbus.error_text import MESSAGE_LIMIT, TRACEBACK_LIMIT, message_of, name_of, traceback_of
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.received import Received
from hyperbus.signals import EntryDeadLettered
from hyperbus.transport import DeadLetter

__all__ = ["MESSAGE_LIMIT", "TRACE_LIMIT", "announce_dead_letter", "letter_of"]

#: Characters of an error's trace that are kept.
TRACE_LIMIT = TRACEBACK_LIMIT


def letter_of(received: Received, reason: str, error: BaseException | None, now: float) -> DeadLetter:
    """Return the dead letter that an entry becomes."""
    return DeadLetter(
        entry_id=received.id,
        fields=received.fields,
        reason=reason,
        error=name_of(error) if error is not None else "",
        message=message_of(error) if error is not None else "",
        trace=traceback_of(error) if error is not None else "",
        tries=received.tries,
        first_time=received.first_time,
        last_time=now,
    )


def announce_dead_letter(member: Member, stream: str, letter: DeadLetter) -> None:
    """Announce that the server has taken a dead letter."""
    member.announcer.announce(
        EntryDeadLettered(member.group, stream, letter.entry_id.decode(), letter.reason, letter.error, letter.message)
    )
