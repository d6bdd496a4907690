"""What a forked process inherits and must not use. Whoever owns such a thing is told, in the child, before it goes on.

Sockets and what an event loop waits for are shared with the parent, threads are not there: a byte from the child would
come between those of the parent, and an answer to one would reach the other.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Protocol


class Inherited(Protocol):
    """Something that a forked child must not use as its parent does."""

    def after_fork(self) -> None:
        """Let go of it, in the child. Only what harms no other process: nothing is sent, nothing waited for."""
        ...


class _Owners:
    """All that lives and has to know. It keeps nobody alive."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Inherited] = weakref.WeakSet()

    def add(self, owner: Inherited) -> None:
        self._all.add(owner)

    def tell(self) -> None:
        for owner in tuple(self._all):
            with suppress(Exception):  # the others have to hear of it, and there is nobody to tell
                owner.after_fork()


_owners = _Owners()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_owners.tell)


def tell_after_fork(owner: Inherited) -> None:
    """Call the owner's `after_fork` in each child that this process forks, for as long as the owner lives."""
    _owners.add(owner)
