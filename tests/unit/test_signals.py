"""The announcer: every listener hears, whatever another one does."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from hyperbus.signals import Acknowledged, Announcer, Signal

SIGNAL = Acknowledged(group="g", count=1)


def test_every_listener_hears_every_signal_in_order() -> None:
    """Those given at the start, and those added later."""
    heard: list[tuple[str, Signal]] = []
    announcer = Announcer([lambda signal: heard.append(("first", signal))])
    announcer.add(lambda signal: heard.append(("second", signal)))
    announcer.announce(SIGNAL)
    assert heard == [("first", SIGNAL), ("second", SIGNAL)]


def test_a_removed_listener_hears_no_more() -> None:
    """The others do."""
    gone: list[Signal] = []
    kept: list[Signal] = []
    hear = gone.append
    announcer = Announcer([hear, kept.append])
    announcer.remove(hear)
    announcer.announce(SIGNAL)
    assert (gone, kept) == ([], [SIGNAL])


def test_a_listener_that_raises_harms_nobody_and_is_called_again() -> None:
    """It is logged, each time."""
    calls: list[Signal] = []
    heard: list[Signal] = []

    def failing(signal: Signal) -> None:
        calls.append(signal)
        raise ValueError("broken listener")

    with capture_logs() as logs:
        announcer = Announcer([failing, heard.append])
        announcer.announce(SIGNAL)
        announcer.announce(SIGNAL)
    assert calls == heard == [SIGNAL, SIGNAL]
    assert [(line["event"], line["log_level"]) for line in logs] == [("listener failed", "error")] * 2
    assert "broken listener" in logs[0]["error"]
    assert "failing" in logs[0]["listener"]


def test_a_listener_may_remove_itself_while_it_is_told() -> None:
    """Nobody after it is left out."""
    heard: list[Signal] = []
    announcer = Announcer()

    def once(signal: Signal) -> None:
        announcer.remove(once)

    announcer.add(once)
    announcer.add(heard.append)
    announcer.announce(SIGNAL)
    announcer.announce(SIGNAL)
    assert heard == [SIGNAL, SIGNAL]


def test_what_ends_the_process_is_not_swallowed() -> None:
    """Only errors are a listener's own affair."""

    def interrupted(signal: Signal) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Announcer([interrupted]).announce(SIGNAL)


def test_the_caller_s_list_of_listeners_is_left_alone() -> None:
    """It may be shared with another bus."""
    listeners = [lambda signal: None]
    Announcer(listeners).add(lambda signal: None)
    assert len(listeners) == 1
