"""Log lines suit their reader, stay bounded, keep secrets, and no signal floods them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from hyperbus.errors import InvalidSettingError
from hyperbus.observability.logs import MAX_VALUE_LENGTH, _Handler, configure_logs
from hyperbus.observability.signal_log import SignalLog
from hyperbus.signals import (
    Acknowledged,
    Claimed,
    ConnectionChanged,
    EntryDeadLettered,
    Handled,
    StreamsFound,
    WorkerChanged,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class GoneReader(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)


def log() -> structlog.typing.FilteringBoundLogger:
    return structlog.get_logger("test")


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_elsewhere_than_on_a_terminal_lines_are_json() -> None:
    """Level, UTC time and values, one object a line."""
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    log().info("hello", count=3)
    log().debug("too low")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["count"]) == ("hello", "info", 3)
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_lines_for_people(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With colours, unless the user or the terminal wants none."""
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    configure_logs("info", stream=stream)
    log().info("hello", count=3)
    assert "hello" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize("json_lines", [True, False])
def test_the_standard_library_is_routed_too(json_lines: bool) -> None:
    """Its records look like ours, tracebacks included; configuring twice does not log twice."""
    stream = io.StringIO()
    configure_logs("warning", stream=stream, form="json" if json_lines else "pretty")
    configure_logs("warning", stream=stream, form="json" if json_lines else "pretty")
    try:
        raise ValueError("bad")  # noqa: TRY301 - a traceback is wanted
    except ValueError:
        logging.getLogger("lib").warning("it %s", "broke", exc_info=True)
    logging.getLogger("lib").info("too low")
    assert stream.getvalue().count("it broke") == 1
    assert stream.getvalue().count("ValueError: bad") == 1


@pytest.mark.parametrize("json_lines", [True, False])
def test_values_are_cut(json_lines: bool) -> None:
    """Neither a long text nor a long list makes a long line; a traceback keeps its end."""
    stream = io.StringIO()
    configure_logs("info", stream=stream, form="json" if json_lines else "pretty")
    log().info("x" * 5_000, text="y" * 100_000, items=list(range(100_000)))
    assert len(stream.getvalue()) < 4 * MAX_VALUE_LENGTH
    try:
        raise ValueError("z" * 5_000 + "the end")  # noqa: TRY301 - a traceback is wanted
    except ValueError:
        log().exception("failed")
    assert len(stream.getvalue()) < 6 * MAX_VALUE_LENGTH
    assert "the end" in stream.getvalue()


def test_secrets_are_left_out() -> None:
    """Passwords in URLs, tokens in query strings, and values that are called secret."""
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    log().info(
        "at redis://user:hunter2@host:1/0",
        url="postgresql://u:hunter2@h/d",
        path="/?types=a&token=hunter2",
        websocket_token="hunter2",
        more={"url": "redis://:hunter2@h"},
    )
    assert "hunter2" not in stream.getvalue()
    assert "redis://user:***@host:1/0" in stream.getvalue()


def test_a_value_cannot_forge_a_line_or_drive_the_terminal() -> None:
    """Line ends and escapes are shown, not obeyed."""
    stream = Terminal()
    configure_logs("info", "pretty", stream=stream)
    log().info("a\nb", value="c\nd", other="\x1b]0;title\x07")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b]" not in stream.getvalue()


def test_a_log_without_a_reader_ends_nothing() -> None:
    """A closed pipe is no reason to stop handling events."""
    configure_logs("info", stream=GoneReader())
    log().info("hello")
    logging.getLogger("lib").warning("hello")


def test_an_unknown_level_is_refused() -> None:
    """The error lists the levels."""
    with pytest.raises(InvalidSettingError, match="debug, info"):
        configure_logs("loud")


def claimed() -> Claimed:
    return Claimed("g", "events:a", 3, "host-1-abc")


def test_notable_signals_are_logged_and_the_rest_is_not() -> None:
    """Ordinary work makes no lines."""
    listen = SignalLog()
    with structlog.testing.capture_logs() as logged:
        for signal in (
            Handled("g", {"a": 1}, {}, {}, [0.1], [0.1]),
            Acknowledged("g", 1),
            claimed(),
            EntryDeadLettered("g", "events:a", "1-0", "rejected", "Reject", "no"),
            ConnectionChanged("reader of g", connected=False, error="refused", kind="reader"),
            ConnectionChanged("reader of g", connected=True, kind="reader"),
            StreamsFound("g", tuple(f"events:s{number}" for number in range(50))),
            WorkerChanged("g", "c-1", "started", "bill"),
        ):
            listen(signal)
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("warning", "entries of a dead worker claimed"),
        ("debug", "entry dead-lettered"),
        ("warning", "server lost"),
        ("info", "server found again"),
        ("info", "streams found"),
        ("info", "worker started"),
    ]
    lost = {"event": "server lost", "log_level": "warning", "part": "reader of g", "error": "refused"}
    assert logged[2] == lost, "what is for programs is not in it"
    assert (len(logged[4]["streams"]), logged[4]["count"]) == (10, 50)


def test_a_kind_of_signal_has_a_rate_and_what_is_left_out_is_counted() -> None:
    """A flood of one kind hides no other kind, and its size is told when the window ends."""
    clock = StillClock()
    listen = SignalLog(limit=3, window=10, clock=clock)
    with structlog.testing.capture_logs() as logged:
        for _ in range(1_000):
            listen(claimed())
        listen(ConnectionChanged("reader", connected=False, error="refused"))
        assert len(logged) == 4
        clock.time += 10
        listen(Acknowledged("g", 1))
        assert logged[4:] == [
            {
                "event": "more of the same left out",
                "signal": "Claimed",
                "count": 997,
                "log_level": "warning",
            }
        ]
        listen(claimed())
        assert len(logged) == 6


def test_closing_tells_what_was_left_out() -> None:
    """The last window's count is not lost."""
    listen = SignalLog(limit=1)
    with structlog.testing.capture_logs() as logged:
        listen(claimed())
        listen(claimed())
        listen.close()
    assert logged[-1]["count"] == 1
