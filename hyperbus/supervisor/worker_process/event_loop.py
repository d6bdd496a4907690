"""Which event loop a worker process runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from hyperbus.errors import MissingExtraError

LoopName = Literal["asyncio", "uvloop"]


def chosen_loop(setting: Literal["auto", "asyncio", "uvloop"]) -> LoopName:
    """Return the loop that a setting means here: "auto" takes uvloop where it is installed.

    Raises:
        MissingExtraError: uvloop was asked for and is not installed.
    """
    if setting == "asyncio":
        return "asyncio"
    if find_spec("uvloop") is not None:
        return "uvloop"
    if setting == "uvloop":
        raise MissingExtraError("loop=uvloop needs uvloop: pip install 'hyperbus[uvloop]'")
    return "asyncio"


def loop_factory(name: LoopName) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes such a loop."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
