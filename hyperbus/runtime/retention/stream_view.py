"""What a stream looks like when it is decided what of it may go."""

from __future__ import annotations

from dataclasses import dataclass

from hyperbus.event.retention import Keep
from hyperbus.transport import StreamInfo

#: Bytes of a pending list for each entry in it, about; a stream's weight has them in it.
PENDING_BYTES = 100


@dataclass(slots=True)
class StreamView:
    """What a stream looks like at one time. `weight` is None where the server does not tell."""

    info: StreamInfo
    oldest: bytes
    weight: int | None
    keep: Keep

    @property
    def pending(self) -> int:
        """Entries pending in all its groups."""
        return sum(group.pending for group in self.info.groups)

    @property
    def entry_bytes(self) -> float | None:
        """What one of its entries weighs, about."""
        if self.weight is None or not self.info.length:
            return None
        return max(1.0, (self.weight - PENDING_BYTES * self.pending) / self.info.length)

    def most(self, entries: int | None, size: int | None) -> float:
        """Return how many entries two bounds allow."""
        each = self.entry_bytes
        allowed = float("inf") if entries is None else float(entries)
        return allowed if size is None or each is None else min(allowed, size / each)
