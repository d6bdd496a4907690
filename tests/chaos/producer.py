"""A producer as a process of its own: publishes at a rate, and writes down each publish before it and after it.

python -m tests.chaos.producer FOLDER NAME SEED RATE
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hyperbus import Bus, BusUnavailable, Event, HyperbusError, PublishFailed, PublishUncertain
from tests.chaos.features import ON, poison_kinds
from tests.chaos.history import History

TYPES = ("chaos.alpha", "chaos.beta", "chaos.gamma")
#: Keys of one producer. A key is published in order, one publish after the other, to one stream.
KEYS = 12
#: One event in so many is poison, of a kind that harms nobody else.
POISON = 150
#: Pause after a publish that failed; the server is away, or full.
PAUSE = 0.5
_MEEK = ("raise", "reject")
#: One publish in so many says `once`, and is repeated until it is answered.
ONCE = 4
#: How long such a publish may take until the producer itself repeats it; half of them have the usual time.
ONCE_TIMEOUT = 1.0
#: The key that always publishes like that, on a connection of its own, where nothing is under way that others wait for:
#: no run is to end without a publish that was repeated.
IMPATIENT = 1


class Producer:
    """Publishes key by key until stopped."""

    def __init__(self, folder: Path, name: str, seed: str, rate: float) -> None:
        self._history = History(folder / f"published-{name}.jsonl")
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._pause = KEYS / rate
        self._stopping = asyncio.Event()
        self._kinds = [kind for kind in poison_kinds() if kind in _MEEK]

    async def run(self) -> None:
        """Publish until SIGTERM, then wait for what is under way."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        while not self._stopping.is_set():
            try:
                name = self._name
                async with Bus(source_agent=name) as bus, Bus(source_agent=name) as own, asyncio.TaskGroup() as tasks:
                    for number in range(KEYS):
                        tasks.create_task(self._publish_key(own if number == IMPATIENT else bus, number))
            except BusUnavailable:
                await asyncio.sleep(PAUSE)  # it could not connect at the start

    async def _publish_key(self, bus: Bus, number: int) -> None:
        key, event_type = f"{self._name}-{os.getpid()}-{number}", TYPES[number % len(TYPES)]
        seq = 0
        while not self._stopping.is_set():
            count = 1 if number else 8  # the first key publishes many at once
            events = [self._event(key, event_type, seq + index) for index in range(count)]
            seq += count
            if not await self._publish(bus, events, is_impatient=number == IMPATIENT):
                await asyncio.sleep(PAUSE)
            await asyncio.sleep(self._random.expovariate(1 / (self._pause * count)))

    def _event(self, key: str, event_type: str, seq: int) -> Event[Any]:
        poison = self._random.choice(self._kinds) if self._random.randrange(POISON) == 0 else ""
        data = {"key": key, "seq": seq, "poison": poison, "pad": "x" * self._random.randrange(200)}
        return Event(type=event_type, data=data, workflow_id=key)

    async def _publish(self, bus: Bus, events: list[Event[Any]], *, is_impatient: bool) -> bool:
        """Publish events; tell whether all are stored. Those with `once` are repeated as long as one is uncertain."""
        is_once = ON["once"] and (is_impatient or self._random.randrange(ONCE) == 0)
        options: dict[str, Any] = {"once": True} if is_once else {}
        if is_once and (is_impatient or self._random.random() < 0.5):
            options["timeout"] = ONCE_TIMEOUT
        self._history.add(*(call_line(event, once=is_once) for event in events))
        while True:
            results = await self._send(bus, events, options)
            self._history.add(*(result_line(event, result) for event, result in zip(events, results, strict=True)))
            uncertain = any(isinstance(result, PublishUncertain) for result in results)
            if not (is_once and uncertain) or self._stopping.is_set():
                return all(isinstance(result, str) for result in results)

    async def _send(self, bus: Bus, events: list[Event[Any]], options: dict[str, Any]) -> list[Any]:
        try:
            if len(events) == 1:
                return [await bus.publish(events[0], **options)]
            return list(await bus.publish_many(events, **options))
        except PublishFailed as failed:
            return list(failed.results)
        except HyperbusError as error:
            return [error] * len(events)


def call_line(event: Event[Any], *, once: bool = False) -> dict[str, Any]:
    """Return the line that is written before a publish."""
    return {
        "e": "call", "t": time.time(), "id": event.id, "type": event.type,
        "key": event.data["key"], "seq": event.data["seq"], "poison": event.data["poison"], "once": once,
    }  # fmt: skip


def result_line(event: Event[Any], result: str | HyperbusError) -> dict[str, Any]:
    """Return the line that is written after a publish."""
    line = {"t": time.time(), "id": event.id}
    if isinstance(result, str):
        return {"e": "stored", "entry": result, **line}
    return {"e": "uncertain" if isinstance(result, PublishUncertain) else "refused", "error": str(result)[:300], **line}


if __name__ == "__main__":
    if os.environ.get("CHAOS_PLANT"):
        importlib.import_module(os.environ["CHAOS_PLANT"])
    asyncio.run(Producer(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])).run())
