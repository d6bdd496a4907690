"""What ends a program, as opposed to what a user's code raised: any exception can be raised by code."""

from __future__ import annotations

import functools
import opcode
import signal
import threading
from types import CodeType, FunctionType, MethodType, TracebackType

_RAISE = opcode.opmap["RAISE_VARARGS"]


def is_from_signal(error: BaseException) -> bool:
    """Tell whether a signal raised an exception where a user's code happened to run; else that code raised it.

    An `Exception` never ends a program by itself: one that a signal's handler raises is a failure as any other.
    """
    if issubclass(type(error), Exception) or threading.current_thread() is not threading.main_thread():
        return False  # signals are handled in the main thread alone
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {code for handler in handlers if (code := _code_of(handler)) is not None}
    # not `error.__traceback__`: a class of the user's may have one of its own
    trace: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    innermost = None
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        innermost, trace = trace, trace.tb_next
    if not issubclass(type(error), KeyboardInterrupt) or signal.default_int_handler not in handlers:
        return False
    # Python's own handler leaves no frame: the innermost is the one that it interrupted, which raised nothing
    return innermost is None or innermost.tb_frame.f_code.co_code[innermost.tb_lasti] != _RAISE


def _code_of(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if isinstance(handler, MethodType):
        handler = handler.__func__
    if not isinstance(handler, FunctionType):
        handler = vars(type(handler)).get("__call__")
    return handler.__code__ if isinstance(handler, FunctionType) else None
