"""The storage contracts, in the words of Redis Streams: `Streams` for events, `Records` for everything else.

Batch first: a method is one round trip, however many entries it is given, unless it says otherwise. Every
implementation passes `tests/conformance`; the memory one is a verified fake of the Redis one.

Rules that hold for every method:

* It waits at most the transport's command timeout (reads that block: their `block` on top).
* `BusUnavailable`: the server cannot be reached. What the method asks is safe to ask again.
* `ServerError`, or a subclass that names the case: the server refused.
* Cancelling it is safe; what was asked for may still happen.
* Names of streams, groups and consumers are `str`, in which bytes that are no UTF-8, as other programs may use, are
  lone surrogates (`surrogateescape`): show them by `readable`.
* Entry ids and bodies are `bytes`, as they come off the wire.
"""

from __future__ import annotations

from hyperbus.transport.appends import Appends
from hyperbus.transport.entries import (
    FIRST_ID,
    DeadLetter,
    Durability,
    Entry,
    GroupInfo,
    NewEntry,
    Page,
    Parked,
    PendingEntry,
    PendingSummary,
    Position,
    Read,
    StreamInfo,
    id_after,
    id_at,
    id_before,
    id_key,
    is_id,
    readable,
)
from hyperbus.transport.failures import Failures
from hyperbus.transport.groups import Groups
from hyperbus.transport.parking import Parking
from hyperbus.transport.reader import Reader
from hyperbus.transport.records import Records
from hyperbus.transport.retention import Retention
from hyperbus.transport.streams import Streams
from hyperbus.transport.transport import Transport

__all__ = [
    "FIRST_ID",
    "Appends",
    "DeadLetter",
    "Durability",
    "Entry",
    "Failures",
    "GroupInfo",
    "Groups",
    "NewEntry",
    "Page",
    "Parked",
    "Parking",
    "PendingEntry",
    "PendingSummary",
    "Position",
    "Read",
    "Reader",
    "Records",
    "Retention",
    "StreamInfo",
    "Streams",
    "Transport",
    "id_after",
    "id_at",
    "id_before",
    "id_key",
    "is_id",
    "readable",
]
