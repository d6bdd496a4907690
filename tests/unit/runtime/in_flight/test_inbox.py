"""What a worker holds: in which order it is handed out, who is woken, and that room comes back."""

from __future__ import annotations

import asyncio

from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received


def entries(*numbers: int, alone: int = 0, size: int = 10) -> list[Received]:
    return [Received("s", "t", b"%d-0" % n, [b"data", b"x"], size, 0.0, alone=n == alone) for n in numbers]


def numbers(items: list[Received]) -> list[int]:
    return [int(item.id.partition(b"-")[0]) for item in items]


def test_what_lies_behind_an_entry_that_is_to_be_alone_keeps_its_order() -> None:
    """It ends what is taken together, and comes next by itself."""
    inbox = Inbox(100, 100_000)
    inbox.put("s", entries(1, 2, 3, 4, 5, 6, alone=3))
    assert numbers(inbox.take_more(6)) == [1, 2]
    assert inbox.take_more(6) == []
    alone = inbox.take()
    assert alone is not None
    assert numbers([alone]) == [3]
    assert numbers(inbox.take_more(6)) == [4, 5, 6]


def test_room_comes_back_with_what_is_released() -> None:
    """By count and by bytes, whatever was released twice or never held."""
    inbox = Inbox(100, 1_000)
    for first in range(0, 100, 10):
        held = entries(*range(first, first + 10), size=100)
        inbox.put("s", held)
        assert inbox.room() == 0
        inbox.take_more(10)
        inbox.release("s", [item.id for item in held[:5]])
        inbox.release("s", [item.id for item in held] + [b"7777-0"])
        inbox.release("elsewhere", [held[0].id])
        assert inbox.held == 0
        assert inbox.room() > 0


async def test_a_call_for_somebody_who_left_is_passed_on() -> None:
    """Two wait and are called; those leave before they hear of it, and the third takes what is there."""
    inbox = Inbox(100, 100_000)
    waiting = [asyncio.create_task(inbox.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    inbox.put("s", entries(1))
    for task in waiting[:2]:
        task.cancel()
    await asyncio.wait_for(waiting[2], 10)
    assert all(task.cancelled() for task in waiting[:2])


async def test_closing_wakes_whoever_waits() -> None:
    """For entries, and for room; nothing is handed out any more."""
    inbox = Inbox(2, 100_000)
    for_entries = [asyncio.create_task(inbox.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    inbox.put("s", entries(1, 2))
    for_room = [asyncio.create_task(inbox.wait_for_room()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in for_room)
    assert numbers(inbox.close()) == [1, 2]
    assert await asyncio.wait_for(asyncio.gather(*for_room), 10) == [0, 0]
    await asyncio.wait_for(asyncio.gather(*for_entries), 10)
    assert (inbox.take(), inbox.take_more(5)) == (None, [])
