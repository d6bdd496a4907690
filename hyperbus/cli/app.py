"""The commands and their options. Each is a few lines: the work is done below."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Annotated

import typer

from hyperbus.errors import HyperbusError
from hyperbus.settings import load_settings

app = typer.Typer(
    name="hyperbus",
    help="A Redis Streams event bus: publish typed events, run supervised consumers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # which takes "[default: ...]" for a style
)

Url = Annotated[str | None, typer.Option(help="Where the bus is. [default: $HYPERBUS_URL, else embedded://.hyperbus]")]
Prefix = Annotated[str | None, typer.Option(help="The part of every stream key before the first colon.")]
HttpPort = Annotated[int | None, typer.Option(help="Port of /metrics, /healthz, /readyz; 0 takes a free one.")]
WebsocketPort = Annotated[int | None, typer.Option(help="Port for WebSocket clients; 0 takes a free one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


class UsageError(HyperbusError):
    """The command line itself cannot be understood."""

    exit_code = 2


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code.

    Raises:
        HyperbusError: it failed; the message says why.
    """
    try:
        code = app(arguments or ["--help"], prog_name="hyperbus", standalone_mode=False)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None  # the parser ends with 1 for it
        return ended.code if isinstance(ended.code, int) else 1
    except typer.Abort:
        return 130
    except ExceptionGroup as group:
        if group.subgroup(BrokenPipeError) is None:
            raise
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output") from None
    except Exception as error:
        wrong = _usage_error(error)
        if wrong is None:
            raise
        raise wrong from None
    return code if isinstance(code, int) else 0


def _usage_error(error: Exception) -> UsageError | None:
    """Return what the parser has to say, in one line; it would draw a box. None if it was not the parser."""
    tell = getattr(error, "format_message", None)  # its classes have no public home that all versions share
    if tell is None:
        return None
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "hyperbus")
    return UsageError(f"{str(tell()).strip().rstrip('.')}; see {command} --help")


@app.callback(invoke_without_command=True)
def show_version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Answer --version."""
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            print(f"hyperbus {version_of('hyperbus')}")
        except PackageNotFoundError:
            print("hyperbus (from its source tree, not installed)")
        raise typer.Exit


@app.command("run")
def run_consumers(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE", help="Modules that declare consumers; a package means all of it.")
    ],
    processes: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    url: Url = None,
    prefix: Prefix = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. [default: 127.0.0.1]")] = None,
    http_port: HttpPort = None,
    websocket_port: WebsocketPort = None,
    drain_timeout: Annotated[float | None, typer.Option(help="Seconds that handlers get to finish at the end.")] = None,
    max_rss: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Replace a process that holds more memory, such as 512MB.")
    ] = None,
    max_deliveries: Annotated[int | None, typer.Option(help="Replace a process that had so many deliveries.")] = None,
    max_handler_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Kill a process in which a handler runs for longer.")
    ] = None,
    source_agent: Annotated[
        str | None, typer.Option(help="Who publishes what handlers publish. [default: the first module's package]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="pretty, json or logfmt. [default: pretty on a terminal, else json]")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Replace them when a source file changes.")] = False,
) -> None:
    """Supervise the consumers that MODULES declare, until SIGTERM or Ctrl-C; SIGHUP replaces processes one by one."""
    from hyperbus.cli.running import supervise

    settings = load_settings(
        {
            "url": url,
            "prefix": prefix,
            "host": host,
            "http_port": http_port,
            "websocket_port": websocket_port,
            "drain_timeout": drain_timeout,
            "max_rss": max_rss,
            "max_deliveries": max_deliveries,
            "max_handler_seconds": max_handler_seconds,
            "source_agent": source_agent,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    asyncio.run(supervise(modules, settings, processes=processes, reload=reload))


@app.command()
def publish(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as workflow.started.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The event's data, an object; - reads standard input.")],
    url: Url = None,
    prefix: Prefix = None,
    workflow_id: Annotated[str | None, typer.Option(help="The workflow that the event belongs to.")] = None,
    source_agent: Annotated[
        str | None, typer.Option(help="Who publishes it. [default: $HYPERBUS_SOURCE_AGENT, else cli]")
    ] = None,
    module: Annotated[str | None, typer.Option(help="A module that declares the type: the data is checked.")] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="The event's id. [default: a new one]")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Add nothing if this --id was published lately; try until sure.")
    ] = False,
    durability: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Wait until it is that safe: replica:N (N replicas have it) or disk."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish one event; print its entry id."""
    from hyperbus.cli.publishing import publish_once

    settings = load_settings({"url": url, "prefix": prefix})
    entry_id = asyncio.run(
        publish_once(
            event_type,
            data,
            settings,
            workflow_id=workflow_id,
            source_agent=source_agent or settings.source_agent or "cli",
            module=module,
            event_id=event_id,
            once=once,
            durability=durability,
        )
    )
    print(f'{{"entry_id":"{entry_id}"}}' if as_json else entry_id)


@app.command()
def tail(
    patterns: Annotated[list[str], typer.Argument(metavar="GLOB", help="Event types, such as 'workflow.*'.")],
    url: Url = None,
    prefix: Prefix = None,
    history: Annotated[bool, typer.Option("--history", help="Begin with the first entry that is kept.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
) -> None:
    """Print events as they come, one JSON object a line. No group, no acks."""
    from hyperbus.cli.publishing import print_events

    settings = load_settings({"url": url, "prefix": prefix})
    asyncio.run(print_events(patterns, settings, history=history, count=count))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Make a new project: events, consumers, a test."""
    from hyperbus.cli.init import make_project

    for line in make_project(folder):
        print(line)


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="End after this long. [default: at Ctrl-C]")] = None,
    rate: Annotated[float, typer.Option(min=1, max=20_000, help="Events a second.")] = 600,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    url: Annotated[str | None, typer.Option(help="A server to use. [default: an embedded one]")] = None,
    only_producer: Annotated[
        bool, typer.Option("--only-producer", help="Only publish; consumers run elsewhere")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole thing live: agents publish, consumers write, count, log and broadcast."""
    from hyperbus.cli.demo.demo import Demo, only_produce

    if only_producer:
        asyncio.run(only_produce(load_settings({"url": url}), seconds=seconds, rate=rate))
        return
    demo_ = Demo(url=url, seconds=seconds, rate=rate, processes=processes, as_json=as_json)
    asyncio.run(demo_.run())
