"""A consumer of the demo that stumbles: it raises once, over one event, and handles it at the next try."""

from __future__ import annotations

from hyperbus.cli.demo.events import AuditCompleted
from hyperbus.declaration.consumer import consumer
from hyperbus.declaration.delivery import Delivery
from hyperbus.event.envelope import Event


@consumer(group="demo_reviewers")
async def review(event: Event[AuditCompleted], delivery: Delivery) -> None:
    """Review an audit; the first look at the hard one goes wrong."""
    if event.data.hard and delivery.tries == 1:
        raise RuntimeError("the hard one: looking again")
