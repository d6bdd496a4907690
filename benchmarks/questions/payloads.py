"""What do events of 100 bytes to 100 kB cost, published 500 at a time and consumed one by one?

Both are compared with a bare socket that moves the same bytes.
"""

from __future__ import annotations

import time

from benchmarks.bare import Bare, append, consume, pack
from benchmarks.question import Figure, Place, Question, Values
from benchmarks.questions.consume_one import handle
from benchmarks.questions.publish_many import rate as publish_rate
from benchmarks.workload import STREAM, Benched, consume_rate, encoded
from hyperbus import Event

#: Bytes of an event's text, by what the table calls them, and how many such events.
SIZES = {"100 B": (100, 100_000), "1 kB": (1_000, 50_000), "10 kB": (10_000, 10_000), "100 kB": (100_000, 2_000)}


def _event(size: int) -> Event[Benched]:
    return Event(data=Benched(contract="ERC20", network="testnet", step=1, note="x" * size), source_agent="bench")


async def _measure_with(size: int, by_default: int, place: Place) -> Values:
    count = place.events(by_default)
    published = await publish_rate(place, [_event(size)] * count)
    with Bare(place.host, place.port) as bare:
        bare.ask(pack("DEL", STREAM))
        bare_published, bare_consumed = await _bare_rates(place, bare, size, count)
        bare.ask(pack("DEL", STREAM))
    consumed = await consume_rate(place, handle, count=count, events=[_event(size)])
    return {
        f"payload_{size}_publish": published,
        f"payload_{size}_consume": consumed,
        f"payload_{size}_bare_publish": bare_published,
        f"payload_{size}_bare_consume": bare_consumed,
    }


async def _bare_rates(place: Place, bare: Bare, size: int, count: int) -> tuple[float, float]:
    (body,) = await encoded(place, [_event(size)])
    bare.ask(pack("XGROUP", "CREATE", STREAM, "bare", "0", "MKSTREAM"))
    command = pack("XADD", STREAM, "*", "data", body)
    started = time.monotonic()
    append(bare, [command], count)
    between = time.monotonic()
    ended = consume(bare, STREAM, "bare", count)
    return count / (between - started), count / (ended - between)


def _question(shown: str, size: int, by_default: int) -> Question:
    async def measure(place: Place) -> Values:
        return await _measure_with(size, by_default, place)

    name = f"payload_{size}"
    return Question(
        name,
        measure,
        (
            Figure(f"{name}_bare_publish", f"bare socket: XADD, {shown}", loop="-"),
            Figure(f"{name}_publish", f"publish_many, {shown}", against=(f"{name}_bare_publish",)),
            Figure(f"{name}_bare_consume", f"bare socket: XREADGROUP, XACK, {shown}", loop="-"),
            Figure(f"{name}_consume", f"consume, {shown}", against=(f"{name}_bare_consume",)),
        ),
    )


QUESTIONS = tuple(_question(shown, size, by_default) for shown, (size, by_default) in SIZES.items())
