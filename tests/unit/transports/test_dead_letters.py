"""How a dead letter lies in its stream."""

from __future__ import annotations

from hyperbus.transport import DeadLetter
from hyperbus.transports.dead_letters import from_fields, to_fields


def test_a_dead_letter_comes_back_as_it_went():
    """Also when the entry itself has fields of our names; what somebody else put there is shown as it is."""
    letter = DeadLetter(b"1-1", [b"@id", b"mine", b"data", b"\xff"], "rejected", "E", "what", "where", 3, 1.25, 2.5)
    assert from_fields(to_fields(letter, "c")) == letter
    assert to_fields(letter, "c")[4::2] == [
        b"@id", b"@reason", b"@error", b"@message", b"@trace", b"@tries", b"@first", b"@last", b"@consumer",
    ]  # fmt: skip
    assert from_fields([b"data", b"{}"]).fields == [b"data", b"{}"]
