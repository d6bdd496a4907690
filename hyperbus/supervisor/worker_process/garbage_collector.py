"""How often a worker process looks for garbage."""

from __future__ import annotations

import gc


def calm_collector() -> None:
    """Let the garbage collector look less often, and never at what was there at the start.

    By default it runs each 700 objects, and now and then through all of them: modules, classes, compiled patterns.
    Reading and decoding make objects much faster than that, and hardly a cycle. Measured on the consume path: 13 % (one
    handler), 16 % (64 at once), 19 % (batches) more events in a second of processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
