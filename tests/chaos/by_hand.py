"""Entries as any other program would write them, the evil ones too."""

from __future__ import annotations

import json
from typing import Any

#: Appends an entry, and has a consumer of a group read all that is new in the same step; of an ordered group only that
#: entry: what others take of it out of turn has no order. Returns the id, and whether that consumer has it.
PUBLISH = """
local is_behind = true
for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', KEYS[1])) do
    if group[2] == ARGV[1] then
        local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
        is_behind = last ~= nil and last[1] ~= group[8]
    end
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
if ARGV[3] == 'ordered' and is_behind then return {id, 0} end
local read = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 100, 'STREAMS', KEYS[1], '>')
return {id, type(read) == 'table' and read.err == nil and 1 or 0}
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
    if poison == "fields":
        return [word for number in range(5_000) for word in (f"field{number}", "x")]
    return ["data", body]
