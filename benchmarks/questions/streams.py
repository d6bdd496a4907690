"""What does it cost to consume from many streams, each of which always has something?"""

from __future__ import annotations

from types import new_class

import msgspec

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import consume_rate, data
from hyperbus import Event, EventData, consumer

#: How many streams.
COUNTS = (1, 10, 200, 500)


class _Fields(EventData):
    """What the events of every stream hold."""

    contract: str
    network: str
    step: int
    note: str


async def _measure_with(streams: int, place: Place) -> Values:
    kinds = [new_class(f"Benched{n}", (_Fields,), {"type": f"bench.stream{n}"}) for n in range(streams)]
    values = msgspec.structs.asdict(data())
    events = [Event(data=kind(**values), workflow_id="wf-000001") for kind in kinds]

    @consumer(group="bench", types=kinds)
    async def handle(_event: Event) -> None:
        """Do nothing."""

    rate = await consume_rate(place, handle, count=place.events(150_000), events=events)
    return {f"streams_{streams}": rate}


def _question(streams: int) -> Question:
    async def measure(place: Place) -> Values:
        return await _measure_with(streams, place)

    name = f"streams_{streams}"
    bars = (Bar(round(1 / 1.3, 2), of="streams_1"),) if streams == 200 else ()
    against = ("streams_1",) if streams > 1 and not bars else ()
    title = f"consume from {streams} stream{'s' if streams > 1 else ''}"
    return Question(
        name, measure, (Figure(name, title, against=against, bars=bars),), Depth.QUICK if bars else Depth.DEFAULT
    )


QUESTIONS = tuple(_question(streams) for streams in COUNTS)
