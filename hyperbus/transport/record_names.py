"""The names of all records, relative to the prefix, and of the notices. Two spellings would be two records.

Nobody else spells one. docs/redis-keys.md says what each holds, and until when.
"""

from __future__ import annotations

import re

#: The sorted set of streams that hyperbus has published into, by the time that each was first seen.
STREAM_DIRECTORY = "streams"
#: The sorted set of every group on every stream, by the time that it was first seen; see `directory_member`.
GROUP_DIRECTORY = "groups"
#: The lease of the process that cuts streams.
RETENTION_LEASE = "retention"
#: The kind of the notice that a publisher gives of a stream that it is the first to publish into.
STREAM_BORN = b"stream"
#: The kind of the notice that streams have come to an end, and are about to be removed.
STREAM_ENDED = b"ended"

#: Notices that are kept; nobody reads an old one.
KEPT_NOTICES = 1_000

_MEMBER = re.compile(r"\{([^{}]*)\}:(.*)", re.DOTALL)


def notices_key(prefix: str) -> str:
    """Return the key of the stream of notices. It is no record, and its key is whole: it is read like any stream."""
    return f"hyperbus:{prefix}:notices"


def heartbeat(consumer: str) -> str:
    """Return the name of the record that says that a consumer's worker lives."""
    return f"worker:{consumer}"


def left(consumer: str) -> str:
    """Return the name of the record that says that a consumer's worker left in good order."""
    return f"left:{consumer}"


def group_start(group: str) -> str:
    """Return the name of the record that says when a group with `start_from="new"` was first declared."""
    return f"group:{group}"


def lease(name: str) -> str:
    """Return the name of the record that says who holds the lease of this name."""
    return f"lease:{name}"


def sweep_lease(group: str) -> str:
    """Return the name of the lease, to be given to `Lease`, of the worker that looks for a group's dead workers."""
    return f"sweep:{group}"


def losses_lease(group: str) -> str:
    """Return the name of the lease, to be given to `Lease`, of the worker that looks for what a group lost unread."""
    return f"losses:{group}"


def lost(stream: str, group: str) -> str:
    """Return the name of the record that says how many entries a group is known to have lost unread."""
    return f"lost:{directory_member(stream, group)}"


def retention_policy(event_type: str) -> str:
    """Return the name of the record that holds the retention that a class declares for a type."""
    return f"retention:{event_type}"


def served(stream: str, group: str) -> str:
    """Return the name of the record that says that a group holds a stream."""
    return f"served:{directory_member(stream, group)}"


def directory_member(stream: str, group: str) -> str:
    """Return how a group on a stream is spelled in the directory of groups."""
    return f"{{{stream}}}:{group}"


def read_member(member: str) -> tuple[str, str] | None:
    """Return the stream and the group of a member of the directory of groups; None for anything else."""
    match = _MEMBER.fullmatch(member)
    return None if match is None else (match[1], match[2])
