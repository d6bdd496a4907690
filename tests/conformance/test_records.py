"""Records: values with a lifetime, compare-and-set, members in the order of their times."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import pytest

from hyperbus.errors import WrongTypeError
from hyperbus.transports.keys import record_key
from tests.conformance.harness import DEADLINE, Harness


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_record_holds_what_was_put(harness: Harness) -> None:
    """Get returns values in order, None for what is not there."""
    await harness.records.put("a", b"\x00\xff")
    await harness.records.put("b", b"")
    assert await harness.records.get(["b", "missing", "a"]) == [b"", None, b"\x00\xff"]
    assert await harness.records.get([]) == []


async def test_put_replaces(harness: Harness) -> None:
    """The last value holds."""
    await harness.records.put("a", b"1")
    await harness.records.put("a", b"2")
    assert await harness.records.get(["a"]) == [b"2"]


async def test_records_are_apart_by_prefix(harness: Harness) -> None:
    """Another bus on the same place has its own records."""
    other = harness.place.transport(harness.prefix + "x")
    await other.open()
    await harness.records.put("a", b"1")
    assert await other.records.get(["a"]) == [None]
    await other.close()


async def test_a_record_is_gone_after_its_time(harness: Harness) -> None:
    """A record with a ttl dies, one without stays."""
    await harness.records.put("short", b"1", ttl=0.03)
    await harness.records.put("long", b"1", ttl=60)
    await harness.records.put("endless", b"1")
    assert await harness.records.get(["short"]) == [b"1"]

    async def gone() -> bool:
        return await harness.records.get(["short"]) == [None]

    await eventually(gone)
    assert await harness.records.get(["long", "endless"]) == [b"1", b"1"]


async def test_put_without_ttl_ends_the_old_one(harness: Harness) -> None:
    """A value that is stored without a time has none, whatever was before."""
    await harness.records.put("a", b"1", ttl=0.02)
    await harness.records.put("a", b"2")
    await harness.records.put("witness", b"1", ttl=0.05)

    async def gone() -> bool:
        return await harness.records.get(["witness"]) == [None]

    await eventually(gone)
    assert await harness.records.get(["a"]) == [b"2"]


async def test_renew_gives_another_life(harness: Harness) -> None:
    """A renewed record outlives its first time; one that is gone stays gone."""
    await harness.records.put("a", b"1", ttl=0.5)
    await harness.records.put("witness", b"1", ttl=0.6)
    assert await harness.records.renew(["missing", "a"], ttl=60) == [False, True]
    assert await harness.records.renew([], ttl=60) == []

    async def gone() -> bool:
        return await harness.records.get(["witness"]) == [None]

    await eventually(gone)
    assert await harness.records.get(["a", "missing"]) == [b"1", None]


async def test_renew_can_shorten_a_life(harness: Harness) -> None:
    """Renew sets the time, it does not add to it."""
    await harness.records.put("a", b"1", ttl=60)
    assert await harness.records.renew(["a"], ttl=0.02) == [True]

    async def gone() -> bool:
        return await harness.records.get(["a"]) == [None]

    await eventually(gone)
    assert await harness.records.renew(["a"], ttl=60) == [False]


async def test_lifetimes_are_told_by_the_servers_clock(harness: Harness) -> None:
    """Each renewal changes when a record ends; without one it stays as it is."""
    await harness.records.put("short", b"1", ttl=10)
    await harness.records.put("endless", b"1")
    now, (end, none, endless) = await harness.records.lifetimes(["short", "gone", "endless"])
    assert now == pytest.approx(await harness.records.server_time(), abs=DEADLINE)
    assert end is not None
    assert 0 < end - now <= 10.01
    assert (none, endless) == (None, math.inf)
    await asyncio.sleep(0.02)
    later, [same] = await harness.records.lifetimes(["short"])
    assert same == pytest.approx(end, abs=0.002)
    assert later > now
    await harness.records.renew(["short"], ttl=60)
    _, [renewed] = await harness.records.lifetimes(["short"])
    assert renewed is not None
    assert renewed > end + 40
    assert (await harness.records.lifetimes([]))[1] == []


async def test_a_record_may_be_named_for_a_consumer_of_any_name(harness: Harness) -> None:
    """Whether it lives is asked by its name, which need be no text."""
    name = "worker:" + b"\xff\xfe".decode(errors="surrogateescape")
    assert (await harness.records.lifetimes([name]))[1] == [None]
    await harness.records.put(name, b"1")
    assert await harness.records.get([name, "worker:\\xff\\xfe"]) == [b"1", None]


async def test_delete_counts_what_was_there(harness: Harness) -> None:
    """Values and sets are deleted alike."""
    await harness.records.put("a", b"1")
    await harness.records.add_members("b", {"x": 1.0})
    assert await harness.records.delete(["a", "b", "missing"]) == 2
    assert await harness.records.delete(["a", "b"]) == 0
    assert await harness.records.delete([]) == 0
    assert await harness.records.members("b") == []


async def test_compare_and_set_takes_what_is_not_there(harness: Harness) -> None:
    """With None expected, only the first wins."""
    assert await harness.records.compare_and_set("lease", None, b"me")
    assert not await harness.records.compare_and_set("lease", None, b"you")
    assert await harness.records.get(["lease"]) == [b"me"]


async def test_compare_and_set_replaces_what_is_expected(harness: Harness) -> None:
    """A value changes only from the one that was expected."""
    await harness.records.put("lease", b"me")
    assert not await harness.records.compare_and_set("lease", b"you", b"us")
    assert await harness.records.compare_and_set("lease", b"me", b"us")
    assert await harness.records.get(["lease"]) == [b"us"]
    assert not await harness.records.compare_and_set("missing", b"me", b"us")
    assert await harness.records.get(["missing"]) == [None]


async def test_compare_and_set_deletes(harness: Harness) -> None:
    """A value of None deletes what was expected."""
    await harness.records.put("lease", b"me")
    assert not await harness.records.compare_and_set("lease", b"you", None)
    assert await harness.records.compare_and_set("lease", b"me", None)
    assert await harness.records.get(["lease"]) == [None]
    assert await harness.records.compare_and_set("lease", None, None)


async def test_compare_and_set_tells_empty_from_missing(harness: Harness) -> None:
    """An empty value is a value."""
    assert not await harness.records.compare_and_set("lease", b"", b"me")
    assert await harness.records.compare_and_set("lease", None, b"")
    assert not await harness.records.compare_and_set("lease", None, b"me")
    assert await harness.records.compare_and_set("lease", b"", b"me")


async def test_compare_and_set_gives_a_time(harness: Harness) -> None:
    """A lease ends by itself."""
    assert await harness.records.compare_and_set("lease", None, b"me", ttl=0.03)

    async def free() -> bool:
        return await harness.records.compare_and_set("lease", None, b"you", ttl=60)

    await eventually(free)
    assert await harness.records.get(["lease"]) == [b"you"]


async def test_one_of_many_wins_a_lease(harness: Harness) -> None:
    """Compare-and-set is atomic."""
    others = [harness.transport.separate() for _ in range(3)]
    for other in others:
        await other.open()
    won = await asyncio.gather(
        *(other.records.compare_and_set("lease", None, b"%d" % number) for number, other in enumerate(others))
    )
    assert sum(won) == 1
    assert await harness.records.get(["lease"]) == [b"%d" % won.index(True)]
    for other in others:
        await other.close()


async def test_records_can_be_used_from_another_thread(harness: Harness) -> None:
    """A heartbeat thread has its own loop and its own transport."""

    async def count(name: str, times: int) -> None:
        other = harness.transport.separate()
        await other.open()
        for number in range(times):
            await other.records.add_members("set", {f"{name}{number}": float(number)})
            await other.records.put(name, b"%d" % number, ttl=60)
        await other.close()

    threads = [asyncio.to_thread(asyncio.run, count(name, 100)) for name in "abc"]
    await asyncio.gather(*threads)
    assert await harness.records.get(list("abc")) == [b"99"] * 3
    assert len(await harness.records.members("set")) == 300


async def test_members_come_in_the_order_of_their_times(harness: Harness) -> None:
    """Earliest first, and by name where times are equal."""
    assert await harness.records.add_members("set", {"late": 3.5, "b": 2.0, "early": -1.25, "a": 2.0}) == 4
    assert await harness.records.members("set") == [("early", -1.25), ("a", 2.0), ("b", 2.0), ("late", 3.5)]


async def test_members_lie_between_the_bounds_both_included(harness: Harness) -> None:
    """Minimum, maximum and count narrow the answer."""
    await harness.records.add_members("set", {str(number): float(number) for number in range(6)})
    members = harness.records.members
    assert [name for name, _ in await members("set", minimum=2, maximum=4)] == ["2", "3", "4"]
    assert [name for name, _ in await members("set", maximum=1)] == ["0", "1"]
    assert [name for name, _ in await members("set", minimum=3, count=2)] == ["3", "4"]
    assert await members("missing") == []


async def test_a_time_keeps_its_precision(harness: Harness) -> None:
    """Times are floats of seconds since the epoch, to the last bit."""
    now = time.time() + 1e-6
    await harness.records.add_members("set", {"x": now})
    assert await harness.records.members("set", minimum=now, maximum=now) == [("x", now)]


async def test_the_youngest_members_come_first_where_that_is_asked(harness: Harness) -> None:
    """And pages of them, one after another."""
    await harness.records.add_members("set", {str(number): float(number) for number in range(6)})
    members = harness.records.members
    assert [name for name, _ in await members("set", newest=True, count=2)] == ["5", "4"]
    assert [name for name, _ in await members("set", newest=True, minimum=1, offset=2, count=10)] == ["3", "2", "1"]
    assert [name for name, _ in await members("set", offset=4)] == ["4", "5"]


async def test_touched_members_have_the_servers_time(harness: Harness) -> None:
    """Also those that were there; how many were new is told, and one that had been quiet counts as new."""
    records = harness.records
    now = await records.server_time()
    await records.add_members("set", {"old": 1.0, "young": now, "other": 2.0})
    assert await records.touch_members("set", ["old", "young", "new"], 60.0) == 2
    times = dict(await records.members("set"))
    assert times["other"] == 2.0
    assert all(now <= times[name] <= now + 60 for name in ("old", "young", "new"))
    assert await records.touch_members("set", ["old", "young", "new"], 60.0) == 0
    assert await records.touch_members("set", [], 60.0) == 0


async def test_members_are_removed_as_far_as_they_are_old(harness: Harness) -> None:
    """One that was touched meanwhile stays."""
    await harness.records.add_members("set", {"a": 1.0, "b": 2.0, "c": 3.0})
    assert await harness.records.remove_members("set", ["a", "c", "missing"], maximum=2.0) == 1
    assert [name for name, _ in await harness.records.members("set")] == ["b", "c"]


async def test_members_that_are_there_keep_their_times(harness: Harness) -> None:
    """Adding again changes nothing and counts nothing."""
    await harness.records.add_members("set", {"a": 1.0})
    assert await harness.records.add_members("set", {"a": 5.0, "b": 2.0}) == 1
    assert await harness.records.members("set") == [("a", 1.0), ("b", 2.0)]
    assert await harness.records.add_members("set", {}) == 0


async def test_remove_members_counts_what_was_there(harness: Harness) -> None:
    """A set that lost its last member is gone."""
    await harness.records.add_members("set", {"a": 0.0, "b": 2.0})
    assert await harness.records.remove_members("set", ["a", "missing"]) == 1
    assert await harness.records.remove_members("set", ["b"]) == 1
    assert await harness.records.remove_members("set", ["b"]) == 0
    assert await harness.records.remove_members("set", []) == 0
    assert await harness.records.renew(["set"], ttl=60) == [False]


async def test_a_set_can_be_renewed_and_read_as_no_value(harness: Harness) -> None:
    """Sets are records too."""
    await harness.records.add_members("set", {"a": 1.0})
    assert await harness.records.renew(["set"], ttl=60) == [True]
    assert await harness.records.get(["set"]) == [None]


async def test_a_value_is_not_a_set(harness: Harness) -> None:
    """A record of one kind refuses the methods of the other."""
    await harness.records.put("value", b"1")
    await harness.records.add_members("set", {"a": 1.0})
    with pytest.raises(WrongTypeError):
        await harness.records.add_members("value", {"a": 1.0})
    with pytest.raises(WrongTypeError):
        await harness.records.members("value")
    with pytest.raises(WrongTypeError):
        await harness.records.remove_members("value", ["a"])
    with pytest.raises(WrongTypeError):
        await harness.records.compare_and_set("set", b"1", b"2")


async def test_the_key_of_a_record_is_as_the_design_says(harness: Harness) -> None:
    """Operators look for this key by hand."""
    assert record_key("events", "lease.x") == "hyperbus:events:lease.x"
    harness.place.set_value(f"hyperbus:{harness.prefix}:by.hand", b"1")
    assert await harness.records.get(["by.hand"]) == [b"1"]


async def test_server_time_is_now(harness: Harness) -> None:
    """Seconds since the epoch."""
    assert abs(await harness.records.server_time() - time.time()) < 2
