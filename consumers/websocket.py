"""Shows every event to WebSocket clients, live: ws://127.0.0.1:8765/?types=workflow.*&workflow_id=wf-1."""

from __future__ import annotations

from hyperbus import Consumer, Delivery, Event, consumer
from hyperbus.sinks.websocket import WebSocketBroadcaster


@consumer(group="websocket", types=["*"], audience="every_process", batch=500)
class WebSocketServer(Consumer):
    """Every process serves its own clients, so every process sees every event."""

    def __init__(self, broadcaster: WebSocketBroadcaster | None = None) -> None:
        self.broadcaster = broadcaster or WebSocketBroadcaster.from_settings()

    async def start(self) -> None:
        """Begin to listen."""
        await self.broadcaster.start()

    async def handle(self, events: list[Event], deliveries: list[Delivery]) -> None:
        """Queue the events for the clients that want them."""
        for event, delivery in zip(events, deliveries, strict=True):
            self.broadcaster.broadcast_event(event, delivery.body)

    async def stop(self) -> None:
        """Say goodbye to the clients."""
        await self.broadcaster.stop()
