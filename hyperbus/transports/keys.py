"""The name of every key that a transport makes from another one. Pure; the only place that spells them."""

from __future__ import annotations


def dead_letter_key(stream: str, group: str) -> str:
    """Return the stream of a group's dead letters; the braces keep it in the slot of `stream`."""
    return f"{{{stream}}}:dead:{group}"


def record_key(prefix: str, name: str) -> str:
    """Return the key of a record."""
    return f"hyperbus:{prefix}:{name}"
