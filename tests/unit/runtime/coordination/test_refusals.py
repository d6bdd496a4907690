"""What the server refuses to a part: how often that is asked again, and told."""

from __future__ import annotations

from hyperbus import BusUnavailable
from hyperbus.errors import ServerError
from hyperbus.runtime.coordination.refusals import FIRST_PAUSE, LONGEST_PAUSE, Refusals
from hyperbus.signals import Announcer, RefusalChanged
from tests.recorder import Recorder


def test_what_is_refused_anew_is_asked_again_as_soon_as_at_first() -> None:
    """Pauses grow to a bound while it goes on, and no refusal long ago makes the next one wait."""
    refusals = Refusals(Announcer(), "acks of g")
    for _ in range(2):
        pauses = [refusals.failed(ServerError("no")) for _ in range(8)]
        assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
        assert pauses[-2:] == [LONGEST_PAUSE] * 2
        refusals.succeeded()
    for _ in range(2):  # an outage, too
        assert refusals.failed(BusUnavailable("away")) == FIRST_PAUSE
        refusals.succeeded()


def test_a_refusal_and_its_end_are_told_once_each_time() -> None:
    """An outage is none; a refusal after one is."""
    recorder = Recorder()
    refusals = Refusals(Announcer([recorder]), "acks of g")
    for _ in range(2):
        refusals.succeeded()
        refusals.failed(BusUnavailable("away"))
        for _ in range(3):
            refusals.failed(ServerError("no"))
        refusals.succeeded()
        refusals.succeeded()
    assert [signal.refused for signal in recorder.of(RefusalChanged)] == [True, False, True, False]
