"""Entries as any other program would write them, the evil ones too."""

from __future__ import annotations

import json
from typing import Any

#: Appends an entry, and has a consumer of a group, if there is such a group, read all that is new in the same step.
PUBLISH = """
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 100, 'STREAMS', KEYS[1], '>')
return id
"""


def written(envelope: dict[str, Any], poison: str) -> list[str | bytes]:
    """Return the fields of an entry; of one that cannot be read, as its poison says."""
    if poison == "type":
        envelope = {**envelope, "type": "elsewhere.paid"}
    body = json.dumps(envelope)
    if poison == "garbage":
        return ["data", body[:-1]]
    if poison == "bytes":
        return ["data", body.encode().replace(b'"data": {', b'"data": {"note": "\xff", ')]
    return ["data", body]
