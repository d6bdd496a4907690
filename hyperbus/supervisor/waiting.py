"""Waiting for the first of several things. Ends nothing that it did not begin itself."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.clock import Seconds


async def until_first(*things: asyncio.Event | asyncio.Task[Any], within: Seconds | None = None) -> None:
    """Wait until one event is set or one task is done; at most `within` seconds. Tasks go on."""
    waits = [asyncio.create_task(thing.wait()) for thing in things if isinstance(thing, asyncio.Event)]
    tasks = [thing for thing in things if isinstance(thing, asyncio.Task)]
    try:
        await asyncio.wait((*waits, *tasks), timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
