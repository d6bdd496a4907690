"""What of hyperbus the suite can put to the test today: a part is on as soon as its public name exists."""

from __future__ import annotations

import importlib.util
import inspect

import hyperbus
from hyperbus.settings import Settings

_CONSUMER = frozenset(inspect.signature(hyperbus.consumer).parameters)
_PUBLISH = frozenset(inspect.signature(hyperbus.Bus.publish).parameters)
_SETTINGS = frozenset(Settings.__struct_fields__)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


#: Feature → whether it is there. What is off is neither published nor expected, and is printed at the start.
ON: dict[str, bool] = {
    # a group with order by key, and the check of that order
    "order": "order_by" in _CONSUMER and _has("hyperbus.runtime.in_flight.key_order"),
    # poison that hangs, given up by the handler's timeout
    "hang": "timeout" in _CONSUMER and _has("hyperbus.runtime.in_flight.key_order"),
    # poison that ends its process: entries begun alone are counted, and judged
    "exit": _has("hyperbus.runtime.poison.quarantine"),
    # poison that eats memory, ended by the limit of its process
    "eat": "max_rss" in _SETTINGS and _has("hyperbus.runtime.poison.quarantine"),
    # publishes that are repeated until answered, and stored once
    "once": "once" in _PUBLISH,
    # work in a database, and its mark of having been done, in one transaction
    "once_rows": _has("hyperbus.sinks.database.once"),
    # streams are cut behind the slowest group, so that memory is bounded for good
    "retention": "retain_age" in _SETTINGS and _has("hyperbus.runtime.retention.retention_loop"),
    # retries that wait long leave pending
    "parking": _has("hyperbus.runtime.outcomes.parked_entries"),
    # SIGHUP replaces the processes of a supervisor one by one
    "reload": _has("hyperbus.supervisor.slot"),
}

#: Kinds of poison → what handlers do with it; every group makes dead letters of it, and of nothing else.
POISON: dict[str, str] = {
    "raise": "raises at every try",
    "reject": "is rejected, after a while",
    "garbage": "cannot be decoded",
    "hang": "never ends",
    "exit": "ends its process",
    "eat": "eats memory",
    "exit0": "ends its process in good order",
    "sysexit": "asks for the end of its process",
    "panic": "raises what is no Exception",
    "mute": "raises what cannot be printed",
    "fields": "has 5,000 fields, none of them ours",
    "type": "names another type than its stream holds",
    "bytes": "holds bytes that are no UTF-8",
}
#: Kinds that end their process, and do so in one group only.
ENDING = ("exit", "exit0", "eat")
#: The exit code of a process that was ended so, as a crash does. No error of ours has it.
CRASH = 99


def poison_kinds() -> list[str]:
    """Return the kinds of poison that can be published today."""
    return [kind for kind in POISON if ON.get(kind, True)]


#: Groups whose handlers write effects.
GROUPS = ["plain", "batches", "threads", *(["ordered"] if ON["order"] else [])]
#: Groups that write rows → the file and the table that they write.
ROWS = {"rows": ("events.db", "workflow_updates"), "once_rows": ("once.db", "done")}
if not ON["once_rows"]:
    del ROWS["once_rows"]
EVERY_GROUP = [*GROUPS, *ROWS]
#: Groups with a handler that an event can stall.
STALLING = [group for group in GROUPS if group not in ("batches", "threads")]
#: The time and the tries that a handler has in such a group: longer than an event may stall it.
HANG_TIMEOUT = 20.0
HANG_TRIES = 2
