"""A client's wish becomes a filter, or is refused with a reason."""

from __future__ import annotations

import json
import time

import pytest

from hyperbus.errors import InvalidSettingError
from hyperbus.sinks.event_filter import MAX_ITEMS, EventFilter


@pytest.mark.parametrize(
    ("target", "event_type", "workflow_id", "wanted"),
    [
        ("/", "a.b", None, True),
        ("/?types=", "a.b", None, True),
        ("/?types=workflow.*,audit.completed", "workflow.started", None, True),
        ("/?types=workflow.*,audit.completed", "audit.completed", None, True),
        ("/?types=workflow.*&types=audit.completed", "audit.completed", None, True),
        ("/?types=workflow.*,audit.completed", "audit.started", None, False),
        ("/?workflow_id=wf-1", "a", "wf-1", True),
        ("/?workflow_id=wf-1&workflow_id=wf-2", "a", "wf-2", True),
        ("/?workflow_id=wf-1,wf-2", "a", "wf-2", True),
        ("/?workflow_id=wf-1", "a", "wf-3", False),
        ("/?workflow_id=wf-1", "a", None, False),
        ("/?types=b&workflow_id=wf-1", "a", "wf-1", False),
        ("/events?token=x", "a", None, True),
    ],
)
def test_a_query_string_chooses(target: str, event_type: str, workflow_id: str | None, wanted: bool) -> None:
    """Types by name or glob, workflows by id; both have to fit."""
    chosen = EventFilter.from_target(target)
    assert chosen.wants(event_type, workflow_id) is wanted
    assert chosen.wants(event_type, workflow_id) is wanted


def test_a_message_chooses() -> None:
    """One workflow may be given as a text."""
    chosen = EventFilter.from_message(b'{"types":["a.*"],"workflow_id":"wf-1"}')
    assert chosen.wants("a.b", "wf-1")
    assert not chosen.wants("a.b", "wf-2")
    assert EventFilter.from_message(b"{}").wants("x", None)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"[]",
        b'{"type":["a"]}',
        b'{"types":"a"}',
        b'{"types":[1]}',
        b'{"types":["A b"]}',
        b"\xff",
        b"[" * 4_000,
        json.dumps({"types": ["a"] * (MAX_ITEMS + 1)}).encode(),
        json.dumps({"workflow_id": ["a"] * (MAX_ITEMS + 1)}).encode(),
        json.dumps({"types": ["a" * 201]}).encode(),
        json.dumps({"types": ["*a*a*a*a*"]}).encode(),
    ],
)
def test_a_bad_message_is_refused(message: bytes) -> None:
    """With an error of ours, whatever it was."""
    with pytest.raises(InvalidSettingError):
        EventFilter.from_message(message)


def test_the_worst_glob_is_quick() -> None:
    """A client cannot buy much of the event loop's time with a clever pattern."""
    chosen = EventFilter(["*a*a*a*b"] * MAX_ITEMS + [])
    began = time.process_time()
    assert not chosen.wants("a" * 200, None)
    assert time.process_time() - began < 1
