"""Appends that wait, where the connection breaks between them and the wait; and whose WAITAOF can be trusted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus.errors import BusUnavailable, DurabilityUnsupported, NotDurable, PublishUncertain
from hyperbus.transport import Durability
from hyperbus.transports.redis.connection.live import NoAnswerError
from hyperbus.transports.redis.durability import DurableAppends, check_durability
from hyperbus.transports.redis.protocol.server_facts import facts_of

ONE = Durability(replicas=1)


class FakeConnection:
    """Answers each call with what it is told to."""

    def __init__(self, *answers: list[Any] | Exception) -> None:
        self._answers = list(answers)
        self.written: list[bytes] = []

    def write(self, packed: bytes, count: int, timeout: float) -> asyncio.Future[list[Any]]:
        self.written.append(packed)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


class FakeReconnecting:
    """Hands out connections, the last of them for ever."""

    command_timeout = 5.0
    place = "redis://here"

    def __init__(self, *live: FakeConnection) -> None:
        self._live = list(live)

    async def ready(self, same: FakeConnection | None = None) -> FakeConnection:
        connection = self._live.pop(0) if len(self._live) > 1 else self._live[0]
        if same not in (None, connection):
            raise BusUnavailable("broke before the command was sent")
        return connection


def appends(*live: FakeConnection) -> DurableAppends:
    return DurableAppends(FakeReconnecting(*live))  # type: ignore[arg-type]


async def test_a_wait_on_another_connection_proves_nothing() -> None:
    """It would be answered at once by every replica; so it is not asked, and what came before is not durable."""
    first, second = FakeConnection([b"1-1"]), FakeConnection([3])
    [result] = await appends(first, first, second).append([(b"XADD", 1)], ONE)
    assert isinstance(result, NotDurable)
    assert result.entry_id == "1-1"
    assert second.written == []


async def test_pieces_do_not_follow_over_another_connection() -> None:
    """What was sent is not durable, the rest was not sent."""
    first, second = FakeConnection([b"1-1", b"1-2"]), FakeConnection()
    results = await appends(first, first, second).append([(b"XADD", 2), (b"XADD", 1)], ONE)
    assert [type(result) for result in results] == [NotDurable, NotDurable, BusUnavailable]
    assert second.written == []


async def test_a_wait_without_an_answer_leaves_stored_entries_not_durable() -> None:
    """Their ids are known, how safe they are is not."""
    connection = FakeConnection([b"1-1"], NoAnswerError("gone", []))
    [result] = await appends(connection).append([(b"XADD", 1)], ONE)
    assert isinstance(result, NotDurable)
    assert "gone" in str(result)


async def test_appends_without_an_answer_are_uncertain() -> None:
    """Those whose answer came are stored."""
    connection = FakeConnection(NoAnswerError("gone", [b"1-1"]), NoAnswerError("gone", []))
    results = await appends(connection).append([(b"XADDXADD", 2)], ONE)
    assert [type(result) for result in results] == [NotDurable, PublishUncertain]


async def test_both_levels_must_be_reached() -> None:
    """Replicas and the disk are asked one after the other, with the time in milliseconds."""
    both = Durability(replicas=2, disk=True, timeout=1.5)
    connection = FakeConnection([b"1-1"], [2, [1, 0]], [b"1-2"], [2, [0, 0]], [b"1-3"], [1, [1, 0]])
    queue = appends(connection)
    reached, no_disk, no_replica = [(await queue.append([(b"XADD", 1)], both))[0] for _ in range(3)]
    assert reached == "1-1"
    assert "not on the disk" in str(no_disk)
    assert "only 1 of 2" in str(no_replica)
    assert connection.written[1].split() == b"*3 $4 WAIT $1 2 $4 1500 *4 $7 WAITAOF $1 1 $1 0 $4 1500".split()


def info(version: str, *, valkey: bool = False, aof: int = 1) -> bytes:
    name = (
        f"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{version}"
        if valkey
        else f"redis_version:{version}"
    )
    return f"# Server\r\n{name}\r\n# Persistence\r\naof_enabled:{aof}\r\n".encode()


@pytest.mark.parametrize(
    ("told", "fsync", "trusted"),
    [
        (info("7.4.3"), "everysec", True),
        (info("8.0.0"), "always", True),
        (info("7.4.2"), "always", False),
        (info("7.0.15"), "always", False),
        (info("8.0.0", aof=0), "always", False),
        (info("9.1.2", valkey=True), "always", True),
        (info("9.1.2", valkey=True), "everysec", False),
        (info("9.1.2", valkey=True, aof=0), "always", False),
        (info("9.1.2", valkey=True), None, False),
    ],
)
def test_the_disk_is_trusted_by_make_version_and_settings(told: bytes, fsync: str | None, trusted: bool) -> None:
    """Where the server does not tell, it is not trusted."""
    facts = facts_of(told, [] if fsync is None else [b"appendfsync", fsync.encode()])
    if trusted:
        check_durability(Durability(disk=True), facts, "redis://here")
    else:
        with pytest.raises(DurabilityUnsupported, match="redis://here"):
            check_durability(Durability(disk=True), facts, "redis://here")
    check_durability(Durability(replicas=1), facts, "redis://here")
