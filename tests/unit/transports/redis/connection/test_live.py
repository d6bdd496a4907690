"""What a connection makes of the bytes that a server sends, however they are cut."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from hyperbus.transports.redis.connection.live import Connection, NoAnswerError
from hyperbus.transports.redis.protocol.replies import Refusal


class FakeTransport:
    def __init__(self):
        self.written = []
        self.aborted = False

    def set_write_buffer_limits(self, high):
        self.high = high

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_extra_info(self, name):
        assert name == "socket"
        return SimpleNamespace(fileno=lambda: -1)

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True


def new_connection():
    transport = FakeTransport()
    return Connection(SimpleNamespace(transport=transport), "redis://here"), transport


REPLIES = b"*2\r\n$3\r\nabc\r\n*1\r\n:5\r\n-NOGROUP no such\r\n*-1\r\n$2\r\nok\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_replies_are_the_same_however_their_bytes_are_cut(size):
    """Three calls with four replies get their own ones, from pieces of any size."""
    connection, _ = new_connection()
    calls = [connection.write(b"", count, 5) for count in (1, 2, 1)]
    for start in range(0, len(REPLIES), size):
        connection.data_received(REPLIES[start : start + size])
    first, second, third = [await call for call in calls]
    assert first == [[b"abc", [5]]]
    assert isinstance(second[0], Refusal)
    assert str(second[0]) == "NOGROUP no such"
    assert second[1] is None
    assert third == [b"ok"]
    assert connection.usable


async def test_a_cancelled_call_keeps_its_place():
    """The reply of a cancelled call is thrown away, the next call gets its own."""
    connection, _ = new_connection()
    first, second = connection.write(b"", 1, 5), connection.write(b"", 1, 5)
    first.cancel()
    connection.data_received(b"$3\r\none\r\n$3\r\ntwo\r\n")
    assert await second == [b"two"]


async def test_a_lost_connection_fails_what_is_in_flight_and_keeps_the_replies_that_came():
    """A call of three replies, two of which came, fails with those two."""
    connection, _ = new_connection()
    call = connection.write(b"", 3, 5)
    connection.data_received(b"+a\r\n+b\r\n+")
    connection.connection_lost(None)
    with pytest.raises(NoAnswerError) as caught:
        await call
    assert caught.value.replies == [b"a", b"b"]
    assert not connection.usable


@pytest.mark.parametrize("data", [b"+nobody asked\r\n", b"?what\r\n"])
async def test_an_answer_that_nobody_asked_for_ends_the_connection(data):
    """It would be taken for the answer to the next call."""
    connection, transport = new_connection()
    call = connection.write(b"", 1, 5)
    connection.data_received(b"+mine\r\n" + data)
    assert await call == [b"mine"]
    assert transport.aborted
    assert not connection.usable


async def test_a_retired_connection_answers_what_is_in_flight_and_then_closes():
    """Giving a connection up loses no answer."""
    connection, transport = new_connection()
    call = connection.write(b"", 1, 5)
    connection.retire()
    assert not connection.usable
    assert not transport.aborted
    connection.data_received(b"+late\r\n")
    assert await call == [b"late"]
    assert transport.aborted


async def test_the_oldest_call_is_timed_even_behind_a_longer_one():
    """A call with a short limit fails in time although the timer was set for a long one."""
    connection, transport = new_connection()
    first = connection.write(b"", 1, 60)
    connection.data_received(b"+done\r\n")
    await first
    second = connection.write(b"", 1, 0.01)
    async with asyncio.timeout(10):
        with pytest.raises(NoAnswerError, match="command timeout"):
            await second
    assert transport.aborted


async def test_writers_wait_while_the_socket_is_full():
    """A paused connection lets writers go on when the socket takes more, and when it is lost."""
    connection, _ = new_connection()
    connection.pause_writing()
    assert connection.paused
    waiter = asyncio.ensure_future(connection.wait_writable())
    await asyncio.sleep(0)
    assert not waiter.done()
    connection.resume_writing()
    await waiter
    assert not connection.paused
    connection.pause_writing()
    waiter = asyncio.ensure_future(connection.wait_writable())
    await asyncio.sleep(0)
    connection.drop("for a test")
    await waiter


async def test_a_connection_that_is_given_up_closes_as_soon_as_nothing_is_in_flight():
    """At once where nothing is; else with the last answer, and what was asked is answered."""
    connection, transport = new_connection()
    connection.retire()
    assert (connection.usable, transport.aborted) == (False, True)
    connection, transport = new_connection()
    first, second = connection.write(b"", 1, 5), connection.write(b"", 1, 5)
    connection.retire()
    connection.data_received(b":1\r\n")
    assert (connection.usable, transport.aborted) == (False, False)
    connection.data_received(b":2\r\n")
    assert transport.aborted
    assert (await first, await second) == ([1], [2])
