"""Any event as JSON, for those who only look: clients, terminals, tables. Total: what has no form in JSON gets one."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from hyperbus.event.envelope import Event

#: Levels of nesting that are shown, and characters of what has no form at all.
_DEEPEST = 100
_LONGEST = 2_000

_ENVELOPE = tuple(name for name in Event.__struct_fields__ if name != "data")
_plain_encode = msgspec.json.Encoder().encode
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def shown(event: Event[Any], body: bytes) -> bytes:
    """Return an event as a JSON object in UTF-8: the bytes of its entry if they are that, unknown fields and all.

    Readers of events skip what they do not know, and do not notice there that it is no UTF-8.
    """
    if body.startswith(b"{") and (body.isascii() or _is_utf8(body)):
        return body
    return json_text(event)


def json_text(event: Event[Any]) -> bytes:
    """Return an event as a JSON object in UTF-8, whatever its data holds.

    Bytes are written in base64. A MessagePack extension is an object of its `code` and its `data`, keys that are no
    strings are written as strings, and what else JSON cannot say is its `repr`.
    """
    try:
        return _plain_encode(event)
    except _UNENCODABLE:
        envelope = {name: _plain(value, 0) for name in _ENVELOPE if (value := getattr(event, name)) is not None}
        return _plain_encode({**envelope, "data": _plain(event.data, 0)})


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, msgspec.msgpack.Ext):
        return {"code": value.code, "data": value.data}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {shown_as: _plain(getattr(value, name), depth + 1) for shown_as, name in names}
    try:
        _plain_encode(value)
    except _UNENCODABLE:
        return _text(repr(value)[:_LONGEST])
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _text(key)
    return _text((key.decode(errors="replace") if isinstance(key, bytes) else repr(key))[:_LONGEST])


def _text(text: str) -> str:
    """UTF-8 has no lone surrogates."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
