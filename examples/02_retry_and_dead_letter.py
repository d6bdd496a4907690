"""A handler that fails is tried again, with backoff; one that says Reject makes the entry a dead letter at once."""

from __future__ import annotations

import asyncio

from hyperbus import Backoff, Bus, Delivery, Event, EventData, Reject, Retry, consumer


class Payment(EventData, type="payment.due"):
    """Money is owed."""

    account: str


paid = asyncio.Event()


@consumer(group="payments", retry=Backoff(initial=0.05, tries=5))
async def pay(event: Event[Payment], delivery: Delivery) -> None:
    """Pay; the bank is away at first, and one account does not exist."""
    if event.data.account == "nobody":
        raise Reject("no such account")
    if delivery.tries == 1:
        raise ConnectionError("the bank is away")  # any error: the policy says when it is tried again
    if delivery.tries == 2:  # noqa: PLR2004
        raise Retry(after=0.1)  # or the handler says it
    print(f"paid {event.data.account} at try {delivery.tries}")
    paid.set()


async def main() -> None:
    """Publish one of each, and look at the dead letters in the end."""
    async with Bus("memory://") as bus, bus.running(pay):
        await bus.publish_many([Payment(account="nobody"), Payment(account="anna")])
        await paid.wait()
        for _, letter in await bus.transport.streams.dead_letters("events:payment.due", "payments"):
            print(f"dead letter: {letter.reason}: {letter.message}")


asyncio.run(main())
