"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip."""

from hyperbus.publisher.appender import STREAM_DIRECTORY
from hyperbus.publisher.lane import BATCH
from hyperbus.publisher.local_handlers import LocalHandler, LocalHandlers
from hyperbus.publisher.publisher import Publisher

__all__ = ["BATCH", "STREAM_DIRECTORY", "LocalHandler", "LocalHandlers", "Publisher"]
