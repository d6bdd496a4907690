"""What does it cost to deliver to many groups of one process? Deliveries of all groups are counted together."""

from __future__ import annotations

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import Benched, consume_rate
from hyperbus import Event, consumer

#: How many groups.
COUNTS = (1, 5, 20)


def _handler(group: str) -> object:
    @consumer(group=group)
    async def handle(_event: Event[Benched]) -> None:
        """Do nothing."""

    return handle


async def _measure_with(count: int, place: Place) -> Values:
    groups = [f"bench{number}" for number in range(count)]
    rate = await consume_rate(place, *[_handler(group) for group in groups], count=place.events(200_000), groups=groups)
    return {f"groups_{count}": rate}


def _question(count: int) -> Question:
    async def measure(place: Place) -> Values:
        return await _measure_with(count, place)

    name = f"groups_{count}"
    bars = (Bar(0.8, of="groups_1"),) if count == 20 else ()
    against = ("groups_1",) if count > 1 and not bars else ()
    title = f"deliver to {count} group{'s' if count > 1 else ''}"
    return Question(
        name, measure, (Figure(name, title, against=against, bars=bars),), Depth.QUICK if bars else Depth.DEFAULT
    )


QUESTIONS = tuple(_question(count) for count in COUNTS)
