"""What happens between a call of `publish` and the publisher: the envelope is filled in, local handlers are called."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, NotDurable, PublishFailed
from hyperbus.event.envelope import Publishable, complete
from hyperbus.home import Home
from hyperbus.publisher.local_handlers import LocalHandlers
from hyperbus.publisher.publication import NotAwaited
from hyperbus.publisher.publisher import Publisher
from hyperbus.signals import Announcer


class PublishCalls:
    """Calls of `publish` and `publish_many`.

    Args:
        announcer: hears of what becomes of them.
        own_agent: the `source_agent` of events that have none.

    Attributes:
        local: handlers in this process.
        not_awaited: hears of calls that nobody awaited.
    """

    def __init__(self, announcer: Announcer, own_agent: str | None) -> None:
        self.local = LocalHandlers(announcer)
        self._own_agent = own_agent
        self._publisher: Publisher | None = None
        self._home: Home | None = None
        self.not_awaited = NotAwaited(announcer)

    @property
    def is_open(self) -> bool:
        """Whether there is a publisher."""
        return self._publisher is not None

    def open(self, publisher: Publisher, home: Home) -> None:
        """Let calls reach a publisher, from its home."""
        self._publisher, self._home = publisher, home
        self.not_awaited.loop = home.loop

    def close(self) -> None:
        """Refuse calls from now on."""
        self._publisher = None

    async def publish(
        self,
        what: Publishable,
        workflow_id: str | None,
        correlation_id: str | None,
        source_agent: str | None,
        *,
        timeout: Seconds | None,  # noqa: ASYNC109 - it is kept by the publisher, for many at once
        once: bool,
        durability: str | None,
    ) -> str:
        """Do what `Bus.publish` says."""
        publisher = self._publisher or self._refuse()
        if self._home is not None:
            self._home.check()
        event = complete(what, workflow_id, correlation_id, source_agent, self._own_agent)
        try:
            entry_id = await publisher.publish(event, timeout=timeout, once=once, durability=durability)
        except NotDurable as stored:
            await self.local.call_stored([event], [stored])
            raise
        if self.local.wanted:
            await self.local.call(event)
        return entry_id

    async def publish_many(
        self,
        what: Sequence[Publishable],
        *,
        timeout: Seconds | None,  # noqa: ASYNC109 - one deadline for many round trips
        once: bool,
        durability: str | None,
    ) -> list[str]:
        """Do what `Bus.publish_many` says."""
        publisher = self._publisher or self._refuse()
        if self._home is not None:
            self._home.check()
        agent = self._own_agent
        if not self.local.wanted:
            return await publisher.publish_many(what, agent, timeout=timeout, once=once, durability=durability)
        whole = [complete(event, own_agent=agent) for event in what]
        try:
            ids = await publisher.publish_many(whole, agent, timeout=timeout, once=once, durability=durability)
        except PublishFailed as failed:
            await self.local.call_stored(whole, failed.results)
            raise
        await self.local.call_stored(whole, ids)
        return ids

    def _refuse(self) -> Publisher:
        raise BusUnavailable("the bus is not open; publish inside `async with Bus(...)`")
