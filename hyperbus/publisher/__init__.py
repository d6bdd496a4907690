"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip."""

from hyperbus.publisher.calls import PublishCalls
from hyperbus.publisher.limits import PublishLimits
from hyperbus.publisher.local_handlers import LocalHandler
from hyperbus.publisher.publication import Publication
from hyperbus.publisher.publisher import Publisher
from hyperbus.publisher.send_queue import BATCH

__all__ = ["BATCH", "LocalHandler", "Publication", "PublishCalls", "PublishLimits", "Publisher"]
