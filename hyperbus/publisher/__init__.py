"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip."""

from hyperbus.publisher.calls import EventPublication, ManyPublication, PublishCalls
from hyperbus.publisher.limits import PublishLimits
from hyperbus.publisher.local_handlers import LocalHandler
from hyperbus.publisher.publisher import Publisher
from hyperbus.publisher.send_queue import BATCH

__all__ = ["BATCH", "EventPublication", "LocalHandler", "ManyPublication", "PublishCalls", "PublishLimits", "Publisher"]
