"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip."""

from hyperbus.publisher.limits import PublishLimits
from hyperbus.publisher.local_handlers import LocalHandler, LocalHandlers
from hyperbus.publisher.publisher import Publisher
from hyperbus.publisher.send_queue import BATCH

__all__ = ["BATCH", "LocalHandler", "LocalHandlers", "PublishLimits", "Publisher"]
