"""The link of an event loop: callers await single operations, and share one connection to each node."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

import hiredis

from ducto_redis.engine.async_connection import AsyncConnection
from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError, connect_async
from ducto_redis.engine.link import ASKING, DEFAULT_TIMEOUT_SECONDS, Link
from ducto_redis.engine.topology import Node, Topology

T = TypeVar("T")


class AsyncLink(Link):
    """One multiplexed connection to each node, made at first use and again when it was lost.

    Args:
        topology, timeout_seconds: as for `Link`.
    """

    def __init__(self, topology: Topology, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__(topology, timeout_seconds=timeout_seconds)
        self._connections: dict[Node, AsyncConnection] = {}
        self._connecting: dict[Node, asyncio.Task[AsyncConnection]] = {}
        self._discovering: asyncio.Task[None] | None = None
        self._pauses: set[asyncio.Future[None]] = set()

    def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Awaitable[Any]:
        before = ASKING if asking else b""
        connection = self._connections.get(node)
        if connection is None or connection.lost is not None or connection.loop is not asyncio.get_running_loop():
            return self._connect_and_send(node, command, deadline, before)
        return connection.send(command, deadline, before)

    async def pause(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pauses.add(over)
        try:
            await asyncio.wait({over}, timeout=seconds)
        finally:
            self._pauses.discard(over)

    async def discover(self, deadline: float) -> None:
        self._discovering = _under_way(self._discovering, self.topology.discover, self._ask)
        await _shared(self._discovering, deadline)

    async def close(self) -> None:
        self.times_closed += 1
        loop = asyncio.get_running_loop()
        for attempt in (self._discovering, *self._connecting.values()):
            if attempt is not None and attempt.get_loop() is loop:
                attempt.cancel()
        self._discovering = None
        self._connecting.clear()
        for connection in list(self._connections.values()):
            connection.abort("the link was closed")
        self._connections.clear()
        for over in self._pauses:
            if over.get_loop() is loop and not over.done():
                over.set_result(None)

    async def _ask(self, node: Node, command: tuple[str, ...]) -> Any:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
        return await self.exchange(node, packed, self.patience())

    async def _connect_and_send(self, node: Node, command: bytes, deadline: float, before: bytes) -> Any:
        connection = await self._connect(node, deadline)
        return await connection.send(command, deadline, before)

    async def _connect(self, node: Node, deadline: float) -> AsyncConnection:
        attempt = self._connecting[node] = _under_way(self._connecting.get(node), self._open, node)
        return await _shared(attempt, deadline)

    async def _open(self, node: Node) -> AsyncConnection:
        breaker, began = self.breaker_of(node), monotonic()
        try:
            writer = await connect_async(node, self.topology.settings(node), self.attempt_seconds)
        except ConnectionLostError:
            breaker.failed(monotonic(), since=began)
            raise
        connection = AsyncConnection(asyncio.get_running_loop(), writer, breaker, self.attempt_seconds)
        writer.transport.set_protocol(connection)
        self._connections[node] = connection
        return connection


def _under_way(
    attempt: "asyncio.Task[T] | None", make: Callable[..., Coroutine[Any, Any, T]], *args: Any
) -> "asyncio.Task[T]":
    """Return the attempt under way, or begin one. It serves all callers that wait for it, and outlives any of them."""
    loop = asyncio.get_running_loop()
    if attempt is None or attempt.done() or attempt.get_loop() is not loop:
        attempt = loop.create_task(make(*args))
        attempt.add_done_callback(_retrieve)
    return attempt


async def _shared(attempt: "asyncio.Task[T]", deadline: float) -> T:
    done, _ = await asyncio.wait({attempt}, timeout=max(0.0, deadline - monotonic()))
    if not done:
        raise TimedOutError("no connection in time", sent=False)
    if attempt.cancelled():
        raise ConnectionLostError("the link was closed")
    return attempt.result()


def _retrieve(attempt: "asyncio.Task[Any]") -> None:
    # Nobody may be left to await a failed attempt; asyncio would complain about its exception.
    if not attempt.cancelled():
        attempt.exception()
