"""Who may look a group over, and until when a worker of an ordered group may read."""

from __future__ import annotations

from hyperbus.clock import Clock, Seconds
from hyperbus.runtime.coordination.lease import Lease

#: How long the right to look a group over is kept without being used.
LEASE: Seconds = 1.0


class Ownership:
    """The right to look a group over, which one worker has at a time, and what follows from it for reading.

    In an ordered group only who has it may read, and only once nobody else has anything pending, so that no later event
    overtakes an earlier one in another process. The reclaimer writes it, the reader reads it.
    """

    def __init__(self, lease: Lease, clock: Clock, *, ordered: bool) -> None:
        self._lease = lease
        self._clock = clock
        #: Whether the group keeps an order, so that one worker reads at a time.
        self.ordered = ordered
        self._held_since: float | None = None
        self._read_until = 0.0

    async def hold(self) -> bool:
        """Take the right to look the group over, or keep it; tell whether it is held."""
        return await self._lease.hold()

    async def release(self) -> None:
        """Give it up: another worker may be able to do what this one cannot."""
        await self._lease.release()

    def lose(self) -> None:
        """Read no more: another worker has the right, or the server is away."""
        self._held_since = None
        self._read_until = 0.0

    @property
    def is_new(self) -> bool:
        """Whether this worker has not read since it took the right: another one may still be in its last read."""
        return not self._read_until

    def confirm(self, asked: float, *, others_pending: bool, alone: bool = False) -> None:
        """Note that the right was held when it was asked for at `asked`, on the monotonic clock.

        `alone`: the group has no other consumer, so that nobody had the right before.
        """
        if self._held_since is None:
            self._held_since = asked
        # a worker that had the lease before may still be in a read that it began just before it lost it
        if not others_pending and (self._read_until or alone or asked - self._held_since >= LEASE):
            self._read_until = asked + LEASE

    def may_read_for(self, seconds: Seconds) -> bool:
        """Tell whether this worker may begin a read that takes so long."""
        return not self.ordered or self._clock.monotonic() + seconds <= self._read_until
