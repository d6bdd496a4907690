"""What groups are done with, what a stream holds, and cutting it."""

from __future__ import annotations

import pytest

from hyperbus.errors import WrongTypeError
from hyperbus.transport import FIRST_ID, DeadLetter, Parked, id_at, id_before, id_key
from hyperbus.transports.keys import checkpoint_key, parked_key, retries_key, suspects_key
from tests.conformance.harness import Harness


async def test_the_floor_lies_below_the_oldest_pending_entry(harness: Harness) -> None:
    """Acks above it do not move it; when nothing is pending it is what was delivered last."""
    stream, ids = await harness.delivered(4)
    await harness.streams.create_groups([(stream, "new", FIRST_ID)])
    assert await harness.streams.floors(stream) == {"g": id_before(ids[0]), "new": FIRST_ID}
    await harness.streams.ack([(stream, "g", [ids[0], ids[2]])])
    assert (await harness.streams.floors(stream))["g"] == id_before(ids[1])
    await harness.streams.ack([(stream, "g", ids)])
    await harness.add(stream, b"undelivered")
    assert (await harness.streams.floors(stream))["g"] == ids[3]


async def test_a_stream_that_does_not_exist_has_no_floors(harness: Harness) -> None:
    """And neither has one without groups; a key of another kind is named."""
    stream = harness.stream()
    assert await harness.streams.floors(stream) == {}
    await harness.add(stream, b"1")
    assert await harness.streams.floors(stream) == {}
    harness.place.set_value(harness.stream("text"), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.floors(harness.stream("text"))


async def test_a_checkpoint_is_the_floor_when_it_was_saved(harness: Harness) -> None:
    """It stays as it was until it is saved again, and outlives its group."""
    stream, ids = await harness.delivered(3)
    pair = [(stream, "g")]
    assert await harness.streams.checkpoints(pair) == [None]
    assert await harness.streams.save_checkpoints(pair) == [id_before(ids[0])]
    await harness.streams.ack([(stream, "g", ids[:2])])
    assert await harness.streams.checkpoints(pair) == [id_before(ids[0])]
    assert await harness.streams.save_checkpoints(pair) == [id_before(ids[2])]
    harness.place.destroy_group(stream, "g")
    assert await harness.streams.save_checkpoints(pair) == [None]
    assert await harness.streams.checkpoints(pair) == [id_before(ids[2])]


async def test_a_checkpoint_just_below_an_entry_of_a_new_millisecond(harness: Harness) -> None:
    """The id before <ms>-0 belongs to the millisecond before."""
    stream, ids = await harness.delivered(1)
    time, sequence = id_key(ids[0])
    assert sequence == 0
    assert await harness.streams.save_checkpoints([(stream, "g")]) == [b"%d-18446744073709551615" % (time - 1)]


async def test_a_checkpoint_is_never_lowered(harness: Harness) -> None:
    """A group that was lost and begins again from the start keeps the place it had reached."""
    stream, ids = await harness.delivered(3)
    pair = [(stream, "g")]
    await harness.streams.ack([(stream, "g", ids[:2])])
    [reached] = await harness.streams.save_checkpoints(pair)
    harness.place.destroy_group(stream, "g")
    await harness.group(stream)
    assert await harness.streams.save_checkpoints(pair) == [reached]
    await harness.take(stream, count=1)
    assert await harness.streams.save_checkpoints(pair) == [reached]
    assert await harness.streams.checkpoints(pair) == [reached]


async def test_a_checkpoint_of_a_stream_made_anew_is_replaced(harness: Harness) -> None:
    """What lies above the stream's last id speaks of another stream."""
    stream, ids = await harness.delivered(2)
    pair = [(stream, "g")]
    await harness.streams.ack([(stream, "g", ids)])
    assert await harness.streams.save_checkpoints(pair) == [ids[1]]
    harness.place.delete_stream(stream)
    assert await harness.streams.save_checkpoints(pair) == [None]
    await harness.group(stream)
    assert await harness.streams.save_checkpoints(pair) == [FIRST_ID]
    assert await harness.streams.checkpoints(pair) == [FIRST_ID]


async def test_checkpoints_compare_as_numbers(harness: Harness) -> None:
    """Not as text, where 9 comes after 10."""
    stream = harness.stream()
    await harness.group(stream)
    pair = [(stream, "g")]
    await harness.add(stream, b"1")
    harness.place.set_value(checkpoint_key(stream, "g"), b"9-5")
    ids = await harness.take(stream)
    assert await harness.streams.save_checkpoints(pair) == [id_before(ids[0])]
    harness.place.set_value(checkpoint_key(stream, "g"), b"%d-9" % (id_key(ids[0])[0] - 1))
    await harness.streams.save_checkpoints(pair)
    assert await harness.streams.checkpoints(pair) == [id_before(ids[0])]


async def test_checkpoints_of_many_groups_are_one_call(harness: Harness) -> None:
    """In the order that was asked for."""
    stream, ids = await harness.delivered(1)
    other = harness.stream("other")
    await harness.group(other)
    groups = [(other, "g"), (stream, "missing"), (stream, "g"), (harness.stream("missing"), "g")]
    expected = [FIRST_ID, None, id_before(ids[0]), None]
    assert await harness.streams.save_checkpoints(groups) == expected
    assert await harness.streams.checkpoints(groups) == expected
    assert await harness.streams.save_checkpoints([]) == []
    assert await harness.streams.checkpoints([]) == []


async def test_trimming_takes_everything_up_to_an_id(harness: Harness) -> None:
    """That one too, and nothing above it, however blocks lie."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x"] * 350)
    assert await harness.streams.trim(stream, up_to=ids[249], limit=10_000) == 250
    assert [entry.id for entry in await harness.streams.range(stream, count=999)] == ids[250:]
    assert await harness.streams.trim(stream, up_to=ids[249], limit=10_000) == 0
    assert await harness.streams.oldest([stream]) == [ids[250]]


async def test_trimming_stops_at_its_limit(harness: Harness) -> None:
    """Call by call the oldest go first, until none is left to delete."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x" * 20] * 5_000)
    cuts: list[int] = []
    while cut := await harness.streams.trim(stream, up_to=ids[4_400], limit=1_000):
        cuts.append(cut)
        assert await harness.streams.oldest([stream]) == [ids[sum(cuts)]]
    assert sum(cuts) == 4_401
    assert max(cuts) <= 1_000
    assert len(cuts) <= 7


async def test_a_small_limit_still_gets_on(harness: Harness) -> None:
    """Servers cut whole blocks, so a limit below one would never end."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x"] * 300)
    while await harness.streams.trim(stream, up_to=ids[-2], limit=1):
        pass
    assert [entry.id for entry in await harness.streams.range(stream)] == ids[-1:]


async def test_trimming_leaves_pending_lists_and_lag_alone(harness: Harness) -> None:
    """What was pending stays pending without its bytes, and a group that is behind knows by how much."""
    stream, ids = await harness.delivered(4)
    await harness.add(stream, b"5", b"6")
    await harness.streams.trim(stream, up_to=ids[1], limit=1_000)
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == ids
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert (info.length, info.groups[0].lag) == (4, 2)
    assert await harness.streams.last_ids([stream]) != [ids[3]]


async def test_trimming_nothing(harness: Harness) -> None:
    """Missing streams and ids below the first are no errors; another kind of key is."""
    stream = harness.stream()
    assert await harness.streams.trim(stream, up_to=b"5-5", limit=1_000) == 0
    await harness.add(stream, b"1")
    assert await harness.streams.trim(stream, up_to=FIRST_ID, limit=1_000) == 0
    harness.place.set_value(harness.stream("text"), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.trim(harness.stream("text"), up_to=b"5-5", limit=1_000)


async def test_an_id_made_of_a_time_divides_old_from_new(harness: Harness) -> None:
    """Entries of that millisecond and later ones lie above it."""
    stream = harness.stream()
    [entry_id] = await harness.add(stream, b"1")
    seconds = id_key(entry_id)[0] / 1000
    assert await harness.streams.trim(stream, up_to=id_before(id_at(seconds)), limit=1_000) == 0
    assert await harness.streams.trim(stream, up_to=id_before(id_at(seconds + 0.002)), limit=1_000) == 1


async def test_the_oldest_entries_of_many_streams(harness: Harness) -> None:
    """None where a stream is missing, or empty."""
    full, empty = harness.stream("full"), harness.stream("empty")
    ids = await harness.add(full, b"1", b"2")
    await harness.group(empty)
    assert await harness.streams.oldest([full, empty, harness.stream("missing")]) == [ids[0], None, None]
    assert await harness.streams.oldest([]) == []


async def test_counting_between_two_ids(harness: Harness) -> None:
    """The first one is left out, the last one is counted, and the limit holds."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x"] * 1_300)
    count = harness.streams.count_between
    assert await count(stream, FIRST_ID, ids[-1], 10_000) == 1_300
    assert await count(stream, ids[9], ids[19], 10_000) == 10
    assert await count(stream, FIRST_ID, ids[-1], 1_234) == 1_234
    assert await count(stream, ids[-1], ids[-1], 10) == 0
    assert await count(stream, ids[5], ids[2], 10) == 0
    assert await count(stream, FIRST_ID, ids[-1], 0) == 0
    assert await count(harness.stream("missing"), FIRST_ID, ids[-1], 10) == 0


async def test_counting_large_entries(harness: Harness) -> None:
    """Pages shrink, the number does not."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x" * 100_000] * 11)
    assert await harness.streams.count_between(stream, FIRST_ID, ids[-1], 100) == 11


async def test_the_weight_of_a_stream_grows_with_it(harness: Harness) -> None:
    """It is about the bytes put in; a missing stream has none."""
    light, heavy = harness.stream("light"), harness.stream("heavy")
    await harness.add(light, *[b"x" * 100] * 10)
    await harness.add(heavy, *[b"x" * 1_000] * 1_000)
    first, second, missing = await harness.streams.stream_bytes([light, heavy, harness.stream("missing")])
    assert missing == 0
    assert 1_000 <= first < 20_000
    assert 900_000 < second < 2_500_000
    assert await harness.streams.stream_bytes([]) == []


async def test_the_weight_of_a_stream_shrinks_with_it(harness: Harness) -> None:
    """Whatever takes entries away; in memory a sum is kept, so that weighing does not walk through them."""
    stream = harness.stream()
    ids = await harness.add(stream, *[b"x" * 1_000] * 3_000)
    weights = await harness.streams.stream_bytes([stream])
    harness.place.delete_entries(stream, ids[-1:])
    await harness.streams.trim(stream, up_to=ids[1_999], limit=2_000)
    weights += await harness.streams.stream_bytes([stream])
    await harness.streams.trim(stream, up_to=ids[-1], limit=2_000)
    weights += await harness.streams.stream_bytes([stream])
    assert weights[0] > 2_900_000
    assert weights[1] < 0.6 * weights[0]
    assert weights[2] < 0.1 * weights[0]


async def test_groups_of_other_programs_may_have_any_name(harness: Harness) -> None:
    """One that is no text holds the stream as every other, and is told so that it can be asked for."""
    stream, ids = await harness.delivered(2)
    harness.place.create_group(stream, b"gr\xc3\xbcn")
    harness.place.create_group(stream, b"\xff\x00g")
    await harness.streams.ack([(stream, "g", ids)])
    assert await harness.streams.floors(stream) == {"g": ids[1], "grün": FIRST_ID, "\udcff\x00g": FIRST_ID}
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert {group.group for group in info.groups} == {"g", "grün", "\udcff\x00g"}


async def test_consumers_of_other_programs_may_have_any_name(harness: Harness) -> None:
    """Neither looking for the dead nor looking at what is pending fails because of one."""
    stream = harness.stream()
    await harness.add(stream, b"1")
    await harness.group(stream)
    harness.place.read_as(stream, "g", b"\xffc")
    assert await harness.streams.consumers([(stream, "g")]) == [["\udcffc"]]
    [summary] = await harness.streams.pending_summaries([(stream, "g")])
    assert summary.consumers == {"\udcffc": 1}
    [entry] = await harness.streams.pending(stream, "g")
    assert entry.consumer == "\udcffc"


async def test_a_destroyed_group_takes_what_was_kept_for_it(harness: Harness) -> None:
    """All but its dead letters; the other groups of the stream keep theirs."""
    stream, ids = await harness.delivered(4)
    streams = harness.streams
    await streams.create_groups([(stream, "h", FIRST_ID)])
    await streams.save_checkpoints([(stream, "g"), (stream, "h")])
    await streams.suspect(stream, "g", ids)
    await streams.schedule_retries(stream, "g", "c1", [(ids[0], 2, 5.5)])
    await streams.park(stream, "g", "c1", [Parked(ids[1], [b"a", b"b"], 1, 1.5, 2.5)])
    await streams.dead_letter(
        stream, "g", "c1", [DeadLetter(ids[2], [b"a", b"b"], "rejected", "", "", "", 1, 1.5, 2.5)]
    )
    assert await streams.destroy_group(stream, "g") is True
    assert await streams.destroy_group(stream, "g") is False
    assert await streams.destroy_group(harness.stream("missing"), "g") is False
    kept = [key(stream, "g") for key in (checkpoint_key, suspects_key, retries_key, parked_key)]
    assert [key for key in kept if harness.place.has_key(key)] == []
    assert len(await streams.dead_letters(stream, "g")) == 1
    assert await streams.checkpoints([(stream, "g"), (stream, "h")]) == [None, FIRST_ID]
    assert list(await streams.floors(stream)) == ["h"]
    assert await streams.parked_count([(stream, "g")]) == [0]


async def test_a_group_with_much_pending_is_destroyed_page_by_page(harness: Harness) -> None:
    """In the end it is gone like any other."""
    stream = harness.stream()
    await harness.group(stream)
    await harness.add(stream, *[b"x"] * 2_500)
    await harness.take(stream, count=3_000)
    assert await harness.streams.destroy_group(stream, "g") is True
    assert await harness.streams.floors(stream) == {}
    await harness.group(stream)
    assert await harness.streams.pending_summaries([(stream, "g")]) == [(0, {})]


async def test_the_eviction_policy_is_told(harness: Harness) -> None:
    """What these places do by default."""
    assert await harness.streams.eviction_policy() == ("noeviction", 0)


async def test_a_position_tells_what_was_added_and_what_the_group_was_given(harness: Harness) -> None:
    """Of each stream that has the group; anything else has none."""
    stream, ids = await harness.delivered(4)
    await harness.add(stream, b"undelivered")
    missing, bare = harness.stream("missing"), harness.stream("bare")
    await harness.add(bare, b"1")
    harness.place.set_value(harness.stream("text"), b"text")
    names = [stream, missing, bare, harness.stream("text")]
    position, *others = await harness.streams.positions("g", names)
    assert others == [None, None, None]
    assert position is not None
    assert (position.added, position.length, position.read) == (5, 5, 4)
    assert (position.first, position.delivered, position.deleted) == (ids[0], ids[3], FIRST_ID)
    assert not position.lacks_next
    await harness.streams.trim(stream, up_to=b"9999999999999999-0", limit=1000)
    (position,) = await harness.streams.positions("g", [stream])
    assert position is not None
    assert (position.added, position.length, position.first) == (5, 0, None)
    assert position.lacks_next


async def test_what_waits_in_a_group_is_counted(harness: Harness) -> None:
    """Parked entries, schedules of retries, and dead letters; 0 where there are none, or another kind of key lies."""
    stream, ids = await harness.delivered(3)
    pairs = [(stream, "g"), (harness.stream("missing"), "g")]
    counts = (harness.streams.parked_count, harness.streams.retry_counts, harness.streams.dead_letter_counts)
    assert [await count(pairs) for count in counts] == [[0, 0]] * 3
    await harness.streams.park(stream, "g", "c1", [Parked(ids[0], [b"data", b"x"], 1, 1.0, 2.0)])
    await harness.streams.schedule_retries(stream, "g", "c1", [(ids[1], 1, 2.0)])
    letter = DeadLetter(ids[2], [b"data", b"x"], "rejected", "", "", "", 1, 1.0, 2.0)
    await harness.streams.dead_letter(stream, "g", "c1", [letter])
    assert [await count(pairs) for count in counts] == [[1, 0]] * 3
