"""Consuming with a loop instead of a handler: `consume` in a group, `read` without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from hyperbus.declaration.consumer import consumer
from hyperbus.errors import BusUnavailable, DecodeError, InvalidSettingError
from hyperbus.event.data import EventData, type_of
from hyperbus.event.envelope import Event
from hyperbus.event.routing import TypeFilter, stream_key
from hyperbus.runtime.handling.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import receive
from hyperbus.runtime.reading.group_reader import BLOCK
from hyperbus.runtime.services import Services
from hyperbus.runtime.worker import Worker
from hyperbus.transport import FIRST_ID, Entry, Read

#: Entries of one stream in one read of `read_events`.
_PAGE = 200

#: Gives the services of the process, opened at the first use.
Open = Callable[[], Awaitable[Services]]
Types = Sequence[str | type[EventData]]


async def consume_events(open_: Open, types: Types, *, group: str, start_from: str) -> AsyncGenerator[Event[Any]]:
    """Yield events of a group; each is acked when the next one is asked for.

    A worker of its own hands over one event at a time, and its handler ends when the loop comes back.
    """
    offered: asyncio.Queue[tuple[Event[Any], asyncio.Future[None]]] = asyncio.Queue(1)

    async def hand_over(event: Event) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await offered.put((event, done))
        await done

    declared = consumer(group=group, types=types, start_from=start_from)(hand_over)
    around = await open_()
    worker = Worker(declared, around)
    running = asyncio.create_task(worker.run(), name=f"hyperbus consume {group}")
    around.loops[worker] = running
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
        del around.loops[worker]
        if not running.cancelled():
            running.exception()  # it was raised above, or does not matter any more


async def read_events(open_: Open, types: Types, *, after: str | None) -> AsyncGenerator[Event[Any]]:
    """Yield history and then what comes, of every stream that matches, without a group."""
    around = await open_()
    names = TypeFilter([entry if isinstance(entry, str) else type_of(entry) for entry in types])
    if not names.patterns:
        raise InvalidSettingError("read() needs at least one event type, such as read('workflow.*')")
    decoder = EventDecoder(
        around.codecs, {**around.data_types, **{type_of(t): t for t in types if not isinstance(t, str)}}
    )
    start = (after or FIRST_ID.decode()).encode()
    positions: dict[str, bytes] = {}
    kinds: dict[str, str] = {}
    reader = around.transport.open_reader()

    async def found(streams: dict[str, str]) -> None:
        for stream, kind in streams.items():
            if names.matches(kind) and stream not in kinds:
                kinds[stream] = kind
                positions[stream] = start
        await reader.wake()

    try:
        known = await around.finder.subscribe(found) if names.globs else {}
        await found({**{stream_key(around.prefix, name): name for name in names.names}, **known})
        while not around.closing.is_set():
            if not positions:
                await around.clock.sleep(BLOCK / 4)
                continue
            try:
                read = await reader.read(positions, count=_PAGE, block=BLOCK)
            except BusUnavailable:
                if around.closing.is_set():
                    return
                await around.clock.sleep(BLOCK / 4)
                continue
            for stream, entry in _in_order(read):
                positions[stream] = entry.id
                (received,) = receive(stream, kinds[stream], [entry], around.clock.now())
                try:
                    event = decoder.decode(received)
                except DecodeError:
                    continue  # what cannot be read has no place in a loop over events; groups dead-letter it
                yield event
    finally:
        around.finder.unsubscribe(found)
        await reader.close()


def _in_order(read: Read) -> list[tuple[str, Entry]]:
    """Return entries of several streams in the order of their ids.

    A stream that filled its page may go on before what others have read: what lies behind its last entry is left
    for the next read.
    """
    full = [_order(entries[-1]) for _, entries in read if len(entries) == _PAGE]
    merged = sorted(
        ((_order(entry), stream, entry) for stream, entries in read for entry in entries), key=lambda item: item[:2]
    )
    return [(stream, entry) for order, stream, entry in merged if not full or order <= min(full)]


def _order(entry: Entry) -> tuple[int, int]:
    milliseconds, _, sequence = entry.id.partition(b"-")
    return int(milliseconds), int(sequence)
