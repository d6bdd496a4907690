"""A connection to a server that makes itself anew when it was lost. It repeats nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.errors import AuthenticationError, BusUnavailable, HyperbusError
from hyperbus.forks import tell_after_fork
from hyperbus.transports.redis.connection.address import Address
from hyperbus.transports.redis.connection.eras import WHO_ARE_YOU, Eras
from hyperbus.transports.redis.connection.live import Connection, NoAnswerError, open_connection
from hyperbus.transports.redis.protocol.commands import pack
from hyperbus.transports.redis.protocol.replies import Refusal, error_of, is_away

_INTRODUCTION = WHO_ARE_YOU + pack("CLIENT", "ID")


class ReconnectingConnection:
    """A connection that is made when it is first needed and made again after it was lost.

    Attributes:
        client_id: how the server calls this connection, if `identify` was asked for and the server tells.
        command_timeout: how long the server may take to answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: Seconds,
        command_timeout: Seconds,
        eras: Eras | None = None,
        identify: bool = False,
    ) -> None:
        self.client_id: int | None = None
        self._address = address
        self._connect_timeout = connect_timeout
        self.command_timeout = command_timeout
        self._eras = eras or Eras()
        self._identify = identify
        self._live: Connection | None = None
        self._connecting = asyncio.Lock()
        self._attempts = 0
        self._failure: HyperbusError | None = None
        self._closed = False
        self._is_inherited = False
        tell_after_fork(self)

    @property
    def place(self) -> str:
        """Where it goes to, for people."""
        return self._address.description

    async def call(
        self,
        packed: bytes,
        count: int = 1,
        *,
        wait: Seconds = 0.0,
        most_bytes: int | None = None,
        same_era: bool = False,
    ) -> list[Any]:
        """Send packed commands and return their `count` replies, error replies among them as `Refusal`.

        `wait` is how much longer than the command timeout the server may take, as a read that blocks does; `most_bytes`
        how large the answer may be. `same_era`: it is not sent where the server turns out to be another one meanwhile.

        Raises:
            NoAnswerError: it was sent, and the connection broke or the time was up.
            BusUnavailable: it was not sent.
        """
        return await (await self.send(packed, count, wait=wait, most_bytes=most_bytes, same_era=same_era))

    async def send(
        self,
        packed: bytes,
        count: int,
        *,
        wait: Seconds = 0.0,
        most_bytes: int | None = None,
        same_era: bool = False,
    ) -> asyncio.Future[list[Any]]:
        """Do the first half of `call`: return when the call is written."""
        live = self._live
        if live is None or not live.usable or live.paused or live.era != self._eras.current:
            live = await (self.ready_in_era() if same_era else self.ready())
        return live.write(packed, count, self.command_timeout + wait, most_bytes)

    async def ready(self, same: Connection | None = None) -> Connection:
        """Return a live connection that takes a call at once; where `same` is given, that one or none.

        Raises:
            BusUnavailable: there is none; nothing was sent.
        """
        live = self._live
        if same is not None and live is not same:
            raise BusUnavailable(f"the connection to {self.place} broke before the command was sent; try again")
        if live is not None and live.era != self._eras.current:
            live.retire()  # it leads to a server that another one has taken the place of
        if live is None or (same is None and not live.usable):
            live = await self._connect()
        if live.paused:
            try:
                async with asyncio.timeout(self.command_timeout):
                    while live.paused:
                        await live.wait_writable()
            except TimeoutError:
                raise BusUnavailable(f"{self.place} takes no more commands: not sent; try again later") from None
        if not live.usable:
            raise BusUnavailable(f"the connection to {self.place} broke before the command was sent; try again")
        return live

    async def ready_in_era(self) -> Connection:
        """Return a live connection as `ready` does, if the server has not turned out to be another one meanwhile.

        Raises:
            BusUnavailable: there is none, or it has; nothing was sent.
        """
        era = self._eras.current
        live = await self.ready()
        if self._eras.current != era:
            raise BusUnavailable(f"{self.place} was started anew, or replaced, before the command was sent; try again")
        return live

    def is_current(self, live: Connection) -> bool:
        """Tell whether a connection leads to the server that is known last."""
        return live.era == self._eras.current

    async def _connect(self) -> Connection:
        attempts = self._attempts
        async with self._connecting:
            if self._is_inherited:
                raise BusUnavailable("this process was forked after the bus was opened; open a bus in this process")
            if self._closed:
                raise BusUnavailable(f"the connection to {self.place} was closed; open a new bus")
            if self._live is not None and self._live.usable:
                return self._live
            # Whoever waited for another's attempt shares its failure: a hundred callers are not a hundred attempts.
            if self._attempts != attempts and self._failure is not None:
                raise type(self._failure)(str(self._failure))
            self._failure = None
            try:
                live = await self._open()
            except HyperbusError as error:
                self._failure = error
                raise
            finally:
                self._attempts += 1
            self._live = live
            return live

    async def _open(self) -> Connection:
        live = await open_connection(self._address, self._connect_timeout)
        try:
            who, client_id = await live.write(_INTRODUCTION, 2, self.command_timeout)
            self._eras.meet(who)
            live.era = self._eras.current
            if self._identify:
                self.client_id = client_id if isinstance(client_id, int) else None
        except NoAnswerError as error:
            raise BusUnavailable(f"cannot reach {self.place}: {error}") from None
        except BaseException:
            live.drop("the caller gave up")
            raise
        if self._closed:
            live.drop("it was closed meanwhile")
        return live

    def error_of(self, refusal: Refusal) -> HyperbusError:
        """Return the error that a refusal stands for; where another connection may do better, this one is given up."""
        error = error_of(refusal, self.place)
        if self._live is not None and (is_away(refusal) or isinstance(error, AuthenticationError)):
            self._live.retire()
        return error

    def check(self, replies: list[Any]) -> list[Any]:
        """Return the replies, or raise the error of the first refusal among them."""
        for reply in replies:
            if type(reply) is Refusal:
                raise self.error_of(reply)
        return replies

    def drop(self, reason: str) -> None:
        """Close the connection now; the next call makes a new one."""
        if self._live is not None:
            self._live.drop(reason)

    def after_fork(self) -> None:
        """Connect no more, in a forked child: who waits here, and what they hold, is the parent's."""
        self._is_inherited = self._is_inherited or self._live is not None

    def reopen(self) -> None:
        """Take calls again after `close`."""
        self._closed = False

    async def close(self) -> None:
        """Close; later calls are refused. Twice is safe."""
        self._closed = True
        live = self._live
        if live is not None:
            live.drop("it was closed")
            await live.wait_closed()
