"""The faults, and the seeded random order in which they come. Each fault heals what it broke and writes down when."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from tests.chaos.features import ENDING, EVERY_GROUP, ON, STALLING, poison_kinds
from tests.chaos.refusals import acks_refused, rights_taken, save_failed, script_hogs, writes_paused
from tests.chaos.strangers import directory_spoilt, odd_times, stranger_takes, worker_forgotten
from tests.chaos.world import PREFIX, TTL, TYPES, World, is_there, kill, until

#: A handler blocks its loop for this long.
BLOCK = 10 * TTL
Fault = Callable[[World], Coroutine[Any, Any, None]]


async def worker_kill(world: World) -> None:
    """SIGKILL of a worker process."""
    begin, workers = time.time(), world.workers()
    if workers:
        pid = world.random.choice(workers)
        kill(pid, signal.SIGKILL)
        world.fault("worker_kill", begin, pids=[pid])


async def busy_kill(world: World) -> None:
    """SIGKILL of a worker process in the middle of a handler."""
    event_id = await world.publish_by_hand(stall=world.random.choice(STALLING), sleep=1.0)
    pid = await world.stalled(event_id)
    begin = time.time()
    if pid is not None and kill(pid, signal.SIGKILL):
        world.fault("busy_kill", begin, pids=[pid])


async def stop(world: World) -> None:
    """SIGSTOP of a worker in the middle of a handler, for longer than the TTL: a zombie that acks late."""
    await _stop(world, "stop", "")


async def stop_rejecting(world: World) -> None:
    """The same, and the late handler rejects the event: a zombie that makes a dead letter late."""
    await _stop(world, "stop_rejecting", "reject")


async def _stop(world: World, kind: str, poison: str) -> None:
    event_id = await world.publish_by_hand(stall=world.random.choice(STALLING), sleep=1.0, poison=poison)
    pid = await world.stalled(event_id)
    if pid is None or not is_there(pid):
        workers = world.workers()
        if not workers:
            return
        pid = world.random.choice(workers)
    begin = time.time()
    kill(pid, signal.SIGSTOP)
    await asyncio.sleep(TTL + 3 + world.random.uniform(0, 2))
    kill(pid, signal.SIGCONT)
    world.fault(kind, begin, pids=[pid])


async def supervisor_kill(world: World) -> None:
    """SIGKILL of a supervisor, whose children have to end by themselves; another one takes its place."""
    begin = time.time()
    before = world.workers()
    left = await world.kill_supervisor()
    world.fault("supervisor_kill", begin, pids=before, left=left)


async def host_kill(world: World) -> None:
    """SIGKILL of a supervisor and all its workers at once, in the middle of a handler: nobody tells of their death."""
    event_id = await world.publish_by_hand(stall=world.random.choice(STALLING), sleep=1.0)
    pid = await world.stalled(event_id)
    if pid is not None:
        begin = time.time()
        await world.kill_supervisor(owner_of=pid)
        world.fault("host_kill", begin)


async def server_kill(world: World) -> None:
    """SIGKILL of the server, and its restart from what it had written."""
    begin = time.time()
    await asyncio.to_thread(world.server.kill)
    await asyncio.sleep(world.random.uniform(0.2, 3))
    await asyncio.to_thread(world.server.start)
    world.fault("server_kill", begin)


async def outage(world: World) -> None:
    """Nobody reaches the server for 10 s."""
    begin = time.time()
    world.proxy.refuse()
    world.proxy.cut()
    await asyncio.sleep(10)
    await world.proxy.heal()
    world.fault("outage", begin)


async def client_kill(world: World) -> None:
    """CLIENT KILL of every connection."""
    begin = time.time()
    await world.command("CLIENT", "KILL", "TYPE", "normal")
    world.fault("client_kill", begin)


async def group_destroy(world: World) -> None:
    """XGROUP DESTROY, with entries pending and unread."""
    begin, group = time.time(), world.random.choice(EVERY_GROUP)
    stream = f"{PREFIX}:{world.random.choice(TYPES)}"
    with suppress(Exception):  # the stream may have gone
        await world.command("XGROUP", "DESTROY", stream, group)
    world.fault("group_destroy", begin, stream=stream, group=group)


async def group_lost(world: World) -> None:
    """XGROUP DESTROY while nobody reaches the server, and entries come that the group has not read."""
    begin, group = time.time(), world.random.choice(EVERY_GROUP)
    event_type = world.random.choice(TYPES)
    stream = f"{PREFIX}:{event_type}"
    world.proxy.refuse()
    world.proxy.cut()
    for _ in range(20):
        await world.publish_by_hand(event_type)
    await world.command("XGROUP", "DESTROY", stream, group)
    await world.proxy.heal()
    world.fault("group_destroy", begin, stream=stream, group=group)
    world.fault("group_lost", begin)


async def delete(world: World) -> None:
    """DEL of a stream."""
    await world.mark()
    begin, stream = time.time(), f"{PREFIX}:{world.random.choice(TYPES)}"
    await world.command("DEL", stream)
    world.fault("del", begin, stream=stream)


async def flushall(world: World) -> None:
    """FLUSHALL."""
    await world.mark()
    begin = time.time()
    await world.command("FLUSHALL")
    world.fault("flushall", begin)


async def cut(world: World) -> None:
    """Connections are cut, twice."""
    begin = time.time()
    world.proxy.cut()
    await asyncio.sleep(world.random.uniform(0, 1))
    world.proxy.cut()
    world.fault("cut", begin)


async def drop_replies(world: World) -> None:
    """The server does what it is told, and nobody hears of it."""
    begin = time.time()
    world.proxy.drop_replies()
    await asyncio.sleep(0.5)
    await world.proxy.heal()
    world.fault("drop_replies", begin)


async def half_open(world: World) -> None:
    """Every connection swallows what is sent, and stays open."""
    begin = time.time()
    world.proxy.swallow()
    await asyncio.sleep(world.random.uniform(2, 7))
    await world.proxy.heal()
    world.fault("half_open", begin)


async def latency(world: World) -> None:
    """Every round trip takes 200 ms longer."""
    begin = time.time()
    world.proxy.latency = 0.2
    await asyncio.sleep(world.random.uniform(3, 6))
    await world.proxy.heal()
    world.fault("latency", begin)


async def out_of_memory(world: World) -> None:
    """The server takes no new data: noeviction."""
    begin = time.time()
    await world.command("CONFIG", "SET", "maxmemory", "1mb")
    await asyncio.sleep(world.random.uniform(2, 5))
    await world.command("CONFIG", "SET", "maxmemory", "0")
    world.fault("out_of_memory", begin)


async def blocked_loop(world: World) -> None:
    """A handler blocks its event loop for 10 TTLs, while its worker lives."""
    begin = time.time()
    event_id = await world.publish_by_hand(stall=world.random.choice(STALLING), block=BLOCK)
    if await world.stalled(event_id, 10) is None:
        return  # an earlier backlog was in the way; another round will do
    await asyncio.sleep(BLOCK + 1)
    world.fault("blocked_loop", begin, event=event_id)


async def long_handler(world: World) -> None:
    """Handlers take longer than the TTL, without blocking anybody.

    They do in two processes, so that not all of them are in the one that looks for the dead.
    """
    begin, events = time.time(), []
    for group in STALLING:
        pids: set[int | None] = set()
        for _ in range(8 if group == "plain" else 1):  # in an ordered group one worker has them all
            events.append(await world.publish_by_hand(stall=group, sleep=3 * TTL))
            pids.add(await world.stalled(events[-1]))
            if len(pids - {None}) > 1:
                break
        if None in pids:
            return  # an earlier backlog was in the way; another round will do
    await asyncio.sleep(3 * TTL + 1)
    world.fault("long_handler", begin, events=events)


async def long_wait(world: World) -> None:
    """A handler asks for another try after more than a minute; whatever breaks meanwhile, it comes."""
    begin = time.time()
    await world.publish_by_hand(park=world.random.choice(STALLING))
    world.fault("long_wait", begin)


async def reload(world: World) -> None:
    """SIGHUP: every process of a supervisor is replaced, the new one ready before the old one drains."""
    begin, running = time.time(), world.random.choice(world.ready_supervisors())
    before = set(world.children(running))
    kill(running.process.pid, signal.SIGHUP)
    if await until(lambda: not before & set(world.children(running)), 40):
        world.fault("reload", begin)


def poison(kind: str) -> Fault:
    """Return the fault of an event that does harm; kinds that end processes do it in one group only."""

    async def publish(world: World) -> None:
        begin = time.time()
        try:
            await world.publish_by_hand(poison=kind, harms=world.random.choice(STALLING))
        except Exception:  # the server is away: nothing was published
            return
        await asyncio.sleep(3 if kind in ENDING else 0)
        world.fault(f"poison_{kind}", begin)

    return publish


FAULTS: dict[str, Fault] = {
    "worker_kill": worker_kill,
    "busy_kill": busy_kill,
    "stop": stop,
    "stop_rejecting": stop_rejecting,
    "supervisor_kill": supervisor_kill,
    "host_kill": host_kill,
    "server_kill": server_kill,
    "outage": outage,
    "client_kill": client_kill,
    "group_destroy": group_destroy,
    "group_lost": group_lost,
    "del": delete,
    "flushall": flushall,
    "cut": cut,
    "drop_replies": drop_replies,
    "half_open": half_open,
    "latency": latency,
    "out_of_memory": out_of_memory,
    "blocked_loop": blocked_loop,
    "long_handler": long_handler,
    "acks_refused": acks_refused,
    "rights_taken": rights_taken,
    "writes_paused": writes_paused,
    "save_failed": save_failed,
    "script_hogs": script_hogs,
    "directory_spoilt": directory_spoilt,
    "stranger_takes": stranger_takes,
    "odd_times": odd_times,
    "worker_forgotten": worker_forgotten,
    **({"long_wait": long_wait} if ON["parking"] else {}),
    **({"reload": reload} if ON["reload"] else {}),
    **{f"poison_{kind}": poison(kind) for kind in poison_kinds()},
}
#: How often a fault is tried again at the end that never came about, and how long each time a backlog is waited for.
ATTEMPTS = 3
BACKLOG = 60.0
#: Quick faults that may come while one of the slow ones is on.
_QUICK = ("worker_kill", "client_kill", "cut", "drop_replies", "group_destroy")
_SLOW = ("outage", "latency", "out_of_memory", "stop", "stop_rejecting", "server_kill", "half_open", "supervisor_kill")


class Schedule:
    """Rounds of every fault, shuffled, some of them over each other, until the time is up.

    The first round is always finished, so that each fault happens; every other one is finished unless time is up.
    """

    def __init__(self, seed: str, seconds: float, *, kinds: list[str] | None = None, pause: float = 2.0) -> None:
        self._random = random.Random(f"{seed} schedule")
        self._seconds = seconds
        self._pause = pause
        self.kinds = list(FAULTS) if kinds is None else kinds

    async def run(self, world: World, tell: Callable[[str], None]) -> None:
        """Break the world."""
        until_ = time.monotonic() + self._seconds
        is_first = True
        while is_first or time.monotonic() < until_:
            kinds = list(self.kinds)
            self._random.shuffle(kinds)
            for kind in kinds:
                if not is_first and time.monotonic() > until_:
                    break
                tell(kind)
                await self._break(world, kind)
                await asyncio.sleep(self._random.uniform(0.2, 2 * self._pause))
            is_first = False
        for kind in self.kinds * ATTEMPTS:
            if not world.counts[kind]:  # something was in the way, such as a backlog
                await world.calm(BACKLOG)
                tell(f"{kind} (again)")
                await self._break(world, kind)
                await asyncio.sleep(self._pause)

    async def _break(self, world: World, kind: str) -> None:
        quick = [name for name in _QUICK if name in self.kinds]
        over = self._random.choice(quick) if quick and kind in _SLOW and self._random.random() < 0.3 else ""
        async with asyncio.TaskGroup() as both:
            both.create_task(FAULTS[kind](world))
            if over:
                await asyncio.sleep(self._random.uniform(0, 3))
                both.create_task(_if_possible(FAULTS[over], world))


async def _if_possible(fault: Fault, world: World) -> None:
    with suppress(Exception):  # the server may be the one that is down
        await fault(world)
