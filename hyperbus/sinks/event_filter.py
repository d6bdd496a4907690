"""What a WebSocket client wants to see: event types by name or glob, and workflows. Every part is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import msgspec

from hyperbus.errors import HyperbusError, InvalidSettingError
from hyperbus.event.routing import TypeFilter

#: A filter may have this many types and this many workflows.
MAX_ITEMS = 100
_MAX_LENGTH = 200
#: Matching takes time that grows with each star, and a client must not be able to buy much of it.
_MAX_STARS = 4
#: Types whose answer is remembered.
_MAX_REMEMBERED = 1_000


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    types: list[str] = msgspec.field(default_factory=list)
    workflow_id: list[str] | str = msgspec.field(default_factory=list)


_decoder = msgspec.json.Decoder(_Wanted)


class EventFilter:
    """Tells which events a client wants. No types means all, no workflows means all.

    Raises:
        InvalidSettingError: it is too large, or a type is not one.
    """

    def __init__(self, types: Sequence[str] = (), workflow_ids: Sequence[str] = ()) -> None:
        if len(types) > MAX_ITEMS or len(workflow_ids) > MAX_ITEMS:
            raise InvalidSettingError(f"a filter has at most {MAX_ITEMS} types and {MAX_ITEMS} workflow_ids")
        if any(len(item) > _MAX_LENGTH for item in (*types, *workflow_ids)):
            raise InvalidSettingError(f"a type or a workflow_id has at most {_MAX_LENGTH} characters")
        if any(item.count("*") > _MAX_STARS for item in types):
            raise InvalidSettingError(f"a glob has at most {_MAX_STARS} stars")
        try:
            self._types = TypeFilter(types) if types else None
        except HyperbusError as error:
            raise InvalidSettingError(str(error)) from error
        self._workflow_ids = frozenset(workflow_ids)
        self._remembered: dict[str, bool] = {}

    @classmethod
    def from_target(cls, target: str) -> EventFilter:
        """Read a request target such as `/?types=workflow.*,audit.completed&workflow_id=wf-1`."""
        try:
            query = parse_qs(urlsplit(target).query, max_num_fields=2 * MAX_ITEMS)
        except ValueError as error:
            raise InvalidSettingError(f"the query string cannot be read: {error}") from error
        types = [name for value in query.get("types", ()) for name in value.split(",") if name]
        workflow_ids = [name for value in query.get("workflow_id", ()) for name in value.split(",") if name]
        return cls(types, workflow_ids)

    @classmethod
    def from_message(cls, message: bytes) -> EventFilter:
        """Read a client's message: `{"types": [...], "workflow_id": [...]}`."""
        try:
            wanted = _decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidSettingError(f'send {{"types":[...],"workflow_id":[...]}}: {error}') from error
        workflow_ids = [wanted.workflow_id] if isinstance(wanted.workflow_id, str) else wanted.workflow_id
        return cls(wanted.types, workflow_ids)

    def wants(self, event_type: str, workflow_id: str | None) -> bool:
        """Tell whether an event of this type and workflow is wanted."""
        if self._workflow_ids and workflow_id not in self._workflow_ids:
            return False
        if self._types is None:
            return True
        known = self._remembered.get(event_type)
        if known is None:
            known = self._types.matches(event_type)
            if len(self._remembered) < _MAX_REMEMBERED and len(event_type) <= _MAX_LENGTH:
                self._remembered[event_type] = known
        return known
