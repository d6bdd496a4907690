"""hyperbus: a Redis Streams event bus. These are the public names."""

from hyperbus.bus import Bus
from hyperbus.declaration.consumer import Consumer, consumer
from hyperbus.declaration.delivery import Delivery
from hyperbus.declaration.middleware import Middleware
from hyperbus.declaration.outcome import Reject, Retry
from hyperbus.declaration.retry_policy import Backoff
from hyperbus.errors import BusUnavailable, HyperbusError, PublishFailed, PublishUncertain
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event
from hyperbus.event.retention import Keep
from hyperbus.sync_publisher import SyncPublisher

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Bus",
    "BusUnavailable",
    "Consumer",
    "Delivery",
    "Event",
    "EventData",
    "HyperbusError",
    "Keep",
    "Middleware",
    "PublishFailed",
    "PublishUncertain",
    "Reject",
    "Retry",
    "SyncPublisher",
    "consumer",
]
