"""Handlers in the publishing process itself, called for what it stored. They keep nothing and hold up no event."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hyperbus.error_text import repr_of
from hyperbus.errors import HyperbusError, NotDurable
from hyperbus.event.envelope import Event
from hyperbus.event.routing import TypeFilter
from hyperbus.signals import Announcer, LocalHandlerFailed

#: A local handler, and the pattern of event types that it wants.
LocalHandler = Callable[[Event[Any]], Awaitable[None] | None]


class LocalHandlers:
    """Handlers that run in the publishing process, right after an event was stored. Best effort: errors are told."""

    def __init__(self, announcer: Announcer) -> None:
        self._handlers: list[tuple[TypeFilter, LocalHandler]] = []
        #: Whether there is anybody to call.
        self.wanted = False
        self._announcer = announcer

    def add(self, pattern: str, handler: LocalHandler) -> None:
        """Let `handler` see events whose type matches `pattern`."""
        self._handlers.append((TypeFilter([pattern]), handler))
        self.wanted = True

    async def call(self, event: Event[Any]) -> None:
        """Call every handler that wants the event, one after the other."""
        for types, handler in self._handlers:
            if not types.matches(event.type):
                continue
            try:
                answer = handler(event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - a local handler is a user's code, and the event is stored
                self._announcer.announce(
                    LocalHandlerFailed(
                        handler=getattr(handler, "__qualname__", None) or repr_of(handler),
                        event_type=event.type,
                        event_id=event.id,
                        workflow_id=event.workflow_id,
                        error=error,
                    )
                )

    async def call_stored(self, events: Iterable[Event[Any]], results: Iterable[str | HyperbusError]) -> None:
        """Call them for those events that were stored, as their results say."""
        for event, result in zip(events, results, strict=False):
            if isinstance(result, str | NotDurable):
                await self.call(event)
