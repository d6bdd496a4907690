"""A worker: one consumer running in one process. Here, and only here, the parts of the runtime meet."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from hyperbus.clock import Seconds
from hyperbus.declaration.consumer import Consumer, Declaration, declaration_of
from hyperbus.errors import HyperbusError, WrongTypeError
from hyperbus.event.routing import stream_key
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.group.checkpoints import Checkpoints
from hyperbus.runtime.handling.decoder import EventDecoder
from hyperbus.runtime.handling.executor import Executor
from hyperbus.runtime.handling.handler import Handler, handler_of, handler_threads
from hyperbus.runtime.in_flight.inbox import Inbox, Received
from hyperbus.runtime.outcomes.acker import Acker
from hyperbus.runtime.outcomes.dead_letter_writer import DeadLetterWriter, letter_of
from hyperbus.runtime.outcomes.guarantees import AckFirstEndings, CursorEndings, Endings, GroupEndings, by_place
from hyperbus.runtime.outcomes.parked_entries import LEASE_TTLS, Parker
from hyperbus.runtime.outcomes.retry_scheduler import Retrier
from hyperbus.runtime.poison.quarantine import INNOCENT, Suspects
from hyperbus.runtime.reading.group_reader import CursorReader, GroupReader
from hyperbus.runtime.recovery.handover import HANDED_OVER, HandedOver, HandOver
from hyperbus.runtime.recovery.reclaimer import LEASE, Reclaimer
from hyperbus.runtime.services import Services
from hyperbus.signals import StreamsFound, WorkerChanged
from hyperbus.transport import FIRST_ID, record_names


class Worker:
    """Runs one consumer.

    Starting: the consumer's own `start`, the heartbeat, the groups, and only then the first read.
    Stopping, in this order:

    1. Intake ends: no read, no claim, no retry.
    2. Handlers that are running finish, or are cancelled when the drain time is up.
    3. What is done is acked; what is given up becomes dead letters.
    4. The heartbeat goes, so that another worker takes at once what this one still holds.
    5. The consumer's own `stop`.
    """

    def __init__(self, declared: object, around: Services) -> None:
        self.declaration: Declaration = declaration_of(declared)
        self.name = consumer_name()
        self._around = around
        self._declared = declared
        self._streams = around.transport.streams
        self._inbox = Inbox(around.prefetch, around.prefetch_bytes)
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self._types: dict[str, str] = {}
        self._handing_over = HandOver(
            self._streams, self.declaration.group, self.name, alive=self._alive, give=around.notifier.notify
        )
        self._unbegun: list[Received] = []
        self._executors: list[Executor] = []
        self._waiting_for_retry: Callable[[], list[Received]] = list
        self._parker: Parker | None = None
        self._drain_timeout = around.drain_timeout

    def stop(self, *, drain_timeout: Seconds | None = None) -> None:
        """Let `run` drain and end; handlers that run have `drain_timeout` seconds left, by default the setting's."""
        if drain_timeout is not None:
            self._drain_timeout = drain_timeout
        self._stopping.set()

    @property
    def _is_ordered(self) -> bool:
        return self.declaration.order_by is not None

    def _reserve(self, received: Received) -> bool:
        return self._executors[0].reserve(received)

    def oldest_running(self) -> Seconds | None:
        """Return for how long the handler that began first has been running; None when none runs."""
        ages = [age for executor in self._executors if (age := executor.oldest_running()) is not None]
        return max(ages, default=None)

    async def run(self) -> None:
        """Start, work until stopped, drain.

        Raises:
            BusUnavailable: the server could not be reached at the start.
            Exception: whatever the consumer's own `start` or `stop` raised.
        """
        target = self._declared() if inspect.isclass(self._declared) else self._declared
        if isinstance(target, Consumer):
            await target.start()
        reader = self._around.transport.open_reader()
        threads = handler_threads(self.declaration)
        try:
            handler = handler_of(target, self.declaration, threads)
            if self.declaration.audience == "every_process":
                await self._run_cursor(handler, reader)
            else:
                await self._run_group(handler, reader)
        finally:
            await reader.close()
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
            if isinstance(target, Consumer):
                await target.stop()
            self._announce("stopped")

    # -- a group

    async def _run_group(self, handler: Handler, connection: Any) -> None:
        around, group = self._around, self.declaration.group
        parker = self._parker = Parker(
            self._streams, group, self.name, self._inbox, around.clock, announcer=around.announcer,
            lease=around.heartbeat_ttl * LEASE_TTLS, server_time=around.transport.records.server_time,
            names=lambda: tuple(self._types), type_in=self._types.__getitem__, letter_of=letter_of,
        )  # fmt: skip
        acker = Acker(
            self._streams, group, around.announcer, around.clock, parker.let_go, prefetch=around.prefetch
        )  # fmt: skip
        self._inbox.when_starving(acker.hurry)
        dead = DeadLetterWriter(
            self._streams, group, self.name,
            announcer=around.announcer, clock=around.clock, let_go=self._inbox.let_go,
        )  # fmt: skip
        checkpoints = Checkpoints(self._streams, group)
        reader = GroupReader(
            connection, self._streams, self._inbox, around.announcer, around.clock,
            group=group, consumer=self.name, type_in=self._types.__getitem__, start_of=checkpoints.start_of,
        )  # fmt: skip
        retrier = Retrier(
            self._streams, group, self.name, around.clock,
            hand_back=self._inbox.put_back, hold=self._inbox.hold, let_go=self._inbox.let_go,
            lost=reader.recover_soon, ordered=self._is_ordered,
            reserve=self._reserve,
        )  # fmt: skip
        self._waiting_for_retry = retrier.waiting
        reader.resume_with(retrier.resume)
        reclaimer = Reclaimer(
            self._streams, self._inbox,
            Lease(around.transport.records, record_names.sweep_lease(group), self.name, LEASE),
            around.announcer, around.clock,
            group=group, consumer=self.name, ttl=around.heartbeat_ttl, alive=self._alive,
            names=reader.readable, type_in=self._types.__getitem__, claims_uncertain=reader.recover,
            is_recovering=reader.is_recovering, innocent=INNOCENT, checkpoints=checkpoints,
            ordered=self._is_ordered, resume=retrier.resume,
        )  # fmt: skip
        if self._is_ordered:
            reader.read_only_until(reclaimer.may_read_until)
        retry, bury = by_place(retrier.add, dead.add, parker)
        endings: Endings = GroupEndings(acker.add, retry, bury)
        if self.declaration.ack == "received":
            endings = AckFirstEndings(self._streams, group, parker.let_go, bury)
        after = await self._start_id()

        async def found(streams: Mapping[str, str]) -> None:
            new = self._matching(streams)
            if new:
                await self._create_groups(tuple(new), after)
                self._types |= new
                await reader.add_streams(new)
                self._announce_streams(new)

        def hear(body: bytes) -> None:
            with suppress(msgspec.MsgspecError):  # anybody can write a notice
                if msgspec.json.decode(body, type=HandedOver).to == self.name:
                    reader.recover_soon()

        await around.heartbeat.add(self.name, self._about())
        around.heartbeat.subscribe(parker.keep)
        around.notifier.subscribe(HANDED_OVER, hear)
        try:
            known = await around.finder.subscribe(found) if self.declaration.types.globs else {}
            await found({**self._named_streams(), **known})
            await reader.join()
            await self._work(
                self._executor(handler, endings),
                intake=[reader.run()],
                helpers=[reclaimer.run(), retrier.run(), parker.take(), reader.recover_when_told()],
                finishers=[acker.run(), dead.run(), parker.run()],
                stop_intake=reader.stop, finish=(acker.close, dead.close, parker.close),
            )  # fmt: skip
        finally:
            around.notifier.unsubscribe(HANDED_OVER, hear)
            around.finder.unsubscribe(found)
            around.heartbeat.unsubscribe(parker.keep)
            await self._leave()

    async def _create_groups(self, names: Sequence[str], after: bytes) -> None:
        """Create the group on each stream. A key that is no stream harms no other: the reader leaves it alone."""
        try:
            await self._streams.create_groups([(name, self.declaration.group, after) for name in names])
        except WrongTypeError:
            for name in names:
                with suppress(WrongTypeError):
                    await self._streams.create_groups([(name, self.declaration.group, after)])

    async def _hand_over(self) -> None:
        """Give entries that nobody began to handle to other workers; what is left keeps its count when claimed."""
        if self._parker is not None:
            self._unbegun = self._parker.give_back(self._unbegun)
        if not self._unbegun:
            return
        if not self._is_ordered:  # there, whoever may read next claims all of it, in its order
            self._unbegun = await self._handing_over.run(self._unbegun)
        by_stream: dict[str, list[tuple[bytes, int]]] = {}
        for item in self._unbegun:
            by_stream.setdefault(item.stream, []).append((item.id, item.tries - 1))
        with suppress(HyperbusError):  # failing costs these entries a try
            for stream, counts in by_stream.items():
                await self._streams.set_delivery_counts(stream, self.declaration.group, self.name, counts)
        self._unbegun = []

    async def _leave(self) -> None:
        """Give up the place in the group; what is still pending is free for others at once."""
        self._unbegun += self._inbox.close()
        for executor in self._executors:
            self._unbegun += executor.unbegun()
        await self._hand_over()
        if self._parker is not None:
            await self._parker.leave()
        await self._around.heartbeat.remove(self.name)
        with suppress(HyperbusError):  # failing leaves it to another worker's sweep
            await self._streams.remove_consumer(self.declaration.group, self.name, tuple(self._types))

    async def _start_id(self) -> bytes:
        """Return the id that this group's streams are read after."""
        start_from = self.declaration.start_from
        if start_from == "first":
            return FIRST_ID
        if start_from != "new":
            return start_from.encode()
        # "New" means since the group was first declared, by any process: the time is kept, and is an entry id.
        records, name = self._around.transport.records, record_names.group_start(self.declaration.group)
        declared = f"{int(await records.server_time() * 1000) - 1}-18446744073709551615".encode()
        if await records.compare_and_set(name, None, declared):
            return declared
        (stored,) = await records.get([name])
        return stored or declared

    async def _alive(self, consumers: Sequence[str]) -> list[bool]:
        found = await self._around.transport.records.get([record_names.heartbeat(consumer) for consumer in consumers])
        return [value is not None for value in found]

    # -- every process

    async def _run_cursor(self, handler: Handler, connection: Any) -> None:
        around = self._around
        reader = CursorReader(
            connection, self._inbox, around.announcer, around.clock,
            name=self.declaration.name, type_in=self._types.__getitem__,
        )  # fmt: skip

        async def add(streams: Mapping[str, str], *, from_now: bool) -> None:
            new = self._matching(streams)
            if new:
                ids = await self._streams.last_ids(tuple(new)) if from_now else [FIRST_ID] * len(new)
                self._types |= new
                await reader.add_streams(dict(zip(new, ids, strict=True)))
                self._announce_streams(new)

        async def found(streams: Mapping[str, str]) -> None:
            await add(streams, from_now=False)

        try:
            known = await around.finder.subscribe(found) if self.declaration.types.globs else {}
            await add({**self._named_streams(), **known}, from_now=True)
            await self._work(
                self._executor(handler, CursorEndings(self._inbox)),
                intake=[reader.run()], helpers=[], finishers=[], stop_intake=reader.stop, finish=(),
            )  # fmt: skip
        finally:
            around.finder.unsubscribe(found)

    # -- what both share

    def _named_streams(self) -> dict[str, str]:
        """Return the streams that are known by name, before they exist."""
        return {stream_key(self._around.prefix, name): name for name in self.declaration.types.names}

    def _matching(self, streams: Mapping[str, str]) -> dict[str, str]:
        """Return those streams that this consumer takes and does not read yet."""
        matches = self.declaration.types.matches
        return {name: kind for name, kind in streams.items() if name not in self._types and matches(kind)}

    def _executor(self, handler: Handler, endings: Endings) -> Executor:
        around = self._around
        data_types = {**around.data_types, **self.declaration.data_types}
        executor = Executor(
            self.declaration,
            handler,
            inbox=self._inbox,
            decoder=EventDecoder(around.codecs, data_types),
            endings=endings,
            publish=around.publish,
            announcer=around.announcer,
            clock=around.clock,
            consumer=self.name,
            solitude=around.solitude,
            suspects=Suspects(self._streams, self.declaration.group),
        )
        self._executors.append(executor)
        return executor

    async def _work(
        self,
        executor: Executor,
        *,
        intake: Sequence[Any],
        helpers: Sequence[Any],
        finishers: Sequence[Any],
        stop_intake: Callable[[], Any],
        finish: Sequence[Callable[[], None]],
    ) -> None:
        """Run the parts until stopped, then stop them in order. A part that fails ends the worker."""
        async with asyncio.TaskGroup() as parts:
            reading = [parts.create_task(part, name=f"hyperbus {self.name} intake") for part in intake]
            helping = [parts.create_task(part, name=f"hyperbus {self.name} helper") for part in helpers]
            finishing = [parts.create_task(part, name=f"hyperbus {self.name} finisher") for part in finishers]
            lanes = parts.create_task(executor.run(), name=f"hyperbus {self.name} lanes")
            self.ready.set()
            self._announce("started")
            await self._stopping.wait()
            self._announce("draining")
            await stop_intake()
            for task in helping:
                task.cancel()
            self._unbegun = [*self._inbox.close(), *executor.unbegun(), *self._waiting_for_retry()]
            if self.declaration.audience == "group":
                await self._hand_over()
            until = asyncio.get_running_loop().time() + self._drain_timeout
            if not await _finish_by(until, lanes):
                self._announce("cut off")
            await _finish_by(until, *reading)
            for close in finish:
                close()
            await _finish_by(until + 1.0, *finishing)

    def _about(self) -> bytes:
        return msgspec.json.encode(
            {
                "group": self.declaration.group,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "since": self._around.clock.now(),
            }
        )

    def _announce(self, state: Any) -> None:
        self._around.announcer.announce(WorkerChanged(self.declaration.group, self.name, state))

    def _announce_streams(self, streams: Mapping[str, str]) -> None:
        self._around.announcer.announce(StreamsFound(self.declaration.group, tuple(streams)))


def consumer_name() -> str:
    """Return a name for a worker in its group: for people, who it is; for the bus, a token that is never used twice."""
    host = "".join(c if c.isalnum() or c in "-_." else "-" for c in socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


async def _finish_by(until: float, *tasks: asyncio.Task[Any]) -> bool:
    """Wait for tasks until a time of the loop's clock, then cancel what is left; tell if all were done."""
    if not tasks:
        return True
    left = max(0.0, until - asyncio.get_running_loop().time())
    _, late = await asyncio.wait(tasks, timeout=left)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    return not late
