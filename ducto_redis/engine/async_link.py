"""The link of an event loop: callers await single operations; what gathers in a turn of the loop is written at once."""

import asyncio
from collections import deque
from time import monotonic
from typing import Any

import hiredis

from ducto_redis.engine.connecting import check_url, connect_async
from ducto_redis.engine.link import DEFAULT_TIMEOUT_SECONDS, ConnectionLostError, Link, TimedOutError

_NOTHING = object()
_DEADLINE_CHECK_SECONDS = 0.05


class AsyncLink(Link):
    """One multiplexed connection, made at first use and again when it was lost.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: how long an operation may take, connecting included.
    """

    def __init__(self, url: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__(timeout_seconds=timeout_seconds)
        self._url = check_url(url)
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def exchange(self, command: bytes, deadline: float) -> Any:
        connection = self._connection
        if connection is None or connection.lost is not None or connection.loop is not asyncio.get_running_loop():
            connection = await self._connect(deadline)
        return await connection.send(command, deadline)

    async def close(self) -> None:
        self.times_closed += 1
        if self._connecting is not None and self._connecting.get_loop() is asyncio.get_running_loop():
            self._connecting.cancel()
        self._connecting = None
        if self._connection is not None:
            self._connection.abort("the link was closed")
            self._connection = None

    async def _connect(self, deadline: float) -> "_Connection":
        # One attempt serves all who wait for it, and outlives any of them.
        loop = asyncio.get_running_loop()
        attempt = self._connecting
        if attempt is None or attempt.done() or attempt.get_loop() is not loop:
            attempt = self._connecting = loop.create_task(self._open())
            attempt.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({attempt}, timeout=max(0.0, deadline - monotonic()))
        if not done:
            raise ConnectionLostError("no connection in time")
        if attempt.cancelled():
            raise ConnectionLostError("the link was closed")
        return attempt.result()

    async def _open(self) -> "_Connection":
        writer = await connect_async(self._url, self.timeout_seconds)
        connection = _Connection(asyncio.get_running_loop(), writer, self.timeout_seconds)
        writer.transport.set_protocol(connection)
        self._connection = connection
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter, timeout_seconds: float) -> None:
        self.loop = loop
        self.lost: str | None = None
        self._timeout_seconds = timeout_seconds
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._writer = writer
        self._transport = writer.transport
        self._unsent: list[bytes] = []
        self._in_flight: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = monotonic()

    async def send(self, command: bytes, deadline: float) -> Any:
        if self.lost is not None:
            raise ConnectionLostError(self.lost)
        if not self._unsent:
            self.loop.call_soon(self._write)
        self._unsent.append(command)
        reply: asyncio.Future[Any] = self.loop.create_future()
        if not self._in_flight:
            self._heard_at = monotonic()
        self._in_flight.append((reply, deadline))
        if self._watch is None:
            self._watch = self.loop.call_later(_DEADLINE_CHECK_SECONDS, self._check_deadlines)
        return await reply

    def abort(self, reason: str) -> None:
        if not self.loop.is_closed():
            self._transport.abort()
        self._lose(reason)

    def data_received(self, data: bytes) -> None:
        self._heard_at = monotonic()
        reader, in_flight = self._reader, self._in_flight
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                # Where the caller has gone, the reply is dropped: its place in the order was kept.
                future, _ = in_flight.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.HiredisError, IndexError) as error:
            self.abort(f"the server broke the protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("the connection was lost" if error is None else f"the connection was lost: {error}")

    def _write(self) -> None:
        if self.lost is None:
            commands, self._unsent = self._unsent, []
            self._transport.write(commands[0] if len(commands) == 1 else b"".join(commands))

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        in_flight, self._in_flight, self._unsent = self._in_flight, deque(), []
        if self.loop.is_closed():
            return
        for future, _ in in_flight:
            if not future.done():
                future.set_exception(ConnectionLostError(reason))

    def _check_deadlines(self) -> None:
        # One timer for all that is in flight: a timer per call would cost more than the call.
        self._watch = None
        if not self._in_flight:
            return
        now = monotonic()
        for future, deadline in self._in_flight:
            if deadline <= now and not future.done():
                future.set_exception(TimedOutError())
        if now - self._heard_at > self._timeout_seconds:
            self.abort("the server fell silent")
            return
        self._watch = self.loop.call_later(_DEADLINE_CHECK_SECONDS, self._check_deadlines)


def _retrieve(attempt: "asyncio.Task[_Connection]") -> None:
    # Nobody may be left to await a failed attempt; asyncio would complain about its exception.
    if not attempt.cancelled():
        attempt.exception()
