"""Publish an event; two groups handle it, each on its own."""

from __future__ import annotations

import asyncio

from hyperbus import Bus, Event, EventData, consumer


class OrderPlaced(EventData, type="order.placed"):
    """A customer ordered something."""

    order: str
    amount: float


handled: asyncio.Queue[str] = asyncio.Queue()


@consumer(group="billing")
async def bill(event: Event[OrderPlaced]) -> None:
    """Take the money."""
    await handled.put(f"billing: {event.data.amount:.2f} for {event.data.order}")


@consumer(group="shipping")
async def ship(event: Event[OrderPlaced]) -> None:
    """Send the parcel."""
    await handled.put(f"shipping: {event.data.order}")


async def main() -> None:
    """Run both groups beside the publisher; memory:// needs no server."""
    async with Bus("memory://", source_agent="shop") as bus, bus.running(bill, ship):
        entry_id = await bus.publish(OrderPlaced(order="A-1", amount=9.5), workflow_id="order-A-1")
        print("stored as", entry_id)
        for _ in range(2):
            print(await handled.get())


asyncio.run(main())
