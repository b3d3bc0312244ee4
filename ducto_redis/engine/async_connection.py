"""A connection of an event loop: what gathers in a turn of the loop is written at once, replies come in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from time import monotonic
from typing import Any

import hiredis

from ducto_redis.engine.breaker import Breaker
from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError

MOST_IN_FLIGHT = 10_000
"""Commands that a connection takes at a time; further callers wait for room, in order, until their deadlines."""

_NOTHING = object()
_DEADLINE_CHECK_SECONDS = 0.05


class AsyncConnection(asyncio.Protocol):
    """One connection, made and handed over by `connect_async`.

    Args:
        loop: that it belongs to.
        writer: of the connection; it must not be collected.
        breaker: of the node, told whether it answers.
        silence_seconds: after which a server that owes replies and says nothing is given up.

    Attributes:
        lost: why it is lost; None while it is not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        writer: asyncio.StreamWriter,
        breaker: Breaker,
        silence_seconds: float,
    ) -> None:
        self.loop = loop
        self.lost: str | None = None
        self._breaker = breaker
        self._silence_seconds = silence_seconds
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._writer = writer
        self._transport = writer.transport
        self._unsent: list[bytes] = []
        self._in_flight: deque[tuple[asyncio.Future[Any] | None, float]] = deque()
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._places_given = 0  # to callers that have not resumed yet
        self._is_crowded = False  # whether some wait, or have a place that they have not taken
        self._is_paused = False
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = monotonic()

    def send(self, command: bytes, deadline: float, before: bytes = b"", *, has_room: bool = False) -> Awaitable[Any]:
        """Send a command; awaited, it is the reply. `before` goes before it, and its reply is dropped.

        A caller that was given room, `has_room`, does not wait for it again.

        Raises:
            ConnectionLostError, TimedOutError
        """
        if not has_room and (self._is_crowded or len(self._in_flight) >= MOST_IN_FLIGHT):
            return self._send_when_there_is_room(command, deadline, before)
        if self.lost is not None:
            raise ConnectionLostError(self.lost)
        if not self._unsent:
            self.loop.call_soon(self._write)
        if not self._in_flight:
            self._heard_at = monotonic()
        if before:
            self._unsent.append(before)
            self._in_flight.append((None, deadline))
        self._unsent.append(command)
        reply: asyncio.Future[Any] = self.loop.create_future()
        self._in_flight.append((reply, deadline))
        if self._watch is None:
            self._watch = self.loop.call_later(_DEADLINE_CHECK_SECONDS, self._check_deadlines)
        return reply

    async def _send_when_there_is_room(self, command: bytes, deadline: float, before: bytes) -> Any:
        await self._wait_for_room(deadline)
        return await self.send(command, deadline, before, has_room=True)

    def abort(self, reason: str) -> None:
        """Close it at once, and fail what is under way."""
        if not self.loop.is_closed():
            self._transport.abort()
        self._lose(reason)

    def data_received(self, data: bytes) -> None:
        self._heard_at = monotonic()
        if self._breaker.failures:
            self._breaker.succeeded()
        reader, in_flight = self._reader, self._in_flight
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                # Where the caller has gone, the reply is dropped: its place in the order was kept.
                future, _ = in_flight.popleft()
                if future is not None and not future.done():
                    future.set_result(reply)
        except (hiredis.HiredisError, IndexError) as error:
            self.abort(f"the server broke the protocol: {error}")
        if self._waiting:
            self._give_room()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("the connection was lost" if error is None else f"the connection was lost: {error}")

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._unsent:
            self._write()

    async def _wait_for_room(self, deadline: float) -> None:
        room: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append((room, deadline))
        self._is_crowded = True
        try:
            await room
        except asyncio.CancelledError:
            if room.cancelled() or room.exception() is not None:
                raise
            self._places_given -= 1
            self._give_room()  # it was given to a caller that has gone
            raise
        self._places_given -= 1
        self._is_crowded = bool(self._waiting or self._places_given)

    def _give_room(self) -> None:
        free = MOST_IN_FLIGHT - len(self._in_flight) - self._places_given
        while free > 0 and self._waiting:
            room, _ = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                self._places_given += 1
                free -= 1
        self._is_crowded = bool(self._waiting or self._places_given)

    def _write(self) -> None:
        # A transport that is full takes nothing: commands stay here, where a bound holds.
        if self.lost is None and not self._is_paused and self._unsent:
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
        waiting, self._waiting = self._waiting, deque()
        if in_flight:
            self._breaker.failed(monotonic(), since=self._heard_at)
        if self.loop.is_closed():
            return
        for future, _ in (*in_flight, *waiting):
            if future is not None and not future.done():
                future.set_exception(ConnectionLostError(reason))

    def _check_deadlines(self) -> None:
        # One timer for all that is in flight: a timer per call would cost more than the call.
        self._watch = None
        if not self._in_flight:
            return
        now = monotonic()
        for future, deadline in self._in_flight:
            if deadline <= now and future is not None and not future.done():
                future.set_exception(TimedOutError())
        for room, deadline in self._waiting:
            if deadline <= now and not room.done():
                room.set_exception(TimedOutError("too much waits for it, and this was not sent", sent=False))
        if now - self._heard_at > self._silence_seconds:
            self.abort("the server fell silent")
            return
        self._watch = self.loop.call_later(_DEADLINE_CHECK_SECONDS, self._check_deadlines)
