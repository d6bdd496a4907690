"""The `hyperbus` command. Turns every error of hyperbus's own into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hyperbus.errors import HyperbusError, MissingExtraError


def main() -> None:
    """Run the command line; end the process with its exit code."""
    try:
        run = _load()
        code = run(sys.argv[1:])
        sys.stdout.flush()  # here, where a reader that has gone is no surprise
    except HyperbusError as error:
        print(f"hyperbus: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - this is the command line
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has no reader
        code = 141
    sys.exit(code)


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
