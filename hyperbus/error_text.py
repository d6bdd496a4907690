"""Exceptions in words. An exception is a user's object: whatever it does when it is looked at, nothing is raised."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

#: Characters of a message that are kept, and of a traceback.
MESSAGE_LIMIT = 1_000
TRACEBACK_LIMIT = 8_000
#: Exceptions of a chain, or of a group, whose frames are looked at.
_MOST_LINKED = 50
_LINE_END = "\n"
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_LIBRARY = f"{Path(os.__file__).parent}{os.sep}"
#: Where a call of a user's code comes through before it gets there: no frame of these says anything to its author.
_LEADING = (
    *(_PACKAGE + part for part in ("runtime", "declaration", "supervisor", "bus.py", "publisher", "sync_publisher.py")),
    *(_LIBRARY + part for part in ("asyncio", "concurrent", "contextlib.py", "importlib", "threading.py")),
    "<frozen importlib",
    "<frozen runpy>",
)
#: Where one part of a user's code calls another through ours.
_BETWEEN = (f"{_PACKAGE}runtime{os.sep}handling", f"{_PACKAGE}declaration{os.sep}middleware.py")


def name_of(error: BaseException) -> str:
    """Return the name of an exception's class."""
    try:
        return str(type(error).__name__)[:MESSAGE_LIMIT]
    except BaseException:  # noqa: BLE001 - its metaclass is a user's code too
        return "an exception"


def message_of(error: BaseException, limit: int = MESSAGE_LIMIT) -> str:
    """Return what an exception says; "" where it says nothing, and a note where it cannot be asked."""
    try:
        return _begin(str(error), limit)
    except BaseException as problem:  # noqa: BLE001 - see above
        return f"<its message cannot be read: {name_of(problem)}>"[:limit]


def describe(error: BaseException, limit: int = MESSAGE_LIMIT) -> str:
    """Return an exception's class and message, as the last line of a traceback has them."""
    message = message_of(error, limit)
    return f"{name_of(error)}: {message}"[:limit] if message else name_of(error)


def repr_of(value: object, limit: int = MESSAGE_LIMIT) -> str:
    """Return the `repr` of a value, an exception or whatever else a user's code hands over."""
    try:
        return _begin(repr(value), limit)
    except BaseException as problem:  # noqa: BLE001 - see above
        try:
            return f"<{type(value).__name__} that cannot be shown: {name_of(problem)}>"[:limit]
        except BaseException:  # noqa: BLE001 - see above
            return "<something that cannot be shown>"


def traceback_of(error: BaseException, limit: int = TRACEBACK_LIMIT) -> str:
    """Return an exception's traceback from the first frame of the user's code on, with those of its causes.

    Of a long one the middle is left out: it begins in the user's code, and its end says what was wrong.
    """
    try:
        told = traceback.TracebackException(type(error), error, _trace_of(error))
        _cut_all(told, has_place=issubclass(type(error), SyntaxError))
        text = "".join(told.format())
    except BaseException:  # noqa: BLE001 - see above
        return describe(error, limit)
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 4], text[len(text) - (limit - limit // 4 - 8) :]
    return f"{head.rpartition(_LINE_END)[0] or head}\n  ...\n{tail}"[-limit:]


def users_traceback(error: BaseException) -> TracebackType | None:
    """Return an exception's own traceback, beginning with the first frame of the user's code; all of it if none is."""
    try:
        whole = found = _trace_of(error)
        while found is not None and found.tb_frame.f_code.co_filename.startswith(_LEADING):
            found = found.tb_next
    except BaseException:  # noqa: BLE001 - see above
        return None
    return whole if found is None else found


def error_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return what a logger takes as `exc_info`, with the traceback from the user's code on.

    A logger looks at the exception: one that does not bear that is told of by another one in its place.
    """
    try:
        "".join(traceback.TracebackException(type(error), error, None, compact=True).format())
        _look_at(error)
    except BaseException:  # noqa: BLE001 - see above
        return RuntimeError, RuntimeError(f"{describe(error)} (no more of it can be shown)"), users_traceback(error)
    return type(error), error, users_traceback(error)


def _look_at(error: BaseException) -> None:
    """Look at an exception, and at those that it names, as loggers do; it may raise anything."""
    left, looked_at = [error], 0
    while left and looked_at < _MOST_LINKED:
        one = left.pop()
        looked_at += 1
        linked = (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))
        looks = (hash(type(one)), one.__class__, one.__traceback__, list(getattr(one, "__notes__", ())))
        if len(f"{one}{one!r}{looks[-1]}") > 2 * TRACEBACK_LIMIT:
            raise ValueError("more than anybody wants to read, and loggers can bear")
        left += [other for other in linked if isinstance(other, BaseException)]
    if left:
        raise ValueError("more of them than anybody wants to look at")


def place_of(error: BaseException) -> str:
    """Return where in the user's code an exception came from, such as "billing.py:12 in bill"; "" if nobody knows.

    That is the innermost frame that is neither ours nor of an installed package; else the innermost that is not ours.
    """
    found, is_own = None, False
    try:
        trace = _trace_of(error)
        while trace is not None:
            code = trace.tb_frame.f_code
            if not code.co_filename.startswith(_LEADING):
                is_users = not _is_installed(code.co_filename)
                if is_users or not is_own:
                    found, is_own = (code, trace.tb_lineno), is_users
            trace = trace.tb_next
    except BaseException:  # noqa: BLE001 - see above
        return ""
    if found is None:
        return ""
    return f"{found[0].co_filename.rpartition(os.sep)[2]}:{found[1]} in {found[0].co_name}"


def _trace_of(error: BaseException) -> TracebackType | None:
    """Return the traceback that was kept; `error.__traceback__` may be the user's code."""
    trace: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    return trace


def _begin(text: str, limit: int) -> str:
    """Return how a text begins; it may be an instance of a subclass, whose own methods are not called."""
    return str.__getitem__(text, slice(limit))


def _is_installed(filename: str) -> bool:
    return filename.startswith((_PACKAGE, _LIBRARY, "<frozen")) or "-packages" in filename


def _cut_all(told: traceback.TracebackException, *, has_place: bool) -> None:
    """Cut our frames off an exception, and off those that it names.

    Where no code of a user's is among them all is left as it is, unless the exception `has_place` of its own.
    """
    left: list[traceback.TracebackException] = [told]
    linked: list[traceback.TracebackException] = []
    while left and len(linked) < _MOST_LINKED:
        one = left.pop()
        linked.append(one)
        others = (one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ()))
        left += [other for other in others if other is not None]
    firsts = [_first_of_users(one.stack) for one in linked]
    if all(first is None for first in firsts) and not has_place:
        return
    for one, first in zip(linked, firsts, strict=True):
        kept = [] if first is None else one.stack[first:]
        one.stack = traceback.StackSummary.from_list(
            [frame for frame in kept if not frame.filename.startswith(_BETWEEN)]
        )


def _first_of_users(stack: traceback.StackSummary) -> int | None:
    """Return where the first frame of the user's code is; None: nowhere."""
    return next((at for at, frame in enumerate(stack) if not frame.filename.startswith(_LEADING)), None)
