"""Ends a worker process that lost its supervisor and does not drain, by a thread: a handler may block the event loop.

It never ends a process whose supervisor lives: that one has means of its own.
"""

from __future__ import annotations

import os
import select
import threading
import time

from hyperbus.clock import Seconds
from hyperbus.errors import DrainTimeoutError
from hyperbus.logger import get_logger

#: What an orphan gets beyond its drain time.
GRACE: Seconds = 2.0


def end_without_supervisor(descriptor: int, drain_timeout: Seconds) -> None:
    """End this process a while after the other end of a descriptor was closed, unless it has ended until then.

    Else its heartbeat would go on, and nobody would ever be given what it holds.
    """

    def wait_and_end() -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        time.sleep(drain_timeout + GRACE)
        log = get_logger("hyperbus.supervisor")
        log.error("the supervisor is gone, and this process did not drain in time: it ends")
        os._exit(DrainTimeoutError.exit_code)

    threading.Thread(target=wait_and_end, name="hyperbus orphan", daemon=True).start()
