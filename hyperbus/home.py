"""Where a bus lives: the event loop that it was opened on, in one thread of one process. It is used nowhere else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import get_ident
from typing import Any, TypeVar

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, PublishUncertain
from hyperbus.forks import tell_after_fork

T = TypeVar("T")

#: The identity of no thread.
_NOWHERE = -1
#: How often a thread that waits looks whether the event loop is still there to answer.
_LOOK: Seconds = 1.0
_MEANWHILE = "the bus was closed meanwhile; the event may be stored or not"


class Home:
    """The event loop, thread and process that a bus was opened in.

    Attributes:
        loop: the event loop.
        is_running: tells whether it runs now.
        thread: the thread that it runs in; of no thread in a forked child.
        is_inherited: this process was forked since: the home is the parent's.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_inherited = False
        self.is_running = self.loop.is_running
        self.thread = get_ident()
        tell_after_fork(self)

    def check(self) -> None:
        """Let pass whoever runs here. This costs a third of asking for the running loop.

        Raises:
            BusUnavailable: this code runs elsewhere; nothing was sent.
        """
        if get_ident() != self.thread or not self.is_running():
            raise self.refusal()

    def wait_for(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Publish at home what `ask` returns, and block this thread, which is another, until that is done.

        Raises:
            BusUnavailable: this is no other thread, or the home is gone; nothing was sent.
            PublishUncertain: it ended meanwhile.
            HyperbusError: what the publish raises.
        """
        return self.begin(ask)()

    def begin(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[], T]:
        """Do the first half of `wait_for`: let it begin; return what waits."""
        if self.is_inherited:
            raise self.refusal()
        if get_ident() == self.thread:
            raise BusUnavailable("nothing was sent: it would block the event loop that has to do it; await publish")

        async def asked() -> T:
            return await ask()

        coroutine = asked()
        try:
            answer = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise BusUnavailable("the event loop of the bus has ended: nothing was sent") from None
        return lambda: self._wait(answer)

    def _wait(self, answer: concurrent.futures.Future[T]) -> T:
        while True:
            try:
                return answer.result(_LOOK)
            except concurrent.futures.CancelledError:
                raise PublishUncertain(_MEANWHILE) from None
            except TimeoutError:
                if answer.done():
                    return answer.result()
                if self.loop.is_closed():
                    raise PublishUncertain(_MEANWHILE) from None

    def after_fork(self) -> None:
        """Let nobody pass, in a forked child: the loop and what it waits for are the parent's.

        A child that comes back from its own work to that loop would go on as a second parent: it ends.
        """
        self.is_inherited = True
        if get_ident() == self.thread and self.is_running():
            self.loop.call_soon(end_child)
        self.thread = _NOWHERE

    def refusal(self) -> BusUnavailable:
        """Return what is raised where somebody runs elsewhere."""
        if self.is_inherited:
            return BusUnavailable(
                "the bus was opened before this process was forked: nothing was sent; open a Bus in this process"
            )
        return BusUnavailable(
            "the bus was opened on another event loop: nothing was sent; in a handler that is a plain function call "
            "delivery.publish_blocking(...), in other threads use a SyncPublisher or asyncio.run_coroutine_threadsafe, "
            "or open a Bus on this event loop"
        )


def end_child() -> None:
    """End a forked child that came back to its parent's work; as `sys.exit` says, if it was on its way out."""
    leaving = sys.exc_info()[1]
    if isinstance(leaving, SystemExit):
        os._exit(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
    line = "hyperbus: a forked child came back to its parent's work, and ends: end it with os._exit(...)\n"
    with suppress(OSError):
        os.write(2, line.encode())
    os._exit(1)
