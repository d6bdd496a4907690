"""The bytes of the commands that are written by hand, against those that hiredis writes."""

from __future__ import annotations

from itertools import count, islice

import hiredis

from hyperbus.transport import NewEntry
from hyperbus.transport.appends import FIRST_PIECE, PIECE
from hyperbus.transports.redis.protocol.commands import (
    PIECE_BYTES,
    PIECE_ENTRIES,
    GroupRead,
    milliseconds,
    pack,
    pack_appends,
)


def test_appends_are_written_as_hiredis_writes_them():
    """Entries of several streams and fields, in order."""
    entries = [
        NewEntry("a", b"data", b"x"),
        NewEntry("a", b"data", b""),
        NewEntry("ö", b"data", b"\r\n$"),
        NewEntry("a", b"msgpack", b"y" * 3000),
        NewEntry("a", b"data", b"z"),
    ]
    [(packed, number)] = pack_appends(entries)
    assert number == 5
    assert packed == b"".join(pack("XADD", e.stream, "*", e.field, e.body) for e in entries)


def test_a_batch_is_cut_by_entries_and_by_bytes():
    """No piece has more than its share, and none is lost."""
    for first, most, entries in ((PIECE_ENTRIES, PIECE_ENTRIES, list), (FIRST_PIECE, PIECE, iter)):
        many = list(pack_appends(entries([NewEntry("a", b"data", b"x")] * (first + most + 1))))
        assert [count for _, count in many] == [first, most, 1]
    endless = (NewEntry("a", b"data", b"x") for _ in count())
    assert len(list(islice(pack_appends(endless), 3))) == 3, "no more is taken than asked for"
    large = list(pack_appends([NewEntry("a", b"data", b"x" * PIECE_BYTES)] * 3))
    assert [count for _, count in large] == [1, 1, 1]
    assert list(pack_appends([])) == []


def test_a_group_read_is_written_as_hiredis_writes_it():
    """With a wait and without."""
    read = GroupRead("g", "c", ("a", "ö"))
    start = ("XREADGROUP", "GROUP", "g", "c", "COUNT", 50)
    end = ("STREAMS", "a", "ö", ">", ">")
    assert read.pack(50, 0) == hiredis.pack_command(start + end)
    assert read.pack(50, 1.5) == hiredis.pack_command((*start, "BLOCK", 1500, *end))
    assert read.pack(50, 0.0001) == hiredis.pack_command((*start, "BLOCK", 1, *end))
    assert read.names == {b"a": "a", "ö".encode(): "ö"}


def test_no_duration_becomes_forever():
    """A server takes BLOCK 0 for "for ever"."""
    assert milliseconds(0.00001) == 1
    assert milliseconds(2.5) == 2500
