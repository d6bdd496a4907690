"""The producer: a coordinator, a generator, an auditor, a tester and a deployer who run workflows side by side."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from hyperbus.bus import Bus
from hyperbus.cli.demo import events
from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, PublishUncertain
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event

#: Workflows that run at once.
WORKFLOWS = 64
#: Share of workflows that fail at some step.
FAILURES = 0.1
#: Which audit is the hard one, that its reviewer stumbles over once.
_HARD_AUDIT = 20

#: Publishes one event of a workflow, as an agent.
Say = Callable[[str, EventData], Awaitable[None]]


class Agents:
    """Runs workflows at a given rate of events, and counts them; with `remember`, it keeps the id of each as well."""

    def __init__(self, bus: Bus, clock: Clock, rate: float, *, remember: bool = True) -> None:
        self._bus = bus
        self._clock = clock
        self._rate = rate
        self._random = random.Random(7)  # noqa: S311 - a story that is told the same way every time
        self._numbers = itertools.count(1)
        self._audits = itertools.count(1)
        self._stopping = asyncio.Event()
        self._remember = remember
        self.published = 0
        self.ids: set[str] = set()
        self.uncertain = 0
        self.refused = 0
        self.started_at = clock.monotonic()

    def stop(self) -> None:
        """Begin no more workflows, and say nothing more."""
        self._stopping.set()

    async def run(self, seconds: Seconds | None) -> None:
        """Run workflows for `seconds`, or until stopped."""
        self.started_at = self._clock.monotonic()
        steps = self._steps()
        pace = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKFLOWS):
                tasks.create_task(self._play(pace), name="hyperbus demo workflow")
            async for due in steps:
                for _ in range(due):
                    pace.release()
                if seconds is not None and self._clock.monotonic() - self.started_at >= seconds:
                    self.stop()
            for _ in range(WORKFLOWS):
                pace.release()

    async def _steps(self) -> AsyncIterator[int]:
        """Yield, many times a second, how many events are due."""
        said = 0
        while not self._stopping.is_set():
            await self._clock.sleep(0.01)
            due = int((self._clock.monotonic() - self.started_at) * self._rate) - said
            said += due
            yield due

    async def _play(self, pace: asyncio.Semaphore) -> None:
        while not self._stopping.is_set():
            workflow_id = f"wf-{next(self._numbers):06d}"

            async def say(agent: str, data: EventData, workflow_id: str = workflow_id) -> None:
                await pace.acquire()
                if self._stopping.is_set():
                    raise _Over
                await self._publish(agent, data, workflow_id)

            try:
                await self._workflow(say)
            except _Over:
                return

    async def _publish(self, agent: str, data: EventData, workflow_id: str) -> None:
        event: Event[EventData] = Event(data=data, workflow_id=workflow_id, source_agent=agent)
        try:
            await self._bus.publish(event)
        except PublishUncertain:
            self.uncertain += 1
        except BusUnavailable:
            self.refused += 1
        else:
            self.published += 1
            if self._remember:
                self.ids.add(event.id)

    async def _workflow(self, say: Say) -> None:
        chance = self._random
        contract = chance.choice(("ERC20", "ERC721", "ERC1155", "Vault", "Auction"))
        await say("coordinator", events.WorkflowCreated(contract=contract))
        await say("coordinator", events.WorkflowStarted(contract=contract))
        await say("generator", events.GenerationStarted(model="writer-large"))
        if chance.random() < FAILURES / 2:
            await say("generator", events.GenerationFailed(reason="no usable code after 3 tries"))
            await say("coordinator", events.WorkflowFailed(step="generation", reason="no code"))
            return
        lines = chance.randrange(80, 400)
        await say("generator", events.GenerationCompleted(tokens=lines * 11, lines=lines))
        await say("coordinator", events.AgentAsked(asked="auditor", question=f"is this {contract} safe?"))
        await say("auditor", events.AuditStarted(lines=lines))
        if chance.random() < FAILURES / 2:
            await say("auditor", events.AuditFailed(finding="reentrancy in withdraw()"))
            await say("coordinator", events.WorkflowFailed(step="audit", reason="reentrancy"))
            return
        await say("auditor", events.AuditCompleted(findings=chance.randrange(4), hard=self._is_hard()))
        await say("auditor", events.AgentAnswered(asker="coordinator", answer="safe enough"))
        cases = chance.randrange(10, 60)
        await say("tester", events.TestingStarted(cases=cases))
        await say("tester", events.TestingCompleted(passed=cases, failed=0))
        await say("deployer", events.DeploymentStarted(network="testnet"))
        await say("deployer", events.DeploymentCompleted(address=f"0x{chance.getrandbits(160):040x}"))
        await say("coordinator", events.WorkflowCompleted(steps=13))

    def _is_hard(self) -> bool:
        return next(self._audits) == _HARD_AUDIT


class _Over(Exception):  # noqa: N818 - it ends a story, it is no error
    """The demo is over."""
