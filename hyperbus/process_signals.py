"""Signals of the operating system, taken for a while on an event loop. Whoever had them before gets them back.

What the process forks meanwhile does not take them: a child ends at SIGTERM as if this had never been here, and the
parent does not hear of it. (A child inherits the handlers, and the descriptor by which a signal wakes the event loop.)
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from hyperbus.errors import HyperbusError

#: What is done when a signal comes; called on the event loop.
Answer = Callable[[], None]


class _Before(NamedTuple):
    """Who had a signal before: Python's handler, or what the event loop called."""

    handler: Any
    handle: Any

    @classmethod
    def of(cls, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> _Before:
        # asyncio has no public way to ask. Other loops hide what they call: theirs cannot be given back.
        known = getattr(loop, "_signal_handlers", None)
        return cls(signal.getsignal(number), known.get(number) if isinstance(known, dict) else None)

    def give_back(self, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> None:
        if self.handle is not None:
            loop.add_signal_handler(number, self.handle._callback, *self.handle._args)  # noqa: SLF001 - as above
        elif self.handler is not None:  # None: not one of Python's
            signal.signal(number, self.handler)

    def in_child(self, number: signal.Signals) -> Any:
        """Return the handler for a forked child: the program's own, never an event loop's, which is the parent's."""
        module = getattr(getattr(self.handler, "func", self.handler), "__module__", None) or ""
        if self.handler is None or module.partition(".")[0] in ("asyncio", "uvloop"):
            return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        return self.handler


class ProcessSignals:
    """Takes signals for the time of a `with`; in the main thread, where an event loop runs.

    Args:
        answers: what is done at each signal.
    """

    def __init__(self, answers: Mapping[signal.Signals, Answer]) -> None:
        self._answers = answers
        self._before: dict[signal.Signals, _Before] = {}
        self._wakeup = -1

    @property
    def numbers(self) -> set[signal.Signals]:
        """The signals that are taken."""
        return set(self._answers)

    def __enter__(self) -> Self:
        """Take them until this is left."""
        self.take()
        return self

    def take(self) -> None:
        """Take them, for as long as the process lives unless this was entered.

        Raises:
            HyperbusError: this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise HyperbusError(
                "signals reach the main thread alone, and this is another: call bus.run(...) there, "
                "or use `async with bus.running(...)`, which takes no signals"
            )
        self._loop = asyncio.get_running_loop()
        self._wakeup = _wakeup_descriptor()
        for number, answer in self._answers.items():
            self._before[number] = _Before.of(number, self._loop)
            self._loop.add_signal_handler(number, answer)
        _taken.by.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back. One that comes in between waits until its handler is there again."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        try:
            _taken.by.remove(self)
            for number, before in self._before.items():
                self._loop.remove_signal_handler(number)
                before.give_back(number, self._loop)
            if self._wakeup != -1 and _wakeup_descriptor() == -1:
                signal.set_wakeup_fd(self._wakeup)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def give_up(self) -> None:
        """Have no part in what the parent took, in a forked child."""
        for number, before in self._before.items():
            with suppress(ValueError, OSError, TypeError):
                signal.signal(number, before.in_child(number))


class _Taken:
    """Who takes signals now, and what has to be done around a fork.

    They are blocked meanwhile: one that meets the child before it gave them up would wake the parent's event loop.
    """

    def __init__(self) -> None:
        self.by: list[ProcessSignals] = []
        self._thread = threading.local()

    def before_fork(self) -> None:
        self._thread.mask = None
        if self.by:
            numbers = set().union(*(each.numbers for each in self.by))
            self._thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def after_in_parent(self) -> None:
        if self._thread.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._thread.mask)

    def after_in_child(self) -> None:
        if self.by:
            signal.set_wakeup_fd(-1)
        while self.by:
            self.by.pop().give_up()
        if self._thread.mask is not None:
            for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()) - self._thread.mask:
                _unblock(number)


def _unblock(number: int) -> None:
    """Let a signal come. If one waits and its handler raises, as Ctrl-C's does, the child ends: nobody would see it."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    except BaseException:  # noqa: BLE001 - the program's own handler
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _wakeup_descriptor() -> int:
    descriptor = signal.set_wakeup_fd(-1)
    if descriptor != -1:
        signal.set_wakeup_fd(descriptor)
    return descriptor


_taken = _Taken()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_taken.before_fork, after_in_parent=_taken.after_in_parent, after_in_child=_taken.after_in_child
    )
