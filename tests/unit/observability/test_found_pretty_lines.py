"""What people and programs read in the log: order, words, numbers, and nothing that drives a terminal. (New names.)"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from hyperbus.errors import InvalidSettingError
from hyperbus.log_values import visible
from hyperbus.observability.logs import _Handler, configure_logs
from hyperbus.observability.signal_log import SignalLog
from hyperbus.signals import DeliveryFailed, WorkerChanged


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_COLOR", "1")
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)


def log_of(form: Any, *signals: Any, stream: io.StringIO | None = None) -> str:
    target = Terminal() if stream is None else stream
    configure_logs("info", form, stream=target)
    listen = SignalLog()
    for signal in signals:
        listen(signal)
    listen.close()
    return target.getvalue()


def failed(error: BaseException, **values: Any) -> DeliveryFailed:
    told: dict[str, Any] = {
        "consumer": "bill", "group": "billing", "stream": "events:order.placed", "entry_id": "1-0",
        "event_type": "order.placed", "event_id": "e-1", "workflow_id": "wf-1", "tries": 2, "most_tries": 8,
        "cause": "raised", "after": 0.09511632732388282, "dead_lettered": False, "error": error,
    }  # fmt: skip
    return DeliveryFailed(**told | values)


def test_a_failure_is_one_line_that_is_read_from_left_to_right() -> None:
    """What, who, why, when again, and then the ids; numbers as people say them."""
    line = log_of("pretty", failed(ValueError("no such network"))).splitlines()[0]
    words = ("will be tried again", "consumer=bill", "no such network", "tries=2", "after=0.1 s", "type=", "event_id=")
    places = [line.index(word) for word in words]
    assert places == sorted(places)


def test_a_worker_and_its_consumer_are_called_so() -> None:
    """And the event is a sentence."""
    line = log_of("pretty", WorkerChanged("billing", "host-1-abc", "started", "bill"))
    assert "worker started" in line
    assert "consumer=bill" in line
    assert "worker=host-1-abc" in line
    assert line.count("\n") == 1


def test_json_stays_for_machines() -> None:
    """Numbers are numbers; what every line has comes first."""
    line = json.loads(log_of("json", failed(ValueError("no"))))
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["after"], line["tries"]) == (0.0951, 2)


def test_logfmt_is_one_line_of_words() -> None:
    """Tracebacks too."""
    try:
        raise ValueError('said "no"')  # noqa: TRY301 - a traceback is wanted
    except ValueError as error:
        text = log_of("logfmt", failed(error))
    assert text.count("\n") == 1
    assert text.startswith("timestamp=")
    assert 'error="ValueError: said \\"no\\""' in text
    assert "Traceback" in text


@pytest.mark.parametrize("form", ["pretty", "json", "logfmt"])
def test_a_form_is_taken_whatever_the_stream_is(form: Any) -> None:
    """It was chosen."""
    on_terminal = log_of(form, WorkerChanged("g", "w", "started", "c"))
    elsewhere = log_of(form, WorkerChanged("g", "w", "started", "c"), stream=io.StringIO())
    assert on_terminal.startswith("{") is elsewhere.startswith("{") is (form == "json")


def test_an_unknown_form_is_refused() -> None:
    """The error lists the forms."""
    form: Any = "xml"
    with pytest.raises(InvalidSettingError, match="pretty, json, logfmt"):
        configure_logs("info", form)


@pytest.mark.parametrize("form", ["pretty", "logfmt", "json"])
@pytest.mark.parametrize("odd", ["\u202e", "\u2066", "\u200b", "\x1b", "\r", "\x9b", "\u2028", "\U000e0041"], ids=ascii)
def test_what_nobody_sees_is_shown(form: Any, odd: str) -> None:
    """In values, in the event, in tracebacks, and in lines of other libraries."""
    stream = Terminal()
    configure_logs("info", form, stream=stream)
    structlog.get_logger("t").warning(f"an{odd}event", value=f"a{odd}b", **{f"k{odd}": 1})
    logging.getLogger("lib").warning("a%slibrary", odd)
    try:
        raise ValueError(f"x{odd}y")  # noqa: TRY301 - a traceback is wanted
    except ValueError:
        logging.getLogger("lib").warning("failed", exc_info=True)
    text = stream.getvalue()
    assert odd not in text
    assert text.count("a") > 5


def test_a_lone_surrogate_does_not_cost_the_line() -> None:
    """No stream can write it as it is."""
    assert visible("a\ud800b") == "a\\ud800b"


def test_a_secret_is_taken_out_before_a_value_is_cut() -> None:
    """Half a password is not found by who looks for a whole one."""
    for length in range(1_960, 2_010, 7):
        text = log_of("json", failed(ValueError("x" * length + " redis://app:hunter2hunter2@host/0")))
        assert "hunter" not in text
    stream = io.StringIO()
    configure_logs("info", "json", stream=stream)
    structlog.get_logger("t").info(
        "a line",
        url="redis://app:20/hunter2!@h:1/0",
        login="redis://hunter2@h",
        values={"api_key": "hunter2", "password": "hunter2"},
        query="/?a=1&password=hunter2",
        padded="y" * 1_990 + " password=hunter2",
    )
    assert "hunter" not in stream.getvalue()
