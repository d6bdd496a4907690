"""Faults of a server that is there and refuses: rights are taken away, writes paused, a save failed, a script goes on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import redis

from tests.chaos.features import STALLING
from tests.chaos.world import TTL, TYPES, USER, World, kill, until

#: How long writes are paused: longer than a heartbeat lasts.
PAUSED = 2 * TTL + 1
#: How long an event is waited for that comes once a server is back; the checker says how long it may take.
_BACK = 40.0
#: A failed save is waited for this long.
_SAVE = 10.0


async def acks_refused(world: World) -> None:
    """Nobody may ack for some seconds: what is done is acked once that is over, and not done again."""
    begin = time.time()
    await world.command("ACL", "SETUSER", USER, "-xack")
    await asyncio.sleep(world.random.uniform(3, 5))
    await world.command("ACL", "SETUSER", USER, "+@all")
    world.fault("acks_refused", begin)


async def rights_taken(world: World) -> None:
    """Nobody may do anything for three seconds, as while credentials change; then all streams are worked on again."""
    begin = time.time()
    await world.command("ACL", "SETUSER", USER, "-@all")
    await asyncio.sleep(3)
    await world.command("ACL", "SETUSER", USER, "+@all")
    await is_back(world, "rights_taken", begin)


async def writes_paused(world: World) -> None:
    """CLIENT PAUSE WRITE for longer than a heartbeat lasts, while handlers work: who lives keeps what it has."""
    if await _busy(world, PAUSED):
        begin = time.time()
        await world.command("CLIENT", "PAUSE", int(PAUSED * 1000), "WRITE")
        await asyncio.sleep(PAUSED)
        await is_back(world, "writes_paused", begin)


async def save_failed(world: World) -> None:
    """A save failed, and the server takes no writes (MISCONF); a worker process dies meanwhile, and is replaced."""
    in_the_way = world.server.folder / "dump.rdb"  # a file cannot take the place of a folder
    in_the_way.mkdir(exist_ok=True)
    begin, pids = time.time(), []
    try:
        await world.command("CONFIG", "SET", "save", "3600 1000000000")
        await world.command("BGSAVE", "SCHEDULE")
        if await _refuses(world):
            pids = [world.random.choice(world.workers())]
            kill(pids[0], signal.SIGKILL)
            await asyncio.sleep(world.random.uniform(3, 5))
    finally:
        await world.command("CONFIG", "SET", "save", "")
        in_the_way.rmdir()
    if pids:
        world.fault("save_failed", begin, pids=pids)


async def _refuses(world: World) -> bool:
    """Wait until the server refuses to write."""
    deadline = time.monotonic() + _SAVE
    while time.monotonic() < deadline:
        if (await world.command("INFO", "persistence"))["rdb_last_bgsave_status"] == "err":
            return True
        await asyncio.sleep(0.1)
    return False


async def script_hogs(world: World) -> None:
    """A script of somebody's goes on for seconds, and the server tells everybody that it is busy."""
    begin = time.time()
    await world.command("CONFIG", "SET", "busy-reply-threshold", 100)
    hogging = asyncio.create_task(asyncio.to_thread(_hog, world.server.port))
    await asyncio.sleep(world.random.uniform(2, 4))
    with suppress(redis.ResponseError):  # it has not begun on a machine that is busy
        await world.command("SCRIPT", "KILL")
    await hogging
    await world.command("CONFIG", "SET", "busy-reply-threshold", 5000)
    await is_back(world, "script_hogs", begin)


def _hog(port: int) -> None:
    with redis.Redis(port=port, socket_timeout=60) as client, suppress(redis.RedisError):
        client.eval("for i = 1, 1e10 do end", 0)


async def _busy(world: World, seconds: float) -> bool:
    """Let a handler of each group that can be stalled work for so long, and longer; tell whether all do."""
    for group in STALLING:
        event_id = await world.publish_by_hand(stall=group, sleep=seconds + 2 * TTL)
        if await world.stalled(event_id) is None:
            return False  # an earlier backlog was in the way; another round will do
    return True


async def is_back(world: World, kind: str, begin: float, types: Sequence[str] = TYPES) -> None:
    """Write down a fault that has ended now, and how long it takes until these streams are worked on again."""
    world.fault(kind, begin)
    ended = time.time()
    published = [await world.publish_by_hand(event_type, stall=group) for event_type in types for group in STALLING]
    came = await until(lambda: all(world.has_stalled(event_id) for event_id in published), _BACK)
    world.faults.add(
        {
            "kind": "back",
            "of": kind,
            "begin": ended,
            "end": time.time(),
            "seconds": time.time() - ended if came else None,
        }
    )
