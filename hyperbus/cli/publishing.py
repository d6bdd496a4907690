"""`hyperbus publish` and `hyperbus tail`."""

from __future__ import annotations

import asyncio
import errno
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hyperbus.bus import Bus
from hyperbus.clock import SystemClock
from hyperbus.errors import EncodeError, HyperbusError
from hyperbus.event.data import check_type, event_types
from hyperbus.event.envelope import Event
from hyperbus.event.json_text import json_text
from hyperbus.observability.logs import configure_logs
from hyperbus.publisher.durability import read_durability
from hyperbus.settings import Settings
from hyperbus.supervisor.worker_process.loading import import_failure, load_module

#: How often `tail` looks whether anybody still reads, in seconds.
_LOOK_AT_READER = 0.5


async def publish_once(
    event_type: str,
    text: str,
    settings: Settings,
    *,
    workflow_id: str | None,
    source_agent: str | None,
    module: str | None,
    event_id: str | None = None,
    once: bool = False,
    durability: str | None = None,
) -> str:
    """Publish one event whose data is given as JSON; return its entry id.

    Raises:
        EncodeError: the text is not a JSON object, or does not fit the declared type.
        InvalidSettingError: there is no such durability.
        HyperbusError: it was not published, or is not as safe as `durability` asks; see `Bus.publish`.
    """
    configure_logs(settings.log_level, settings.log_format)
    if durability is not None:
        read_durability(durability, settings.durability_timeout)  # told without a server
    data = _parse(sys.stdin.read() if text == "-" else text)
    checked = _check(check_type(event_type), data, module)
    event: Event[Any] = Event(type=event_type, data=checked, workflow_id=workflow_id)
    if event_id is not None:
        if not event_id:
            raise EncodeError("--id has to be given an id that is not empty")
        event = msgspec.structs.replace(event, id=event_id)
    async with Bus(settings=settings, source_agent=source_agent) as bus:
        return await bus.publish(event, once=once, durability=durability)


async def print_events(patterns: Sequence[str], settings: Settings, *, history: bool, count: int | None) -> None:
    """Print events as JSON lines until interrupted, or `count` were printed."""
    configure_logs(settings.log_level, settings.log_format)
    printing = asyncio.create_task(_print_events(patterns, settings, history=history, count=count))
    watching = asyncio.create_task(_until_nobody_reads())
    try:
        await asyncio.wait((printing, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        printing.cancel()
        watching.cancel()
        await asyncio.wait((printing, watching))
    if not printing.cancelled():
        printing.result()
    elif not watching.cancelled():
        watching.result()


async def _until_nobody_reads() -> None:
    """Wait until the other end of standard output is closed; that shows nowhere else before the next event.

    Raises:
        BrokenPipeError: it is closed.
    """
    poll, clock = select.poll(), SystemClock()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):
        await asyncio.Event().wait()  # there is no such thing here
    while not any(seen & (select.POLLERR | select.POLLHUP) for _, seen in poll.poll(0)):
        await clock.sleep(_LOOK_AT_READER)
    raise BrokenPipeError(errno.EPIPE, "nobody reads the output")


async def _print_events(patterns: Sequence[str], settings: Settings, *, history: bool, count: int | None) -> None:
    async with Bus(settings=settings) as bus:
        after = None if history else f"{int(await bus.transport.records.server_time() * 1000)}-0"
        printed = 0
        first, *others = patterns
        async for event in bus.read(first, *others, after=after):
            print(json_text(event).decode(), flush=True)
            printed += 1
            if printed == count:
                return


def _parse(text: str) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise EncodeError(f"the data is not JSON: {error}; quote it for the shell, as in '{{\"n\": 1}}'") from error
    if not isinstance(data, dict):
        raise EncodeError(f"the data has to be a JSON object, such as '{{\"n\": 1}}', and not {text[:80]!r}")
    return data


def _check(event_type: str, data: dict[str, Any], module: str | None) -> Any:
    """Return the data as its declared class, where a module declares it."""
    if module is None:
        return data
    sys.path.insert(0, str(Path.cwd()))
    try:
        load_module(module)
    except HyperbusError:
        raise
    except (Exception, SystemExit) as error:
        raise import_failure(error) from error
    declared = event_types().get(event_type)
    if declared is None:
        raise EncodeError(f"{module} declares no event type {event_type!r}")
    try:
        return msgspec.convert(data, declared)
    except msgspec.ValidationError as error:
        raise EncodeError(f"the data does not fit {event_type}: {error}") from error
