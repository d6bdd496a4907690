"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip."""

from hyperbus.publisher.local_handlers import LocalHandler, LocalHandlers
from hyperbus.publisher.publisher import Publisher
from hyperbus.publisher.send_queue import BATCH
from hyperbus.transport.record_names import STREAM_DIRECTORY

__all__ = ["BATCH", "STREAM_DIRECTORY", "LocalHandler", "LocalHandlers", "Publisher"]
