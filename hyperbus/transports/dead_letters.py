"""How a dead letter lies in its stream: the fields as they were read, then what is known about the failure. Pure."""

from __future__ import annotations

import math

from hyperbus.transport import DeadLetter

_NAMES = (b"@id", b"@reason", b"@error", b"@message", b"@trace", b"@tries", b"@first", b"@last", b"@consumer")


def to_fields(letter: DeadLetter, consumer: str) -> list[bytes]:
    """Return the fields of the entry that stores a dead letter."""
    values = (
        letter.entry_id,
        *(text.encode(errors="replace") for text in (letter.reason, letter.error, letter.message, letter.trace)),
        b"%d" % letter.tries,
        repr(letter.first_time).encode(),
        repr(letter.last_time).encode(),
        consumer.encode(),
    )
    described = [part for pair in zip(_NAMES, values, strict=True) for part in pair]
    return [*letter.fields, *described]


def from_fields(fields: list[bytes]) -> DeadLetter:
    """Return the dead letter of an entry. What somebody put there by hand is a letter without a story."""
    # Only the tail is ours, so the original may use the same names.
    split = len(fields) - 2 * len(_NAMES)
    if split < 0 or tuple(fields[split::2]) != _NAMES:
        return DeadLetter(b"", fields, "unknown", "", "", "", 0, 0.0, 0.0)
    entry_id, reason, error, message, trace, tries, first, last, _ = fields[split + 1 :: 2]
    return DeadLetter(
        entry_id=entry_id,
        fields=fields[:split],
        reason=reason.decode(errors="replace"),
        error=error.decode(errors="replace"),
        message=message.decode(errors="replace"),
        trace=trace.decode(errors="replace"),
        tries=int(tries) if tries.isdigit() else 0,
        first_time=_number(first),
        last_time=_number(last),
    )


def _number(text: bytes) -> float:
    """Return a number that anybody may have written; 0 for what is none."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
