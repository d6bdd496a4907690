"""Consuming with a loop instead of a handler: `consume` in a group, `read` without one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from hyperbus.declaration.consumer import consumer
from hyperbus.errors import DecodeError, InvalidSettingError
from hyperbus.event.data import EventData, type_of
from hyperbus.event.envelope import Event
from hyperbus.event.routing import TypeFilter
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.received import Received, receive
from hyperbus.runtime.reading.cursor_reader import Cursor
from hyperbus.runtime.services import Services
from hyperbus.runtime.worker import Worker
from hyperbus.signals import Announcer, DeliveryFailed
from hyperbus.transport import FIRST_ID, Entry, Read, record_names

#: Entries of one stream in one read of `read_events`.
_PAGE = 200
_ENTRY_ID = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)

DataT = TypeVar("DataT")
#: Gives the services of the process, opened at the first use.
Open = Callable[[], Awaitable[Services]]
Types = Sequence[str | type[EventData]]


async def consume_events(open_: Open, types: Types, *, group: str, start_from: str) -> AsyncGenerator[Event[Any]]:
    """Yield events of a group; each is acked when the next one is asked for.

    A worker of its own hands over one event at a time, and its handler ends when the loop comes back.
    """
    offered: asyncio.Queue[tuple[Event[Any], asyncio.Future[None]]] = asyncio.Queue(1)

    async def offer(event: Event) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await offered.put((event, done))
        await done

    offer.__name__ = "bus.consume"  # as which it is told of
    declared = consumer(group=group, types=types, start_from=start_from)(offer)
    services = await open_()
    worker = Worker(declared, services)
    running = asyncio.create_task(worker.run(), name=f"hyperbus consume {group}")
    services.loops[worker] = running
    in_hand: asyncio.Future[None] | None = None
    try:
        while True:
            getting = asyncio.create_task(offered.get(), name=f"hyperbus consume {group} next")
            try:
                await asyncio.wait((getting, running), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not getting.done():
                    getting.cancel()
            if running.done():
                running.result()
                return
            event, in_hand = getting.result()
            yield event
            in_hand.set_result(None)
            in_hand = None
    finally:
        worker.stop(drain_timeout=0)
        await asyncio.wait((running,))
        del services.loops[worker]
        if not running.cancelled():
            running.exception()  # it was raised above, or does not matter any more


class Reading(AsyncIterator[Event[DataT]]):
    """A loop over events that knows where it is.

    Attributes:
        entry_id: the entry id of the event that it gave last, to begin `after` it another time; None before the first.
        stream: the key of that event's stream: the order of ids across streams is only nearly that of events.
    """

    def __init__(self, found: AsyncGenerator[tuple[Event[Any], str, bytes]]) -> None:
        self._found = found
        self.entry_id: str | None = None
        self.stream: str | None = None

    async def __anext__(self) -> Event[DataT]:
        """Return the next event; wait for it if need be."""
        event, self.stream, entry_id = await anext(self._found)
        self.entry_id = entry_id.decode()
        return event

    async def aclose(self) -> None:
        """End it; leaving the loop and forgetting it does so as well, some time."""
        await self._found.aclose()


def read_events(open_: Open, types: Types, *, after: str | None) -> Reading[Any]:
    """Return a loop over history and then over what comes, of every stream that matches, without a group."""
    return Reading(_read_events(open_, types, after=after))


async def _read_events(
    open_: Open, types: Types, *, after: str | None
) -> AsyncGenerator[tuple[Event[Any], str, bytes]]:
    names = TypeFilter([entry if isinstance(entry, str) else type_of(entry) for entry in types])
    if not names.patterns:
        raise InvalidSettingError("read() needs at least one event type, such as read('workflow.*')")
    start = _start_id(after)
    services = await open_()
    decoder = EventDecoder(
        services.codecs, {**services.data_types, **{type_of(t): t for t in types if not isinstance(t, str)}}
    )
    connection = services.transport.open_reader()
    stream_set = StreamSet(names, services.announcer, services.clock)
    # whoever reads in a loop waits for the server as for events: nothing is announced as lost
    cursor = Cursor("bus.read", connection, stream_set, Announcer(), services.clock)

    async def found(streams: Mapping[str, str]) -> None:
        """Read what was born meanwhile from its first entry, but for what is to be left out of it."""
        new = stream_set.missing(streams)
        stream_set.expect(streams)
        stream_set.add(new)
        await cursor.add_streams(dict.fromkeys(new, start or FIRST_ID))

    services.cursors.add(cursor)
    services.notifier.subscribe(record_names.STREAM_ENDED, cursor.let_go)
    try:
        known = await services.finder.subscribe(found) if names.globs else {}
        first = stream_set.missing({**services.named_streams(names), **known})
        ids = [start] * len(first) if start else await services.transport.streams.last_ids(tuple(first))
        stream_set.add(first)
        await cursor.add_streams(dict(zip(first, ids, strict=True)))
        while not cursor.is_stopped():
            read = await cursor.read(count=_PAGE)
            if cursor.refusal is not None:
                raise cursor.refusal
            for stream, entry in _in_order(read, cursor.page):
                cursor.advance(stream, entry.id)
                (received,) = receive(stream, stream_set.type_in(stream), [entry], services.clock.now())
                try:
                    event = decoder.decode(received)
                except DecodeError as error:  # it has no place in a loop over events; groups dead-letter it
                    services.announcer.announce(_left_out(received, error))
                    continue
                yield event, stream, entry.id
    finally:
        services.cursors.discard(cursor)
        services.notifier.unsubscribe(record_names.STREAM_ENDED, cursor.let_go)
        services.finder.unsubscribe(found)
        await connection.close()


def _left_out(received: Received, error: DecodeError) -> DeliveryFailed:
    return DeliveryFailed(
        consumer="bus.read", group="bus.read", stream=received.stream, entry_id=received.id.decode(),
        event_type=received.event_type, event_id=None, workflow_id=None, tries=1, most_tries=None,
        cause="undecodable", after=None, dead_lettered=False, error=error,
    )  # fmt: skip


def _start_id(after: str | None) -> bytes | None:
    """Return the id that `after` names; None for "now", which is another id in each stream.

    Raises:
        InvalidSettingError: it is no entry id.
    """
    if not after:
        return FIRST_ID
    if after == "now":
        return None
    if not _ENTRY_ID.fullmatch(after):
        raise InvalidSettingError(
            f"read(after={after!r:.100}) has to be an entry id, such as '1700000000000-0', or 'now', which "
            f"misses nothing that comes from now on"
        )
    return after.encode()


def _in_order(read: Read, page: int) -> list[tuple[str, Entry]]:
    """Return entries of several streams in the order of their ids.

    A stream that filled its page, of `page` entries, may go on before what others have read: what lies behind its last
    entry is left for the next read.
    """
    full = [_order(entries[-1]) for _, entries in read if len(entries) == page]
    merged = sorted(
        ((_order(entry), stream, entry) for stream, entries in read for entry in entries), key=lambda item: item[:2]
    )
    return [(stream, entry) for order, stream, entry in merged if not full or order <= min(full)]


def _order(entry: Entry) -> tuple[int, int]:
    milliseconds, _, sequence = entry.id.partition(b"-")
    return int(milliseconds), int(sequence)
