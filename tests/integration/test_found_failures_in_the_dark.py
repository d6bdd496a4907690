"""A handler that fails is told of, with its traceback, wherever its consumer runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, Running, environment, wait_for, write_modules
from tests.programs import HEAD, RunningProgram, run_program

pytestmark = pytest.mark.one_server

#: Runs `failing` until it was called `CALLS` times with one event.
RUN = """
async def main():
    async with Bus("memory://") as bus:
        {on_publish}
        async with bus.running(failing):
            await asyncio.sleep(0)
            await bus.publish(Started(), workflow_id="wf-77")
            await asyncio.wait_for(called.wait(), 20)

called = asyncio.Event()
CALLS = 2
def count():
    global CALLS
    CALLS -= 1
    if CALLS <= 0:
        called.set()

{declared}

asyncio.run(main())
"""


def program(declared: str, on_publish: str = "pass") -> str:
    return RUN.format(declared=declared, on_publish=on_publish)


TYPO = """
@consumer(group="billing", retry=Backoff(initial=0, tries=2))
async def failing(event: Event[Started]) -> None:
    count()
    print(event.data.contrakt)
"""


def test_the_example_of_the_readme_with_a_typo_shows_its_traceback(tmp_path: Path) -> None:
    """It waits for ever for an event that cannot be handled; so it has to say why."""
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    broken = example.replace("embedded://.hyperbus", "memory://").replace("event.data.contract", "event.data.contrakt")
    assert broken != example
    with RunningProgram(tmp_path, broken, head="") as running:
        said = running.wait_until_it_says("AttributeError", "contrakt", "program.py", "in bill", "billing", "wf-1")
    assert "hyperbus/runtime" not in said, "what lies between is of no use"


def test_a_bare_program_is_told_on_stderr(tmp_path: Path) -> None:
    """Which event it was, which try, and what becomes of it; nothing goes to stdout."""
    ended = run_program(tmp_path, program(TYPO))
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.count("Traceback") == 1, "the second try fails in the same place"
    first, *_, last = [line for line in ended.err.splitlines() if "handler failed" in line]
    for line in (first, last):
        for words in ("AttributeError", "workflow.started", "wf-77", "billing", "event_id=", "most_tries=2"):
            assert words in line
    assert "will be tried again" in first
    assert "dead letter" in last
    assert ("tries=1" in first, "tries=2" in last) == (True, True)


def test_the_logging_that_a_program_set_up_is_used(tmp_path: Path) -> None:
    """Its handlers, its format, and the exception itself for those that report it elsewhere."""
    setup = """
import logging
class Kept(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.name, record.getMessage(), record.exc_info and record.exc_info[0].__name__)
logging.basicConfig(level="INFO", handlers=[Kept()])
"""
    ended = run_program(tmp_path, setup + program(TYPO))
    told = [line for line in ended.out.splitlines() if "handler failed" in line]
    assert [line.split()[0] for line in told] == ["WARNING", "ERROR"]
    assert told[0].endswith("AttributeError")
    assert ended.err == ""


def test_structlog_is_used_where_a_program_has_configured_it(tmp_path: Path) -> None:
    """Values stay values."""
    setup = """
import structlog
structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info,
                                structlog.processors.JSONRenderer()])
"""
    ended = run_program(tmp_path, setup + program(TYPO))
    told = [json.loads(line) for line in ended.out.splitlines()]
    (first, last) = [line for line in told if "handler failed" in line["event"]]
    assert (first["type"], first["workflow_id"], first["tries"], first["most_tries"]) == (
        "workflow.started",
        "wf-77",
        1,
        2,
    )
    assert isinstance(first["after"], int | float)
    assert "AttributeError" in first["exception"]
    assert "dead letter" in last["event"]
    assert ended.err == ""


def test_pytest_shows_it_with_the_test_that_fails(tmp_path: Path) -> None:
    """As a captured log, or on stderr."""
    (tmp_path / "test_it.py").write_text(
        HEAD
        + TYPO.replace("count()", "done.set()")
        + """
done = asyncio.Event()

def test_it():
    async def main():
        async with Bus("memory://") as bus, bus.running(failing):
            await bus.publish(Started())
            await asyncio.wait_for(done.wait(), 10)
        raise AssertionError("as tests do")
    asyncio.run(main())
"""
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"], cwd=tmp_path,
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "contrakt" in ended.stdout.split("Captured log")[1]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (
            "@consumer(retry=Backoff(initial=0, tries=2))\ndef failing(event: Event[Started]):\n    count()\n    1 / 0",
            ["ZeroDivisionError", "in failing", "dead letter"],
        ),
        (
            (
                "@consumer(retry=Backoff(initial=0, tries=2))\nasync def failing(events: list[Event[Started]]):\n"
                "    count()\n    1 / 0"
            ),
            ["ZeroDivisionError", "in failing", "wf-77"],
        ),
        (
            (
                "@consumer(retry=Backoff(initial=0, tries=2))\nasync def failing(events: list[Event[Started]]):\n"
                "    count()\n    return [ValueError('of this one')]"
            ),
            ["ValueError: of this one", "wf-77"],
        ),
        (
            (
                "async def layer(event, delivery, call_next):\n    count()\n    raise KeyError('layer')\n"
                "@consumer(middleware=[layer], retry=Backoff(initial=0, tries=2))\n"
                "async def failing(event: Event[Started]): ..."
            ),
            ["KeyError", "in layer"],
        ),
        (
            (
                "def key(event):\n    count()\n    raise KeyError('key')\n"
                "@consumer(order_by=key, retry=Backoff(initial=0, tries=2))\nasync def failing(event: Event[Started]): ..."
            ),
            ["KeyError", "in key", "wf-77"],
        ),
        (
            "@consumer(audience='every_process')\nasync def failing(event: Event[Started]):\n    called.set()\n    1 / 0",
            ["ZeroDivisionError", "not tried again", "in failing", "wf-77"],
        ),
        (
            "@consumer(ack='received')\nasync def failing(event: Event[Started]):\n    called.set()\n    1 / 0",
            ["ZeroDivisionError", "not tried again", "in failing", "wf-77"],
        ),
        (
            "@consumer()\nasync def failing(event: Event[Started]):\n    called.set()\n    raise Reject('no such network')",
            ["no such network", "dead letter", "wf-77"],
        ),
        (
            (
                "@consumer(retry=Backoff(initial=0, tries=2))\nasync def failing(event: Event[Started]):\n    count()\n"
                "    raise Retry(after=0)"
            ),
            ["another try", "will be tried again", "dead letter"],
        ),
        (
            (
                "@consumer(timeout=0.05, retry=Backoff(initial=0, tries=2))\nasync def failing(event: Event[Started]):\n"
                "    count()\n    await asyncio.sleep(60)"
            ),
            ["TimeoutError", "in failing"],
        ),
    ],
    ids=[
        "plain",
        "batch",
        "outcomes",
        "middleware",
        "order_by",
        "every_process",
        "received",
        "reject",
        "retry",
        "timeout",
    ],
)
def test_every_way_to_fail_is_told(tmp_path: Path, declared: str, words: list[str]) -> None:
    """Whoever calls the code: a traceback from the user's own frame on, and which event it was."""
    ended = run_program(tmp_path, program(declared))
    assert ended.code == 0, ended.err
    assert [word for word in words if word not in ended.err] == [], ended.err


def test_a_local_handler_that_fails_is_told_of(tmp_path: Path) -> None:
    """With its traceback; the event is stored all the same."""
    declared = """
def shows(event):
    called.set()
    1 / 0

@consumer()
async def failing(event: Event[Started]): ...
"""
    ended = run_program(tmp_path, program(declared, "bus.on_publish('*', shows)"))
    for word in ("ZeroDivisionError", "in shows", "wf-77", "workflow.started"):
        assert word in ended.err


def test_an_event_that_cannot_be_read_is_told_of_in_a_loop(tmp_path: Path) -> None:
    """`bus.consume` has no handler that fails, and drops it from the loop."""
    ended = run_program(
        tmp_path,
        """
async def main():
    async with Bus("memory://") as bus:
        await bus.publish(Event(type="workflow.started", data={"contract": "ERC20"}))
        await bus.publish(Event(type="workflow.started", data={"contract": 5}))
        class Wrong(EventData, type="workflow.started"):  # a consumer's, which the publisher does not know
            contract: int
        async for event in bus.consume(Wrong, group="live_view"):
            break

asyncio.run(main())
""",
        head=HEAD.split("class Started")[0],
    )
    assert ended.code == 0, ended.err
    for word in ("cannot be read", "live_view", "contract", "dead letter"):
        assert word in ended.err


def test_an_event_that_cannot_be_read_is_told_of_in_the_history(tmp_path: Path) -> None:
    """`bus.read` leaves it out; which entry it was, and why, is told."""
    ended = run_program(
        tmp_path,
        """
async def main():
    async with Bus("memory://") as bus:
        print(await bus.publish(Event(type="workflow.started", data={"contract": "ERC20"})))
        await bus.publish(Event(type="workflow.started", data={"contract": 5}))
        class Wrong(EventData, type="workflow.started"):  # a consumer's, which the publisher does not know
            contract: int
        async for event in bus.read(Wrong):
            break

asyncio.run(main())
""",
        head=HEAD.split("class Started")[0],
    )
    assert ended.code == 0, ended.err
    for word in ("cannot be read", "left out", "contract", ended.out.strip()):
        assert word in ended.err


def test_an_exception_that_cannot_be_printed_is_told_of(tmp_path: Path) -> None:
    """Neither its text nor its traceback can be had; its name and the event can."""
    declared = """
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")
    __repr__ = __str__

@consumer(retry=Backoff(initial=0, tries=2))
async def failing(event: Event[Started]):
    count()
    raise Mute
"""
    ended = run_program(tmp_path, program(declared))
    assert ended.code == 0, ended.err
    assert "Mute" in ended.err
    assert "wf-77" in ended.err


def test_ten_thousand_failures_are_a_few_lines_and_their_count(tmp_path: Path) -> None:
    """One traceback, less than twenty lines a second, and nothing that is not counted."""
    ended = run_program(
        tmp_path,
        """
import time

calls = 0
done = asyncio.Event()

@consumer(concurrency=100, retry=Backoff(initial=0, jitter=0, tries=2))
async def failing(event: Event[Started]):
    global calls
    calls += 1
    if calls == 10_000:
        done.set()
    raise ValueError("as always")

async def main():
    async with Bus("memory://") as bus, bus.running(failing):
        await bus.publish_many([Started()] * 5_000)
        started = time.monotonic()
        await asyncio.wait_for(done.wait(), 60)
        print(time.monotonic() - started)

asyncio.run(main())
""",
    )
    lines = ended.err.splitlines()
    assert "Traceback" in ended.err
    assert len(lines) < 20 * (float(ended.out) + 1), ended.err[:4000]
    counted = sum(int(re.search(r"count=(\d+)", line)[1]) for line in lines if "more failures" in line)  # type: ignore[index]
    assert counted + sum("handler failed" in line for line in lines) == 10_000


def test_another_failure_is_not_hidden_by_a_flood(tmp_path: Path) -> None:
    """Each kind is shown with a traceback of its own."""
    ended = run_program(
        tmp_path,
        """
calls = 0
done = asyncio.Event()

@consumer(concurrency=10, retry=Backoff(initial=0, tries=1))
async def failing(event: Event[Started]):
    global calls
    calls += 1
    if calls == 2_000:
        done.set()
    if calls == 1_500:
        raise KeyError("the odd one")
    raise ValueError("as always")

async def main():
    async with Bus("memory://") as bus, bus.running(failing):
        await bus.publish_many([Started()] * 2_000)
        await asyncio.wait_for(done.wait(), 60)

asyncio.run(main())
""",
    )
    assert "KeyError: 'the odd one'" in ended.err


def test_under_hyperbus_run_the_traceback_is_in_the_log(tmp_path: Path) -> None:
    """File and line, event id, type, workflow, group, which try of how many, and when the next one comes."""
    write_modules(
        tmp_path,
        shop="""
from hyperbus import Backoff, Consumer, Event, consumer

@consumer(group="billing", types=["order.placed"], retry=Backoff(initial=0.01, tries=2))
class Bill(Consumer):
    async def handle(self, event: Event) -> None:
        print(event.data["amont"])
""",
    )
    url = f"embedded://{tmp_path / 'server'}"
    variables = {"HYPERBUS_URL": url, "HYPERBUS_HTTP_PORT": "0"}
    with Running("run", "shop", folder=tmp_path, variables=variables) as running:
        running.wait_until_ready()
        sent = subprocess.run(
            [sys.executable, "-m", "hyperbus", "publish", "order.placed", '{"amount": 1}', "--workflow-id", "wf-5"],
            cwd=tmp_path, env=environment(**variables), check=True, capture_output=True, text=True,
        )  # fmt: skip

        def told() -> list[dict[str, object]]:
            lines = [json.loads(line) for line in running.err.splitlines() if line.startswith("{")]
            return [line for line in lines if line.get("workflow_id") == "wf-5"]

        wait_for(lambda: len(told()) >= 2, lambda: running.err)
        first, last = told()[:2]
        assert running.stop() == 0
    trace = str(first["exception"])
    assert "shop.py" in trace
    assert "KeyError: 'amont'" in trace
    assert "hyperbus/runtime" not in trace
    assert (first["level"], first["type"], first["group"], first["tries"], first["most_tries"]) == (
        "warning", "order.placed", "billing", 1, 2,
    )  # fmt: skip
    assert first["entry_id"] == sent.stdout.strip()
    assert first["event_id"]
    assert (last["level"], last["tries"]) == ("error", 2)
