"""What a server says about itself in INFO and CONFIG. Pure: no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperbus.transports.redis.protocol.replies import Refusal


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server's make, version, and how it uses its disk; `appendfsync` is "" where it does not tell."""

    is_valkey: bool
    version: str
    numbers: tuple[int, ...]
    appendonly: bool = False
    appendfsync: str = ""


def lines_of(info: bytes) -> dict[str, str]:
    """Read a reply to INFO."""
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def facts_of(info: bytes, appendfsync: Any = ()) -> ServerFacts:
    """Read the replies to INFO server persistence and CONFIG GET appendfsync."""
    facts = lines_of(info)
    # Valkey also claims to be a Redis 7.2, whatever its own version.
    is_valkey = "valkey_version" in facts or facts.get("server_name") == "valkey"
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    told = [] if type(appendfsync) is Refusal else list(appendfsync)
    return ServerFacts(
        is_valkey=is_valkey,
        version=version,
        numbers=tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")),
        appendonly=facts.get("aof_enabled") == "1",
        appendfsync=told[1].decode() if len(told) > 1 else "",
    )
