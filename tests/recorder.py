"""A listener that keeps every signal, and lets a test wait for what it expects to hear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from hyperbus.signals import Signal

SignalT = TypeVar("SignalT")


class Recorder:
    """Keeps signals; give it to `Bus(listeners=[recorder])`."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self._heard = asyncio.Event()

    def __call__(self, announced: Signal) -> None:
        self.signals.append(announced)
        self._heard.set()

    def of(self, kind: type[SignalT]) -> list[SignalT]:
        """Return the signals of one kind, in order."""
        return [signal for signal in self.signals if isinstance(signal, kind)]

    async def wait_for(self, holds: Callable[[list[Any]], object], *, within: float = 10.0) -> None:
        """Wait until `holds(signals)` is true.

        Raises:
            AssertionError: it was not in time; the signals so far are told.
        """
        try:
            async with asyncio.timeout(within):
                while not holds(self.signals):
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise AssertionError(f"not heard within {within} s; heard: {self.signals}") from None

    async def wait_for_one(self, kind: type[SignalT], *, within: float = 10.0) -> SignalT:
        """Wait for the first signal of one kind, and return it."""
        await self.wait_for(lambda _: self.of(kind), within=within)
        return self.of(kind)[0]


async def eventually(holds: Callable[[], object], *, within: float = 30.0) -> None:
    """Wait until `holds()` is true, for what announces no signal.

    Raises:
        AssertionError: it was not in time.
    """
    try:
        async with asyncio.timeout(within):
            while not holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it did not become true within {within} s") from None
