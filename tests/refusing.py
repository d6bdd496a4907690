"""Servers that refuse: each way in which one may, for as long as a test wants, and a login of the workers' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import redis

from hyperbus.signals import ConnectionChanged
from tests.chaos.proxy import Proxy
from tests.recorder import Recorder
from tests.servers import Server
from tests.symptoms import command

#: How the workers log in; the test itself stays the default user, which may do everything.
USER, PASSWORD = "worker", "secret"


@dataclass
class Refusing:
    """A server of the test's own, and the proxy through which workers reach it."""

    server: Server
    proxy: Proxy

    @property
    def url(self) -> str:
        """Where workers find it."""
        return f"redis://{USER}:{PASSWORD}@127.0.0.1:{self.proxy.port}/0"

    async def command(self, *words: str | int) -> object:
        """Send a command as an operator."""
        return await command(self.server, *words)

    async def rights(self, *rules: str) -> None:
        """Change what workers may do."""
        await self.command("ACL", "SETUSER", USER, *rules)

    async def cut_workers(self) -> None:
        """Cut every connection but the test's own."""
        await self.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def asked(self) -> int:
        """Return how many commands it was sent, those that it refused included."""
        stats = await self.command("INFO", "commandstats")
        assert isinstance(stats, dict)
        return sum(line["calls"] + line.get("rejected_calls", 0) for line in stats.values())


@asynccontextmanager
async def refusing(binary: str) -> AsyncGenerator[Refusing]:
    """Start a server that can be made to refuse."""
    with Server(binary, arguments=("--dbfilename", "taken", "--busy-reply-threshold", "50")) as server:
        (server.folder / "taken").mkdir()  # where its snapshots cannot be put
        async with Proxy(server.port) as proxy:
            here = Refusing(server, proxy)
            await here.rights("on", f">{PASSWORD}", "~*", "&*", "+@all")
            yield here


# -- ways to refuse


@asynccontextmanager
async def _no_rights(here: Refusing) -> AsyncIterator[None]:
    await here.rights("-@all")
    yield
    await here.rights("+@all")


@asynccontextmanager
async def _other_password(here: Refusing) -> AsyncIterator[None]:
    await here.rights("resetpass", ">other")
    await here.cut_workers()
    yield
    await here.rights(f">{PASSWORD}")


@asynccontextmanager
async def _cannot_save(here: Refusing) -> AsyncIterator[None]:
    await here.command("CONFIG", "SET", "save", "3600 1")
    await here.command("BGSAVE")
    with suppress(redis.ResponseError):
        while await here.command("SET", "probe", 1):
            await asyncio.sleep(0.01)
    yield
    await here.command("CONFIG", "SET", "save", "")


@asynccontextmanager
async def _out_of_memory(here: Refusing) -> AsyncIterator[None]:
    await here.command("CONFIG", "SET", "maxmemory", 1)
    yield
    await here.command("CONFIG", "SET", "maxmemory", 0)


@asynccontextmanager
async def _busy(here: Refusing) -> AsyncIterator[None]:
    def run() -> None:
        with redis.Redis(port=here.server.port) as client, suppress(redis.ResponseError):
            client.eval("while true do end", 0)

    script = asyncio.create_task(asyncio.to_thread(run))
    await asyncio.sleep(0.1)
    yield
    with suppress(redis.ResponseError):
        await here.command("SCRIPT", "KILL")
    await script


@asynccontextmanager
async def _loading(here: Refusing) -> AsyncIterator[None]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(b"-LOADING the dataset is read\r\n" * max(1, piece.count(b"*")))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as loading:
        here.proxy.target = loading.sockets[0].getsockname()[1]
        here.proxy.cut()
        yield
        here.proxy.target = here.server.port
        here.proxy.cut()


@asynccontextmanager
async def _read_only(here: Refusing) -> AsyncIterator[None]:
    await here.command("REPLICAOF", "127.0.0.1", 1)
    yield
    await here.command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def _too_many_clients(here: Refusing) -> AsyncIterator[None]:
    await here.command("CONFIG", "SET", "maxclients", 1)
    await here.cut_workers()
    yield
    await here.command("CONFIG", "SET", "maxclients", 1000)


#: By what the server says.
WAYS: dict[str, Callable[[Refusing], AbstractAsyncContextManager[None]]] = {
    "NOPERM": _no_rights,
    "WRONGPASS": _other_password,
    "MISCONF": _cannot_save,
    "OOM": _out_of_memory,
    "BUSY": _busy,
    "LOADING": _loading,
    "READONLY": _read_only,
    "max number of clients": _too_many_clients,
}


# -- what was told


def told_refusals(recorder: Recorder) -> list[tuple[str, str]]:
    """Return of what was refused, or lost, since it began: which part, and why."""
    found: list[tuple[str, str]] = []
    for signal in recorder.signals:
        refused = type(signal).__name__ == "RefusalChanged" and getattr(signal, "refused", False)
        if refused or (isinstance(signal, ConnectionChanged) and not signal.connected):
            found.append((getattr(signal, "part", ""), getattr(signal, "error", "")))
    return found
