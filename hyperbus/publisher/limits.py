"""How much a publisher takes, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from hyperbus.clock import Seconds
from hyperbus.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishLimits:
    """What a publisher holds itself to.

    Attributes:
        max_event_bytes: a written event that is larger is refused.
        timeout: how long a publish may take that does not say so itself.
        buffer: events that may wait.
        buffer_bytes: bytes that may wait.
        once_window: for how long a repeat of an event that is published once adds nothing.
        durability_timeout: how long replicas or a disk are waited for, at most.
        check_events: whether events that consumers could not read are refused.
    """

    max_event_bytes: int
    timeout: Seconds
    buffer: int
    buffer_bytes: int
    once_window: Seconds
    durability_timeout: Seconds
    check_events: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that settings set."""
        return cls(
            max_event_bytes=settings.max_event_bytes,
            timeout=settings.publish_timeout,
            buffer=settings.publish_buffer,
            buffer_bytes=settings.publish_buffer_bytes,
            once_window=settings.once_window,
            durability_timeout=settings.durability_timeout,
            check_events=settings.check_events,
        )
