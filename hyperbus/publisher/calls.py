"""What happens between a call of `publish` and the publisher: the envelope is filled in, local handlers are called."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from threading import get_ident
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, NotDurable, PublishFailed
from hyperbus.event.envelope import Event, complete
from hyperbus.home import Home
from hyperbus.publisher.local_handlers import LocalHandlers
from hyperbus.publisher.publication import NotAwaited, Publication, awaited_twice
from hyperbus.publisher.publisher import Publisher
from hyperbus.signals import Announcer


class PublishCalls:
    """What calls of `publish` and `publish_many` share.

    Args:
        announcer: hears of what becomes of them.
        own_agent: the `source_agent` of events that have none.

    Attributes:
        publisher: sends what they publish; None as long as there is none.
        home: where they have to be awaited.
        local: handlers in this process.
        not_awaited: hears of calls that nobody awaited.
    """

    def __init__(self, announcer: Announcer, own_agent: str | None) -> None:
        self.local = LocalHandlers(announcer)
        self.own_agent = own_agent
        self.publisher: Publisher | None = None
        self.home: Home | None = None
        self.not_awaited = NotAwaited(announcer)

    @property
    def is_open(self) -> bool:
        """Whether there is a publisher."""
        return self.publisher is not None

    def open(self, publisher: Publisher, home: Home) -> None:
        """Let calls reach a publisher, from its home."""
        self.publisher, self.home = publisher, home
        self.not_awaited.loop = home.loop

    def close(self) -> None:
        """Refuse calls from now on."""
        self.publisher = None

    def ready(self) -> Publisher:
        """Return the publisher.

        Raises:
            BusUnavailable: there is none, or this is not its home; nothing was sent.
        """
        publisher, home = self.publisher, self.home
        if publisher is None or home is None:
            raise BusUnavailable("the bus is not open; publish inside `async with Bus(...)`")
        home.check()
        return publisher


class EventPublication(Publication[str]):
    """A call of `Bus.publish`: the options are those of that call."""

    calls: PublishCalls | None = None
    workflow_id: str | None = None
    correlation_id: str | None = None
    source_agent: str | None = None
    timeout: Seconds | None = None
    once: bool = False
    durability: str | None = None

    def __await__(self) -> Generator[Any, Any, str]:
        """Begin. On the way of every event: what `ready` does is spelled out, and nothing is awaited in between."""
        calls = self.calls
        if self.unless_begun is None or calls is None:
            raise awaited_twice()
        self.unless_begun = None
        publisher, home = calls.publisher, calls.home
        if publisher is None or home is None or get_ident() != home.thread or not home.is_running():
            publisher = calls.ready()
        event = complete(self.what, self.workflow_id, self.correlation_id, self.source_agent, calls.own_agent)
        answer = publisher.publish(event, timeout=self.timeout, once=self.once, durability=self.durability)
        if calls.local.wanted:
            return _call_local(calls.local, event, answer).__await__()
        return answer.__await__()


class ManyPublication(Publication[list[str]]):
    """A call of `Bus.publish_many`."""

    calls: PublishCalls | None = None
    timeout: Seconds | None = None
    once: bool = False
    durability: str | None = None

    def __await__(self) -> Generator[Any, Any, list[str]]:
        """Begin."""
        if self.unless_begun is None or self.calls is None:
            raise awaited_twice()
        self.unless_begun = None
        return self._publish(self.calls).__await__()

    async def _publish(self, calls: PublishCalls) -> list[str]:
        publisher, events, agent = calls.ready(), self.what, calls.own_agent
        options: Any = {"timeout": self.timeout, "once": self.once, "durability": self.durability}
        if not calls.local.wanted:
            return await publisher.publish_many(events, agent, **options)
        whole = [complete(event, own_agent=agent) for event in events]
        try:
            ids = await publisher.publish_many(whole, agent, **options)
        except PublishFailed as failed:
            await calls.local.call_stored(whole, failed.results)
            raise
        await calls.local.call_stored(whole, ids)
        return ids


async def _call_local(local: LocalHandlers, event: Event[Any], answer: Awaitable[str]) -> str:
    try:
        entry_id = await answer
    except NotDurable as stored:
        await local.call_stored([event], [stored])
        raise
    await local.call(event)
    return entry_id
