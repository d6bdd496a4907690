"""Where a lost group begins again: after the highest checkpoint known, never at the end of its stream."""

from __future__ import annotations

from hyperbus.runtime.group.checkpoints import Checkpoints
from hyperbus.transport import FIRST_ID, NewEntry
from hyperbus.transports.memory import MemoryTransport

STREAM = "events:t"


class Place:
    """A stream with a group, in memory."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.streams = self.transport.streams
        self.known = Checkpoints(self.streams, "g")

    async def open(self) -> Place:
        await self.transport.open()
        await self.streams.create_groups([(STREAM, "g", FIRST_ID)])
        return self

    async def add(self, count: int = 1) -> list[bytes]:
        answers = await self.streams.append([NewEntry(STREAM, b"data", b"x")] * count)
        return [str(answer).encode() for answer in answers]

    async def take(self, *, ack: int = 0) -> None:
        """Deliver everything, and ack the first `ack` entries of it."""
        reader = self.transport.open_reader()
        [(_, entries)] = await reader.read_group("g", "c", [STREAM], count=100, block=0)
        await reader.close()
        await self.streams.ack([(STREAM, "g", [entry.id for entry in entries[:ack]])])


async def test_without_any_it_is_the_first_entry() -> None:
    """Nothing is known of the group, so all of the stream may be unread."""
    place = await Place().open()
    await place.add(3)
    assert await place.known.start_of(STREAM) == FIRST_ID


async def test_what_is_acked_is_saved_and_remembered() -> None:
    """Up to the oldest entry that is not acked."""
    place = await Place().open()
    ids = await place.add(3)
    await place.take(ack=2)
    await place.known.save([STREAM])
    start = await place.known.start_of(STREAM)
    assert ids[1] <= start < ids[2]
    assert await place.streams.checkpoints([(STREAM, "g")]) == [start]


async def test_the_higher_of_servers_and_workers_holds() -> None:
    """A server that was set back does not set the group back; another worker's newer one counts too."""
    place = await Place().open()
    ids = await place.add(2)
    await place.take(ack=2)
    await place.known.save([STREAM])
    await place.streams.destroy_group(STREAM, "g")
    assert await place.streams.checkpoints([(STREAM, "g")]) == [None]
    assert await place.known.start_of(STREAM) == ids[1]
    newcomer = Checkpoints(place.streams, "g")
    assert await newcomer.start_of(STREAM) == FIRST_ID
    await place.streams.create_groups([(STREAM, "g", ids[1])])
    ids += await place.add(1)
    await place.take(ack=1)
    await newcomer.save([STREAM])
    assert await place.known.start_of(STREAM) == ids[2]
    await place.known.load([STREAM])
    await place.streams.destroy_group(STREAM, "g")
    assert await place.known.start_of(STREAM) == ids[2], "what others saved is remembered too"


async def test_a_stream_made_anew_is_read_from_its_first_entry() -> None:
    """Its last id lies below the checkpoint: the entries are others, whatever their ids."""
    place = await Place().open()
    await place.add(1)
    await place.take(ack=1)
    await place.known.save([STREAM])
    other = await Place().open()
    remembering = Checkpoints(other.streams, "g")
    remembering._known = place.known._known
    assert await remembering.start_of(STREAM) == FIRST_ID


async def test_what_the_server_has_forgotten_is_still_known_here() -> None:
    """Looking at what it has, which is nothing, or is lower, takes nothing away."""
    place = await Place().open()
    ids = await place.add(2)
    await place.take(ack=2)
    await place.known.save([STREAM])
    await place.streams.destroy_group(STREAM, "g")
    await place.known.load([STREAM])
    await place.known.save([STREAM])
    assert await place.known.start_of(STREAM) == ids[1]
