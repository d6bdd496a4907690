"""The name of every key that a transport makes from another one. Pure; the only place that spells them."""

from __future__ import annotations


def dead_letter_key(stream: str, group: str) -> str:
    """Return the stream of a group's dead letters; the braces keep it in the slot of `stream`."""
    return f"{{{stream}}}:dead:{group}"


def checkpoint_key(stream: str, group: str) -> str:
    """Return the key of the id up to which a group had acked everything."""
    return f"{{{stream}}}:checkpoint:{group}"


def once_key(stream: str, event_id: str) -> str:
    """Return the key that remembers that an event was appended, and as which entry."""
    return f"{{{stream}}}:once:{event_id}"


def retries_key(stream: str, group: str) -> str:
    """Return the key of when a group's pending entries are to be tried again."""
    return f"{{{stream}}}:retries:{group}"


def suspects_key(stream: str, group: str) -> str:
    """Return the key of how often entries were begun alone, to find out which one kills its worker."""
    return f"{{{stream}}}:suspects:{group}"


def deaths_key(stream: str, group: str) -> str:
    """Return the key of how often pending entries were claimed from workers that had died."""
    return f"{{{stream}}}:deaths:{group}"


def parked_key(stream: str, group: str) -> str:
    """Return the key of a group's parked entries, with their bytes."""
    return f"{{{stream}}}:parked:{group}"


def parked_due_key(stream: str, group: str) -> str:
    """Return the key of when each parked entry can be taken."""
    return f"{{{stream}}}:parked_due:{group}"


def record_key(prefix: str, name: str) -> str:
    """Return the key of a record."""
    return f"hyperbus:{prefix}:{name}"
