"""Faults that other programs make, by malice or by mistake: odd names, odd bytes, odd times, entries taken away."""

from __future__ import annotations

import time

from tests.chaos.features import EVERY_GROUP
from tests.chaos.refusals import is_back
from tests.chaos.world import PREFIX, TYPES, World

#: Names that a consumer of another program may have.
NAMES = (b"\xff\xfe", b"", b"a b\r\nc", b"{x}:y", "\u0442\u044b".encode(), b"n" * 5_000)
_TRIES = 20
#: Times that other languages write: a default of theirs, one without a zone, one at the end of time, one far east.
TIMES = ("0001-01-01T00:00:00", "2026-01-01T00:00:00", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00+14:00")
#: Removes consumers that have nothing pending, in one step; returns how many.
_REMOVE_IDLE = """
local removed = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
    if about['pending'] == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
        removed = removed + 1
    end
end
return removed
"""


async def directory_spoilt(world: World) -> None:
    """Bytes that are no UTF-8 lie where every publisher may write; a stream that is born then is found all the same."""
    begin = time.time()
    born = world.new_type()
    await world.command("ZADD", f"hyperbus:{PREFIX}:streams", 1, b"events:\xff")
    await world.command("ZADD", f"hyperbus:{PREFIX}:groups", 1, b"{events:\xff}:\xff")
    await world.command("XADD", b"events:chaos.\xff", "*", "data", b"\xff")
    await world.command("SET", f"hyperbus:{PREFIX}:retention:{born}", b'{"keep":"\xff"}')
    for kind, body in (
        (b"stream", b"events:\xff"),
        (b"handed over", b'{"to":"\xff","streams":[]}'),
        (b"\xff", b"\xff"),
    ):
        await world.command("XADD", f"hyperbus:{PREFIX}:notices", "*", kind, body)
    await is_back(world, "directory_spoilt", begin, [*TYPES, born])


async def stranger_takes(world: World) -> None:
    """A consumer with an odd name takes entries and is never seen again: they are ours, whatever it is called."""
    begin = time.time()
    for group in EVERY_GROUP:
        before = world.counts["taken"]
        for _ in range(_TRIES):  # an ordered group may not have read the last entry just then
            await world.publish_by_hand(taken_by=(group, world.random.choice(NAMES)))
            if world.counts["taken"] > before:
                break
    world.fault("stranger_takes", begin)


async def odd_times(world: World) -> None:
    """Events carry times that other languages write, and are handled like any other."""
    begin = time.time()
    for written in TIMES:
        await world.publish_by_hand(timestamp=written)
    world.fault("odd_times", begin)


async def worker_forgotten(world: World) -> None:
    """XGROUP DELCONSUMER of every consumer that has nothing pending, those of live workers too."""
    begin, group, removed = time.time(), world.random.choice(EVERY_GROUP), 0
    for name in TYPES:
        if await world.command("EXISTS", f"{PREFIX}:{name}"):
            removed += await world.command("EVAL", _REMOVE_IDLE, 1, f"{PREFIX}:{name}", group)
    if removed:
        world.fault("worker_forgotten", begin, group=group)
