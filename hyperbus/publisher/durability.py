"""What `durability=` may say, and what it asks of a transport. Pure."""

from __future__ import annotations

import re

from hyperbus.clock import Seconds
from hyperbus.errors import InvalidSettingError
from hyperbus.transport import Durability

_REPLICAS = re.compile(r"replica:([1-9][0-9]{0,2})", re.ASCII)


def read_durability(text: str, timeout: Seconds) -> Durability:
    """Return what `text` asks for, to be waited for `timeout` seconds at most.

    Raises:
        InvalidSettingError: it asks for nothing that there is.
    """
    if text == "disk":
        return Durability(disk=True, timeout=timeout)
    replicas = _REPLICAS.fullmatch(text)
    if replicas is None:
        raise InvalidSettingError(
            f'durability={text!r} has to be "disk" or "replica:N", such as "replica:1", for N from 1 to 999'
        )
    return Durability(replicas=int(replicas[1]), timeout=timeout)
