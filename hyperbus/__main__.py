"""The `hyperbus` command. Turns every error of hyperbus's own into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from hyperbus.errors import HyperbusError, MissingExtraError
from hyperbus.log_values import visible, without_secrets

#: What a disk or a device says that cannot take what is printed.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
#: How long a reader of stderr has to take the last line.
_LAST_LINE_WITHIN = 1.0


def main() -> None:
    """Run the command line; end the process with its exit code."""
    _open_what_is_closed()
    try:
        run = _load()
        code = run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone is no surprise
    except HyperbusError as error:
        code = error.exit_code
        _say(str(error), code)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _forget_what_is_buffered()
        code = 141
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or error.filename is not None:
            raise
        _forget_what_is_buffered()
        code = HyperbusError.exit_code
        _say(f"the output cannot be written: {error.strerror}", code)
    sys.exit(code)


def _open_what_is_closed() -> None:
    """Let nothing else be opened in the place of a standard stream that the program was started without.

    Neither here nor in worker processes.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free


def _forget_what_is_buffered() -> None:
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, code: int) -> None:
    """Print one line; where nobody reads it, end all the same."""
    line = f"hyperbus: {visible(without_secrets(' '.join(text.split())))}"

    def say() -> None:
        with suppress(OSError, ValueError):  # there may be nobody to tell
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the command line

    if sys.stderr is None:
        return
    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(_LAST_LINE_WITHIN)
    if saying.is_alive():
        os._exit(code)  # the interpreter would wait for the lock of the stream


def _load() -> Callable[[list[str]], int]:
    try:
        from hyperbus.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        raise MissingExtraError(
            f"the command line needs {error.name}, which is not installed: pip install 'hyperbus[cli]'"
        ) from error
    return run


if __name__ == "__main__":
    main()
