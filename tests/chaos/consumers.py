"""What the workers run: groups whose handlers write down each call, and obey what an event's data says to do.

CHAOS_FOLDER is where effects are written; CHAOS_PLANT names a module that is imported first, to plant a bug.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import secrets
import sqlite3
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from hyperbus import Backoff, Consumer, Delivery, Event, HyperbusError, Reject, Retry, consumer
from hyperbus.sinks.database import database_from_settings, row_of
from tests.chaos.features import CRASH, ENDING, HANG_TIMEOUT, HANG_TRIES, ON
from tests.chaos.history import History

if os.environ.get("CHAOS_PLANT"):
    importlib.import_module(os.environ["CHAOS_PLANT"])

FOLDER = Path(os.environ["CHAOS_FOLDER"])
TYPES = ["chaos.*"]
#: Every failing handler is given up soon, or a run of minutes would not see it.
QUICK = Backoff(initial=0.1, factor=2, maximum=1.0, tries=6)
#: One event in so many fails at its first try, in each group.
_FAILS = 40
#: A retry that waits this long does not wait in pending.
PARKED = 61.0
#: A batch that a hanging event was in is tried again one by one, so its neighbours need more tries than one.
_STALLED: dict[str, Any] = {"retry": QUICK}
_UNSTALLED: dict[str, Any] = {"retry": QUICK}
if ON["hang"]:
    _STALLED = {
        "timeout": HANG_TIMEOUT, "retry": {TimeoutError: Backoff(initial=0.1, tries=HANG_TRIES), Exception: QUICK},
    }  # fmt: skip
    _UNSTALLED = {"timeout": 4.0, "retry": {TimeoutError: Backoff(initial=0.1, tries=4), Exception: QUICK}}
#: What poison eats at most, and at a time, in bytes.
MOST_EATEN = 600 * 1024 * 1024
_BITE = b"x" * 4 * 1024 * 1024
_histories: dict[int, History] = {}
_lock = threading.Lock()
_numbers = itertools.count()


def _history() -> History:
    pid = os.getpid()
    with _lock:
        if pid not in _histories:
            _histories[pid] = History(FOLDER / f"effects-{pid}-{secrets.token_hex(4)}.jsonl")
    return _histories[pid]


class TransientError(Exception):
    """Gone at the next try."""


class MuteError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 - that is what is wrong with it

    def __repr__(self) -> str:
        raise LookupError("nor shown otherwise")


class Panic(BaseException):
    """No Exception, as extensions in other languages raise."""


def _line(what: str, event: Event[Any], delivery: Delivery, **more: Any) -> dict[str, Any]:
    return {
        "e": what,
        "t": time.time(),
        "pid": os.getpid(),
        "group": delivery.group,
        "id": event.id,
        "stream": delivery.stream,
        "entry": delivery.entry_id,
        "consumer": delivery.consumer,
        "tries": delivery.tries,
        **more,
    }


def _begin(event: Event[Any], delivery: Delivery) -> int:
    number = next(_numbers)
    _history().add(_line("begin", event, delivery, call=number))
    if event.data.get("stall") == delivery.group:
        (FOLDER / f"stalled-{event.id}-{os.getpid()}").touch()
    return number


def _eat() -> None:
    """Take memory until the process is ended for it, but never so much that the machine suffers."""
    eaten = []
    for _ in range(MOST_EATEN // len(_BITE)):
        eaten.append(bytearray(_BITE))
        time.sleep(0.05)  # the worker's loop is blocked, as by any handler that eats memory
    time.sleep(60)


def _failure(event: Event[Any], delivery: Delivery) -> Exception | None:
    """Return how this call fails; poison that harms its process does it here."""
    poison = event.data.get("poison", "")
    if poison == "raise":
        return RuntimeError("poison")
    if poison == "reject":
        return Reject("poison")
    if poison in ENDING and event.data.get("harms") != delivery.group:
        return Reject("poison")
    if poison in ("exit", "exit0"):
        os._exit(CRASH if poison == "exit" else 0)
    if poison == "sysexit":
        sys.exit("poison")
    if poison == "panic":
        raise Panic
    if poison == "mute":
        return MuteError()
    if poison == "eat":
        _eat()
    if delivery.tries == 1 and event.data.get("park") == delivery.group:
        return Retry(after=PARKED)
    if delivery.tries == 1 and zlib.crc32(f"{event.id} {delivery.group}".encode()) % _FAILS == 0:
        return Retry(after=0.2) if int(event.data.get("seq", 0)) % 2 else TransientError("once")
    return None


def _end(event: Event[Any], delivery: Delivery, failure: BaseException | None, number: int) -> None:
    _history().add(_line("end", event, delivery, ok=failure is None, call=number))


async def _handle(event: Event[Any], delivery: Delivery) -> None:
    number = _begin(event, delivery)
    here = event.data.get("stall") == delivery.group
    if here and event.data.get("block"):
        time.sleep(float(event.data["block"]))
    if here and event.data.get("sleep"):
        await asyncio.sleep(float(event.data["sleep"]))
    if event.data.get("poison") == "hang":
        await asyncio.Event().wait()
    failure = _failure(event, delivery)
    _end(event, delivery, failure, number)
    if failure is not None:
        raise failure


@consumer(group="plain", types=TYPES, concurrency=16, **_STALLED)
async def plain(event: Event, delivery: Delivery) -> None:
    await _handle(event, delivery)


@consumer(group="batches", types=TYPES, batch=50, linger=0.05, **_UNSTALLED)
async def batches(events: list[Event], deliveries: list[Delivery]) -> list[BaseException | None]:
    outcomes: list[BaseException | None] = []
    for event, delivery in zip(events, deliveries, strict=True):
        number = _begin(event, delivery)
        if event.data.get("poison") == "hang":
            await asyncio.Event().wait()
        try:
            outcomes.append(_failure(event, delivery))
        except BaseException as error:  # raised, it would have the whole batch done again
            outcomes.append(error)
        _end(event, delivery, outcomes[-1], number)
    return outcomes


@consumer(group="threads", types=TYPES, concurrency=4, **_UNSTALLED)
def threads(event: Event, delivery: Delivery) -> None:
    number = _begin(event, delivery)
    if event.data.get("poison") == "hang":
        time.sleep(6)  # a thread cannot be stopped
    failure = _failure(event, delivery)
    _end(event, delivery, failure, number)
    if failure is not None:
        raise failure


@consumer(group="rows", types=TYPES, batch=100, linger=0.02, retry=QUICK)
class Rows(Consumer):
    """Writes through the database sink; poison never reaches the database."""

    async def start(self) -> None:
        self.database = database_from_settings()
        await self.database.start()

    async def handle(self, events: list[Event], deliveries: list[Delivery]) -> list[Exception | None]:
        poison = [Reject("poison") if event.data.get("poison") else None for event in events]
        pairs = zip(events, deliveries, poison, strict=True)
        await self.database.write([row_of(event, delivery) for event, delivery, bad in pairs if bad is None])
        return list(poison)

    async def stop(self) -> None:
        await self.database.stop()


if ON["once_rows"]:
    from hyperbus.sinks.database.once import once, prepare_once

    @consumer(group="once_rows", types=TYPES, retry=QUICK)
    class OnceRows(Consumer):
        """Writes rows into a table that would take them twice; the mark beside them does not."""

        async def start(self) -> None:
            path = FOLDER / "once.db"
            self.database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            for attempt in range(50):
                try:
                    self.database.execute("PRAGMA journal_mode=WAL")
                    self.database.execute("CREATE TABLE IF NOT EXISTS done (event_id TEXT NOT NULL)")
                    prepare_once(self.database)
                    return
                except (sqlite3.OperationalError, HyperbusError):  # another process is at it
                    await asyncio.sleep(0.1 * (attempt + 1))

        def handle(self, event: Event, delivery: Delivery) -> None:
            if event.data.get("poison"):
                raise Reject("poison")
            self.database.execute("BEGIN IMMEDIATE")
            try:
                if once(self.database, delivery):
                    self.database.execute("INSERT INTO done VALUES (?)", (event.id,))
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

        async def stop(self) -> None:
            self.database.close()


if ON["order"]:

    @consumer(group="ordered", types=TYPES, concurrency=16, order_by="workflow_id", **_STALLED)  # type: ignore[call-arg,unused-ignore]
    async def ordered(event: Event, delivery: Delivery) -> None:
        await _handle(event, delivery)
