"""The way out: from a stream to a handler to an ack. The parts meet only in `worker.py`."""
