"""What runs in the background is begun again when it fails, and that is told."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from hyperbus import background
from hyperbus.background import BackgroundTasks, keep_running
from hyperbus.signals import Announcer, BackgroundChanged
from tests.recorder import Recorder, eventually


class Failing:
    """Fails so often, then goes on."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.begun = 0

    async def run(self) -> None:
        self.begun += 1
        if self.left:
            self.left -= 1
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(background, "STEADY", 0.02)


async def test_work_that_fails_is_begun_again_and_both_are_told() -> None:
    """Each failure once, and once that it is over."""
    recorder, work = Recorder(), Failing(2)
    tasks = BackgroundTasks(announcer=Announcer([recorder]))
    with capture_logs() as lines:
        tasks.start(work.run, "finder")
        await recorder.wait_for(lambda heard: heard and heard[-1].running)
        await tasks.stop()
    assert [signal.running for signal in recorder.of(BackgroundChanged)] == [False, False, True]
    assert "invalid start byte" in recorder.of(BackgroundChanged)[0].error
    assert [line["log_level"] for line in lines] == ["error", "error", "info"]
    assert all(line["part"] == "finder" for line in lines)


async def test_work_that_goes_on_failing_rests_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing spins, and no log is flooded; the pause has an end."""
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.004)
    work = Failing(6)
    with capture_logs() as lines:
        tasks = BackgroundTasks()
        tasks.start(work.run, "x")
        await eventually(lambda: work.begun == 7)
        await tasks.stop()
    pauses = [line["pause"] for line in lines if line["log_level"] == "error"]
    assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004, 0.004]


async def test_work_that_fails_again_before_it_has_run_for_long_is_not_told_of_as_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rests between two failures may be longer than what counts as steady: in them nothing runs."""
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.06)
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.06)
    recorder, work = Recorder(), Failing(3)
    tasks = BackgroundTasks(announcer=Announcer([recorder]))
    with capture_logs():
        tasks.start(work.run, "finder")
        await recorder.wait_for(lambda heard: heard and heard[-1].running and work.begun == 4)
        await tasks.stop()
    assert [signal.running for signal in recorder.of(BackgroundChanged)] == [False, False, False, True]


async def test_what_has_run_steadily_rests_briefly_when_it_fails_anew() -> None:
    """A failure now and then is no failure that goes on: its pause begins at the shortest."""
    recorder, begun = Recorder(), list[int]()

    async def fails_now_and_then() -> None:
        begun.append(len(begun))
        if len(begun) == 4:
            await recorder.wait_for(lambda heard: heard and heard[-1].running)
        if len(begun) < 6:
            raise ValueError
        await asyncio.Event().wait()

    tasks = BackgroundTasks(announcer=Announcer([recorder]))
    with capture_logs() as lines:
        tasks.start(fails_now_and_then, "finder")
        await eventually(lambda: len(begun) == 6)
        await tasks.stop()
    assert [line["pause"] for line in lines if line["log_level"] == "error"] == [0.001, 0.002, 0.004, 0.001, 0.002]


async def test_work_that_returns_is_done_and_one_that_is_stopped_ends() -> None:
    """In the order in which they depend on each other: the last one first."""
    ended: list[str] = []

    async def runs(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def returns() -> None:
        return

    await keep_running(returns, "short")
    tasks = BackgroundTasks()
    for name in ("one", "two"):
        tasks.start(lambda name=name: runs(name), name)  # type: ignore[misc]
    await asyncio.sleep(0)
    await tasks.stop()
    await tasks.stop()
    assert ended == ["two", "one"]
