"""`hyperbus run`: a supervisor on a terminal or under an init system."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from hyperbus.background import keep_running
from hyperbus.errors import MissingExtraError
from hyperbus.logger import get_logger
from hyperbus.observability.logs import configure_logs
from hyperbus.observability.standard_streams import guard_standard_streams
from hyperbus.settings import Settings
from hyperbus.supervisor.supervisor import Supervisor, run_until_signalled


async def supervise(modules: Sequence[str], settings: Settings, *, processes: int, reload: bool) -> None:
    """Supervise until signalled.

    Raises:
        HyperbusError: what the supervisor could not do.
        MissingExtraError: `reload` needs an extra that is not installed.
    """
    if reload:
        _check_reload()
    if not settings.source_agent:
        settings = msgspec.structs.replace(settings, source_agent=modules[0].partition(".")[0])
    configure_logs(settings.log_level, settings.log_format)
    guard_standard_streams()
    folder = Path.cwd()
    supervisor = Supervisor(modules, settings, processes=processes, folder=folder)
    if settings.url is None:
        get_logger("hyperbus").warning(
            "no url given: using an embedded server; set HYPERBUS_URL to choose",
            folder=str(folder / ".hyperbus"),
        )
    watching = (
        asyncio.create_task(keep_running(partial(_watch, supervisor, folder), "file watcher")) if reload else None
    )
    try:
        await run_until_signalled(supervisor)
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))
    if watching is not None and not watching.cancelled():
        watching.result()


async def _watch(supervisor: Supervisor, folder: Path) -> None:
    """Reload the processes when a Python file under `folder` changes."""
    from watchfiles import PythonFilter, awatch

    async for _ in awatch(folder, watch_filter=PythonFilter()):
        supervisor.reload()


def _check_reload() -> None:
    try:
        import watchfiles  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        raise MissingExtraError("--reload needs watchfiles: pip install 'hyperbus[reload]'") from None
