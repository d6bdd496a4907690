"""Which retention counts for a type."""

from __future__ import annotations

from hyperbus import EventData
from hyperbus.event.retention import Declared, Keep, write_declared
from hyperbus.runtime.retention.retention_loop import RetentionLoop
from hyperbus.settings import Settings
from hyperbus.signals import Announcer
from hyperbus.transport import record_names
from hyperbus.transports.memory import MemoryTransport
from tests.recorder import Recorder
from tests.unit.runtime.retention.cutting import HandClock
from tests.unit.runtime.running import unique


async def test_a_policy_counts_wherever_the_lease_lies_and_is_taken_back_by_its_class() -> None:
    """Another program that knows the type and declares nothing changes nothing."""
    kind = unique("r")
    transport = MemoryTransport()
    recorder = Recorder()

    def process(retention: Keep | None, name: str) -> RetentionLoop:
        cls = type(EventData)(name, (EventData,), {"__module__": "m"}, type=kind, retention=retention)
        settings = Settings(retain_age=1.0)
        types = {kind: cls}
        return RetentionLoop(transport, Announcer([recorder]), HandClock(), settings, prefix="events", types=types)  # type: ignore[arg-type, dict-item]

    async def written() -> bytes | None:
        (value,) = await transport.records.get([record_names.retention_policy(kind)])
        return value

    await process(Keep(age=100), "A").round()
    assert await written() == write_declared(Declared(Keep(age=100), "m.A"))
    await process(None, "B").round()
    assert await written() is not None
    await process(Keep(age=200), "A").round()
    assert await written() == write_declared(Declared(Keep(age=200), "m.A"))
    await process(None, "A").round()
    assert await written() is None
