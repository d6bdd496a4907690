"""The parts of a worker whose every process sees every event. Here, and only here, they are joined."""

from __future__ import annotations

from collections.abc import Mapping

from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.handling.deliveries import Deliveries
from hyperbus.runtime.handling.executor import Executor
from hyperbus.runtime.handling.handler import Handler
from hyperbus.runtime.handling.running_handlers import RunningHandlers
from hyperbus.runtime.handling.settlement import Settlement
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.runtime.outcomes.guarantees import BestEffort
from hyperbus.runtime.parts import Parts
from hyperbus.runtime.poison.quarantine import Quarantine
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.runtime.reading.cursor_reader import Cursor, CursorReader
from hyperbus.runtime.services import Services, tell_of_streams
from hyperbus.transport import FIRST_ID, Reader, record_names


class CursorWorker:
    """Reads from now on, and handles. It has no group, so nothing is acked, retried or recovered."""

    def __init__(
        self, handler: Handler, running: RunningHandlers, consumer: str, connection: Reader, services: Services
    ) -> None:
        declaration, clock, announcer = handler.declaration, services.clock, services.announcer
        self._declaration = declaration
        self._services = services
        self._inbox = inbox = Inbox(declaration.prefetch or services.prefetch, services.prefetch_bytes)
        self._stream_set = stream_set = StreamSet(declaration.types, announcer, clock)
        self._cursor = Cursor(declaration.name, connection, stream_set, announcer, clock)
        member = Member(declaration.group, consumer, services.transport.streams, clock, announcer)
        decoder = EventDecoder(services.codecs, {**services.data_types, **declaration.data_types})
        order = None if declaration.order_by is None else KeyOrder(decoder, declaration.key_of)
        pace = Pace(running, clock, concurrency=declaration.concurrency)
        self._executor = Executor(
            handler, running, inbox, decoder, Deliveries(member, decoder, services.publish),
            Settlement(declaration, BestEffort(inbox), announcer, clock, pace),
            Quarantine(member, StartCounts.of_group(member), services.isolation, inbox), order,
        )  # fmt: skip
        self.parts = Parts(declaration.name, CursorReader(self._cursor, stream_set, inbox, clock), self._executor)

    async def enter(self) -> None:
        """Hear which streams come to an end; nobody has to know that it lives."""
        self._services.notifier.subscribe(record_names.STREAM_ENDED, self._cursor.let_go)

    async def join(self) -> None:
        """Find the streams, and the place in each where now is.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        services, types = self._services, self._declaration.types
        known = await services.finder.subscribe(self._take_in) if types.globs else {}
        new = self._stream_set.missing({**services.named_streams(types), **known})
        ids = await services.transport.streams.last_ids(tuple(new)) if new else []
        await self._add(new, dict(zip(new, ids, strict=True)))

    async def _take_in(self, streams: Mapping[str, str]) -> None:
        """Read the streams among these that the consumer takes and that are new to it; they were born meanwhile."""
        new = self._stream_set.missing(streams)
        if len(new) < len(streams) and self._stream_set.expect(streams):
            await self._cursor.look_soon()
        await self._add(new, dict.fromkeys(new, FIRST_ID))

    async def _add(self, new: Mapping[str, str], positions: Mapping[str, bytes]) -> None:
        if new:
            self._stream_set.add(new)
            await self._cursor.add_streams(positions)
            await tell_of_streams(self._services, self._declaration.group, self._declaration.types, new)

    async def hand_over(self) -> None:
        """Hand out nothing more. There is nobody to give it to: every process has it."""
        self._inbox.close()
        self._executor.unbegun()

    async def leave(self) -> None:
        """Hear of streams no more."""
        self._services.notifier.unsubscribe(record_names.STREAM_ENDED, self._cursor.let_go)
        self._services.finder.unsubscribe(self._take_in)
