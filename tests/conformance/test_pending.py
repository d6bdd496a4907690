"""What was delivered and not acked: acks, claims, delivery counts, dead letters."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus.errors import GroupNotFoundError, WrongTypeError
from hyperbus.transport import FIRST_ID, DeadLetter
from hyperbus.transports.keys import dead_letter_key
from tests.conformance.harness import DEADLINE, Harness


def letter(entry_id: bytes, fields: list[bytes] | None = None) -> DeadLetter:
    return DeadLetter(
        entry_id=entry_id,
        fields=[b"data", b"{}"] if fields is None else fields,
        reason="rejected",
        error="ValueError",
        message="grüße\n",
        trace="line 1\nline 2",
        tries=3,
        first_time=1_700_000_000.125,
        last_time=1_700_000_060.1,
    )


async def test_ack_counts_what_was_pending(harness: Harness) -> None:
    """Asking twice is safe, and the second time counts nothing."""
    stream, ids = await harness.delivered(3)
    assert await harness.streams.ack([(stream, "g", [*ids[:2], b"1-1"])]) == [2]
    assert await harness.streams.ack([(stream, "g", ids)]) == [1]
    assert await harness.streams.ack([(stream, "g", ids)]) == [0]
    assert await harness.streams.pending(stream, "g") == []


async def test_ack_takes_many_groups_at_once(harness: Harness) -> None:
    """One number for each item, in order; what is missing counts nothing."""
    stream, ids = await harness.delivered(2)
    missing = harness.stream("missing")
    acks = [(missing, "g", ids), (stream, "g", ids), (stream, "h", ids), (stream, "g", [])]
    assert await harness.streams.ack(acks) == [0, 2, 0, 0]
    assert await harness.streams.ack([]) == []


async def test_ack_does_not_ask_who_owns_the_entry(harness: Harness) -> None:
    """An ack by id works whoever holds the entry."""
    stream, ids = await harness.delivered(1)
    await harness.streams.claim(stream, "g", "c2", ids, owner="c1")
    assert await harness.streams.ack([(stream, "g", ids)]) == [1]


async def test_pending_summaries_count_by_consumer(harness: Harness) -> None:
    """Consumers with nothing are left out, and what is missing is empty."""
    stream, ids = await harness.delivered(3)
    await harness.add(stream, b"x")
    await harness.take(stream, consumer="c2")
    await harness.take(stream, consumer="idle")
    await harness.streams.ack([(stream, "g", ids[:1])])
    asked = [(stream, "g"), (stream, "missing"), (harness.stream("missing"), "g")]
    assert await harness.streams.pending_summaries(asked) == [(3, {"c1": 2, "c2": 1}), (0, {}), (0, {})]
    assert await harness.streams.pending_summaries([]) == []


async def test_pending_pages_in_order(harness: Harness) -> None:
    """Pending starts above `after`, stops at `count`, and says who holds what."""
    stream, ids = await harness.delivered(4)
    page = await harness.streams.pending(stream, "g", count=3)
    rest = await harness.streams.pending(stream, "g", after=page[-1].id, count=3)
    assert len(page) == 3
    assert [(entry.id, entry.consumer, entry.delivery_count) for entry in page + rest] == [
        (entry_id, "c1", 1) for entry_id in ids
    ]
    assert all(0 <= entry.idle < 5 for entry in page)


async def test_pending_can_be_asked_by_consumer(harness: Harness) -> None:
    """Only what the consumer holds."""
    stream, _ = await harness.delivered(2)
    [other] = await harness.add(stream, b"x")
    await harness.take(stream, consumer="c2")
    assert [entry.id for entry in await harness.streams.pending(stream, "g", consumer="c2")] == [other]
    assert await harness.streams.pending(stream, "g", consumer="nobody") == []


async def test_pending_of_a_missing_group_is_empty(harness: Harness) -> None:
    """A stream or group that does not exist holds nothing."""
    assert await harness.streams.pending(harness.stream(), "g") == []
    await harness.add(harness.stream(), b"1")
    assert await harness.streams.pending(harness.stream(), "g") == []


async def test_idle_time_grows_and_starts_again_with_a_delivery(harness: Harness) -> None:
    """Idle counts from the last delivery."""
    stream, _ = await harness.delivered(1)
    before = 0.0
    async with asyncio.timeout(DEADLINE):
        while before < 0.2:
            await asyncio.sleep(0.01)
            before = (await harness.streams.pending(stream, "g"))[0].idle
    await harness.reader.read_pending("g", "c1", stream, after=FIRST_ID, count=1)
    assert (await harness.streams.pending(stream, "g"))[0].idle < before


async def test_claim_takes_only_from_the_named_owner(harness: Harness) -> None:
    """An entry that somebody else holds, or nobody, is left alone."""
    stream, ids = await harness.delivered(2)
    [other] = await harness.add(stream, b"other")
    await harness.take(stream, consumer="c3")
    claimed = await harness.streams.claim(stream, "g", "c2", [ids[1], other, b"1-1"], owner="c1")
    assert claimed == [((ids[1], [b"data", b"1"]), 2)]
    assert [(entry.id, entry.consumer) for entry in await harness.streams.pending(stream, "g")] == [
        (ids[0], "c1"),
        (ids[1], "c2"),
        (other, "c3"),
    ]


async def test_a_claim_in_order_ends_at_the_first_that_somebody_else_holds(harness: Harness) -> None:
    """What is gone, or nobody's, does not end it."""
    stream, ids = await harness.delivered(120)
    harness.place.delete_entries(stream, [ids[0]])
    await harness.streams.ack([(stream, "g", [ids[1]])])
    await harness.streams.claim(stream, "g", "c3", [ids[60]], owner="c1")
    claimed = await harness.streams.claim(stream, "g", "c2", ids, owner="c1", in_order=True)
    assert [entry.id for entry, _ in claimed] == ids[2:60]
    assert await harness.streams.claim(stream, "g", "c2", ids[60:], owner="c1", in_order=True) == []
    assert await harness.streams.claim(stream, "g", "c2", [], owner="c1", in_order=True) == []


async def test_only_one_of_two_claims_gets_the_entry(harness: Harness) -> None:
    """Claims that compete do not both win."""
    stream, ids = await harness.delivered(20)
    won = await asyncio.gather(
        *(harness.streams.claim(stream, "g", consumer, ids, owner="c1") for consumer in ("c2", "c3"))
    )
    assert sorted(entry.id for claims in won for entry, _ in claims) == sorted(ids)


async def test_every_claim_raises_the_delivery_count(harness: Harness) -> None:
    """The count goes with the entry from owner to owner."""
    stream, ids = await harness.delivered(1)
    [(_, second)] = await harness.streams.claim(stream, "g", "c2", ids, owner="c1")
    [(_, third)] = await harness.streams.claim(stream, "g", "c1", ids, owner="c2")
    assert (second, third) == (2, 3)
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [3]


async def test_claim_drops_deleted_entries(harness: Harness) -> None:
    """An entry that is gone leaves the pending list and is not returned."""
    stream, ids = await harness.delivered(2)
    harness.place.delete_entries(stream, [ids[0]])
    claimed = await harness.streams.claim(stream, "g", "c2", ids, owner="c1")
    assert [entry.id for entry, _ in claimed] == [ids[1]]
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == [ids[1]]


async def test_claim_of_nothing_returns_nothing(harness: Harness) -> None:
    """Empty calls are allowed."""
    stream, _ = await harness.delivered(1)
    assert await harness.streams.claim(stream, "g", "c2", [], owner="c1") == []
    assert await harness.streams.set_delivery_counts(stream, "g", "c1", []) == []
    assert await harness.streams.dead_letter(stream, "g", "c1", []) == []


async def test_delivery_counts_are_written_for_the_owner_only(harness: Harness) -> None:
    """The count of an entry that moved on stays as it is."""
    stream, ids = await harness.delivered(2)
    await harness.streams.claim(stream, "g", "c2", [ids[1]], owner="c1")
    counts = [(ids[0], 7), (ids[1], 9), (b"1-1", 5)]
    assert await harness.streams.set_delivery_counts(stream, "g", "c1", counts) == [True, False, False]
    assert [(entry.consumer, entry.delivery_count) for entry in await harness.streams.pending(stream, "g")] == [
        ("c1", 7),
        ("c2", 2),
    ]


async def test_delivery_counts_go_on_from_what_was_written(harness: Harness) -> None:
    """A written count is what the next delivery adds to."""
    stream, ids = await harness.delivered(1)
    await harness.streams.set_delivery_counts(stream, "g", "c1", [(ids[0], 0)])
    [(_, count)] = await harness.streams.claim(stream, "g", "c2", ids, owner="c1")
    assert count == 1


@pytest.mark.parametrize(
    "fields",
    [
        [b"data", b""],
        [b"\x00\xff", bytes(range(256))],
        [b"a", b"1", b"a", b"2"],
        [b"@id", b"5", b"@consumer", b"x"],
        [],
    ],
    ids=["empty", "binary", "repeated", "our names", "deleted"],
)
async def test_a_dead_letter_keeps_every_byte(harness: Harness, fields: list[bytes]) -> None:
    """What is read back is what was written, and the entry is acked."""
    stream, ids = await harness.delivered(1)
    written = letter(ids[0], fields)
    assert await harness.streams.dead_letter(stream, "g", "c1", [written]) == [True]
    [(own_id, read)] = await harness.streams.dead_letters(stream, "g")
    assert read == written
    assert own_id
    assert await harness.streams.pending(stream, "g") == []


async def test_a_dead_letter_is_an_entry_of_its_own_stream(harness: Harness) -> None:
    """On the wire: the fields as they were, then what is known, under fixed names."""
    stream, ids = await harness.delivered(1)
    await harness.streams.dead_letter(stream, "g", "c1", [letter(ids[0])])
    [entry] = await harness.streams.range(dead_letter_key(stream, "g"))
    names, values = entry.fields[::2], entry.fields[1::2]
    story = b"@id @reason @error @message @trace @tries @first @last @consumer"
    assert names == [b"data", *story.split()]
    assert values[:4] == [b"{}", ids[0], b"rejected", b"ValueError"]
    assert values[6:] == [b"3", b"1700000000.125", b"1700000060.1", b"c1"]


async def test_the_key_of_dead_letters_is_as_the_design_says(harness: Harness) -> None:
    """Operators look for this key by hand."""
    stream, ids = await harness.delivered(1)
    await harness.streams.dead_letter(stream, "g", "c1", [letter(ids[0])])
    assert await harness.streams.scan(f"{{{stream}}}:dead:g") == [f"{{{stream}}}:dead:g"]


async def test_a_dead_letter_needs_the_owner(harness: Harness) -> None:
    """A consumer that lost the entry can neither dead-letter nor ack it."""
    stream, ids = await harness.delivered(2)
    await harness.streams.claim(stream, "g", "c2", [ids[0]], owner="c1")
    letters = [letter(entry_id) for entry_id in ids]
    assert await harness.streams.dead_letter(stream, "g", "c1", letters) == [False, True]
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == [ids[0]]
    assert [read.entry_id for _, read in await harness.streams.dead_letters(stream, "g")] == [ids[1]]


async def test_an_entry_dies_once(harness: Harness) -> None:
    """A second call, or a second letter in one call, changes nothing."""
    stream, ids = await harness.delivered(1)
    letters = [letter(ids[0]), letter(ids[0])]
    assert await harness.streams.dead_letter(stream, "g", "c1", letters) == [True, False]
    assert await harness.streams.dead_letter(stream, "g", "c1", letters) == [False, False]
    assert len(await harness.streams.dead_letters(stream, "g")) == 1


async def test_dead_letters_are_paged_by_group(harness: Harness) -> None:
    """Each group has its own, oldest first; where there are none, none are returned."""
    stream, ids = await harness.delivered(3)
    await harness.streams.dead_letter(stream, "g", "c1", [letter(entry_id) for entry_id in ids])
    page = await harness.streams.dead_letters(stream, "g", count=2)
    rest = await harness.streams.dead_letters(stream, "g", after=page[-1][0])
    assert len(page) == 2
    assert [read.entry_id for _, read in page + rest] == ids
    assert await harness.streams.dead_letters(stream, "h") == []


async def test_a_dead_letter_written_by_hand_can_be_read(harness: Harness) -> None:
    """An entry without a story does not stop the others from being read."""
    stream, ids = await harness.delivered(1)
    long = [b"note", b"by hand"] * 12
    harness.place.add_raw(dead_letter_key(stream, "g"), long[:2])
    harness.place.add_raw(dead_letter_key(stream, "g"), long)
    await harness.streams.dead_letter(stream, "g", "c1", [letter(ids[0])])
    *by_hand, ours = [read for _, read in await harness.streams.dead_letters(stream, "g")]
    assert [(read.entry_id, read.fields, read.reason) for read in by_hand] == [
        (b"", long[:2], "unknown"),
        (b"", long, "unknown"),
    ]
    assert ours == letter(ids[0])


async def test_a_dead_letter_that_cannot_be_stored_is_not_acked(harness: Harness) -> None:
    """When the dead letters' key holds something else, the entry stays pending."""
    stream, ids = await harness.delivered(1)
    harness.place.set_value(dead_letter_key(stream, "g"), b"text")
    for consumer in ("c1", "nobody"):
        with pytest.raises(WrongTypeError):
            await harness.streams.dead_letter(stream, "g", consumer, [letter(ids[0])])
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == ids


async def test_a_dead_letter_needs_its_group(harness: Harness) -> None:
    """A group that is gone has nobody who owns the entry."""
    stream, ids = await harness.delivered(1)
    harness.place.destroy_group(stream, "g")
    with pytest.raises(GroupNotFoundError):
        await harness.streams.dead_letter(stream, "g", "c1", [letter(ids[0])])
    assert await harness.streams.dead_letters(stream, "g") == []


async def test_a_deleted_entry_stays_pending_and_can_be_acked(harness: Harness) -> None:
    """Deleting an entry does not touch the pending list."""
    stream, ids = await harness.delivered(2)
    harness.place.delete_entries(stream, [ids[0]])
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == ids
    assert await harness.streams.ack([(stream, "g", ids)]) == [2]


async def test_a_consumer_is_removed_only_when_it_holds_nothing(harness: Harness) -> None:
    """What a consumer holds would be lost with it."""
    busy, ids = await harness.delivered(1)
    idle = harness.stream("idle")
    await harness.group(idle)
    await harness.add(idle, b"done")
    await harness.streams.ack([(idle, "g", await harness.take(idle))])
    missing = harness.stream("missing")
    assert await harness.streams.remove_consumer("g", "c1", [busy, idle, missing]) == 1
    assert [entry.id for entry in await harness.streams.pending(busy, "g")] == ids
    await harness.streams.ack([(busy, "g", ids)])
    assert await harness.streams.remove_consumer("g", "c1", [busy, idle]) == 1
    assert await harness.streams.remove_consumer("g", "c1", [busy, idle]) == 0
    for info in await harness.streams.info([busy, idle]):
        assert info is not None
        assert info.groups[0].consumers == 0
