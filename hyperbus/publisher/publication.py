"""What `publish` returns: a coroutine to whoever asks, which tells when nobody awaited it and nothing was sent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import msgspec

from hyperbus.logger import get_logger
from hyperbus.signals import Announcer, PublishErred

T = TypeVar("T")

#: How such a publish is counted, where others are by the name of their error.
NOT_AWAITED = "NotAwaited"
_OURS = (str(Path(__file__).parents[1]), str(Path(asyncio.__file__).parent))


class NotAwaited:
    """Hears of publications that were thrown away before they began, in whatever thread.

    Args:
        announcer: is told of them.

    Attributes:
        loop: the event loop that the announcer is called on; None as long as there is none.
    """

    def __init__(self, announcer: Announcer) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._announcer = announcer
        self._log = get_logger("hyperbus.publisher")

    def tell(self, what: object, frame: FrameType) -> None:
        """Log and count one that was thrown away under `frame`."""
        task = _current_task()
        self._log.error(
            "publish was not awaited: nothing was sent; write `await` before it, "
            "or call delivery.publish_blocking in a handler that is a plain function",
            type=_type_of(what),
            **({} if task is None else {"task": task.get_name()}),
            **_place(frame),
        )
        if self.loop is None:
            return
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self.loop.call_soon_threadsafe(self._announcer.announce, PublishErred(1, NOT_AWAITED))


class Publication(msgspec.Struct, Generic[T], eq=False, gc=False):
    """A coroutine that begins when it is awaited, or when a task begins with it.

    A struct, since a plain class would cost twice as much. What it does is a subclass's.

    Attributes:
        unless_begun: hears of it, if this is thrown away before it begins; None once it has begun.
        what: what is published.
        iterator: what a task that has begun with it goes on with.
    """

    unless_begun: NotAwaited | None
    what: Any
    iterator: Any = None

    def __await__(self) -> Generator[Any, Any, T]:
        """Begin."""
        raise NotImplementedError

    def send(self, value: Any) -> Any:
        """Begin or go on, as a task does it."""
        if self.iterator is None:
            self.iterator = self.__await__()
        return self.iterator.send(value)

    def throw(self, error: Any, *more: Any) -> Any:
        """Raise an error where it stands."""
        self.unless_begun = None
        if self.iterator is None:
            raise more[0] if more and more[0] is not None else error
        return self.iterator.throw(error, *more)

    def close(self) -> None:
        """End it."""
        self.unless_begun = None
        if self.iterator is not None:
            self.iterator.close()

    def __del__(self) -> None:
        """Tell, if it never began."""
        if self.unless_begun is not None and not sys.is_finalizing():
            self.unless_begun.tell(self.what, sys._getframe(1))  # noqa: SLF001 - who threw it away


Coroutine.register(Publication)


def awaited_twice() -> RuntimeError:
    """Return what is raised when somebody awaits what has begun, as coroutines do."""
    return RuntimeError("what publish returns can be awaited only once")


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _type_of(what: object) -> str:
    """Return the event type of what is published, or how many events there are."""
    if isinstance(what, list | tuple):
        return f"{len(what)} events"
    return str(getattr(what, "type", None) or getattr(what, "event_type", None) or type(what).__name__)


def _place(frame: FrameType) -> dict[str, str]:
    """Return where it was thrown away. Once the user's function has returned, that would be somebody else's line."""
    if frame.f_code.co_filename.startswith(_OURS):
        return {}
    return {"place": f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"}
