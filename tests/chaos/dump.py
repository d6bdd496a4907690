"""What a server holds of the streams at the end, by raw commands: groups, pending, parked, dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

#: What a dead letter's story ends with, after the fields of the original entry.
_STORY = ("@id", "@reason", "@error", "@message")
#: Entries that are pending, up to an id; as a script, since the client has its own idea of what XPENDING answers.
_PENDING = "return redis.call('XPENDING', KEYS[1], ARGV[1], '-', ARGV[2], ARGV[3])"
#: Entries that may be waiting where a mark is made; more are a backlog.
MOST_WAITING = 100
Command = Callable[..., Any]


def dump(command: Command, streams: list[str], groups: list[str]) -> dict[str, Any]:
    """Return, for each stream that is or should be there, what the checker wants to know."""
    return {"streams": {stream: _stream(command, stream, groups) for stream in streams}}


def is_quiet(command: Command, streams: list[str], groups: list[str]) -> bool:
    """Tell whether everything is read and done: nothing pending, unread or parked, and every group there."""
    for stream in streams:
        there = _groups(command, stream)
        if not there:
            if command("EXISTS", stream):
                return False
            continue
        last = _text_keys(command("XINFO", "STREAM", stream))["last-generated-id"]
        for name in groups:
            group = there.get(name)
            if (
                group is None
                or group["pending"]
                or group["last-delivered-id"] != last
                or _parked(command, stream, name)
            ):
                return False
    return True


def last_ids(command: Command, streams: list[str]) -> dict[str, str]:
    """Return the highest id of each stream that is there."""
    there = [stream for stream in streams if command("EXISTS", stream)]
    return {name: _text_keys(command("XINFO", "STREAM", name))["last-generated-id"].decode() for name in there}


def waiting(command: Command, ids: dict[str, str], groups: list[str]) -> list[str] | None:
    """Return what is pending or parked in each stream up to an id, as "stream entry"; None: not all is read yet."""
    found: list[str] = []
    for stream, last in ids.items():
        there = _groups(command, stream)
        for name in groups:
            if name not in there or _number(there[name]["last-delivered-id"].decode()) < _number(last):
                return None
            pending = [one[0] for one in command("EVAL", _PENDING, 1, stream, name, last, MOST_WAITING)]
            parked = command("ZRANGE", f"{{{stream}}}:parked_due:{name}", 0, -1)
            found += [f"{stream} {entry.decode()}" for entry in (*pending, *parked)]
    return found


def letters(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return the dead letters of a dump, each with its stream and group."""
    return [
        {**letter, "stream": stream, "group": group["name"]}
        for stream, about in found["streams"].items()
        for group in about["groups"]
        for letter in group["dead"]
    ]


def _number(entry_id: str) -> tuple[int, int]:
    time, _, sequence = entry_id.partition("-")
    return int(time), int(sequence)


def _stream(command: Command, stream: str, groups: list[str]) -> dict[str, Any]:
    there = _groups(command, stream)
    length = command("XLEN", stream)
    return {"length": length, "groups": [_group(command, stream, name, there.get(name)) for name in groups]}


def _group(command: Command, stream: str, name: str, info: dict[str, Any] | None) -> dict[str, Any]:
    about: dict[str, Any] = {"name": name, "missing": info is None, "pending": 0, "unread": 0}
    about["parked"] = _parked(command, stream, name)
    about["dead"] = [_letter(words) for _, words in _entries(command, f"{{{stream}}}:dead:{name}")]
    if info is not None:
        last = info["last-delivered-id"].decode()
        about["pending"] = info["pending"]
        about["unread"] = len(command("XRANGE", stream, f"({last}", "+", "COUNT", 1_000))
        if info["pending"]:
            about["details"] = repr(command("EVAL", _PENDING, 1, stream, name, "+", 5))
    return about


def _groups(command: Command, stream: str) -> dict[str, dict[str, Any]]:
    if not command("EXISTS", stream):
        return {}
    groups = [_text_keys(group) for group in command("XINFO", "GROUPS", stream)]
    return {group["name"].decode(): group for group in groups}


def _text_keys(found: dict[Any, Any]) -> dict[str, Any]:
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}


def _parked(command: Command, stream: str, group: str) -> int:
    count: int = command("ZCARD", f"{{{stream}}}:parked_due:{group}")
    return count


def _entries(command: Command, stream: str) -> list[tuple[str, dict[str, str]]]:
    found = command("XRANGE", stream, "-", "+") or []
    return [
        (entry.decode(), {k.decode("latin-1"): v.decode("latin-1") for k, v in fields.items()})
        for entry, fields in found
    ]


def _letter(words: dict[str, str]) -> dict[str, str]:
    try:
        event_id = str(json.loads(words.get("data", ""))["id"])
    except (ValueError, KeyError, TypeError):
        event_id = ""
    entry, reason, error, message = (words.get(name, "") for name in _STORY)
    return {"id": event_id, "entry": entry, "reason": reason, "message": f"{error} {message}"[:300]}
