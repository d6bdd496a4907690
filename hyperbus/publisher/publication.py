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
    """A coroutine that has not begun. A struct, since a plain class would cost twice as much.

    Attributes:
        coroutine: does the work.
        unless_begun: hears of it, if this is thrown away before it begins.
    """

    coroutine: Coroutine[Any, Any, T]
    unless_begun: NotAwaited | None

    def __await__(self) -> Generator[Any, Any, T]:
        """Begin."""
        self.unless_begun = None
        return self.coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Begin or go on, as a task does it."""
        self.unless_begun = None
        return self.coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it stands."""
        self.unless_begun = None
        return self.coroutine.throw(*error)

    def close(self) -> None:
        """End it."""
        self.unless_begun = None
        self.coroutine.close()

    def __del__(self) -> None:
        """Tell, if it never began."""
        if self.unless_begun is not None and not sys.is_finalizing():
            frame = getattr(self.coroutine, "cr_frame", None)  # there the arguments wait
            what = None if frame is None else frame.f_locals.get("what")
            self.unless_begun.tell(what, sys._getframe(1))  # noqa: SLF001 - who threw it away


Coroutine.register(Publication)


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
