"""Where a class or function was written. One file may be loaded as two modules: `__main__` and its own name, mostly."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Source(NamedTuple):
    """A name in a file."""

    file: str
    qualname: str


def source_of(module: str, qualname: str) -> Source | None:
    """Return where something of this module was written; None if that is no file, or the module is gone."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Source(os.path.realpath(file), qualname) if isinstance(file, str) else None
