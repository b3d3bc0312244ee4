"""The link of threads: they share one connection to each node."""

import os
import threading
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakMethod

import hiredis

from ducto_redis.engine.blocking_connection import SharedConnection
from ducto_redis.engine.connecting import TimedOutError, connect_blocking
from ducto_redis.engine.link import ASKING, DEFAULT_TIMEOUT_SECONDS, Link
from ducto_redis.engine.topology import Node, Topology


class BlockingLink(Link):
    """One shared connection to each node, made at first use and again when it was lost; a forked child makes its own.

    Args:
        topology, timeout_seconds: as for `Link`.
    """

    def __init__(self, topology: Topology, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__(topology, timeout_seconds=timeout_seconds)
        self._reset()
        reset = WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._connections: dict[Node, SharedConnection] = {}
        self._discovering = threading.Lock()
        self._times_discovered = 0
        self._closing = threading.Event()

    async def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Any:
        connection = self._connections.get(node) or self._connection_to(node)
        return connection.exchange(command, deadline, before=ASKING if asking else b"")

    async def pause(self, seconds: float) -> None:
        self._closing.wait(seconds)

    async def discover(self, deadline: float) -> None:
        times = self._times_discovered
        if not self._discovering.acquire(timeout=max(0.0, deadline - monotonic())):
            raise TimedOutError("no node was found in time", sent=False)
        try:
            if times == self._times_discovered:  # else another thread has done it meanwhile
                await self.topology.discover(self._ask)
                self._times_discovered += 1
        finally:
            self._discovering.release()

    async def close(self) -> None:
        self.times_closed += 1
        closing, self._closing = self._closing, threading.Event()
        closing.set()
        for connection in list(self._connections.values()):
            connection.close()

    async def _ask(self, node: Node, command: tuple[str, ...]) -> Any:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
        return await self.exchange(node, packed, self.patience())

    def _connection_to(self, node: Node) -> SharedConnection:
        with self._mutex:
            connection = self._connections.get(node)
            if connection is None:
                connect = partial(connect_blocking, node, self.topology.settings(node))
                connection = SharedConnection(connect, self.breaker_of(node), self.attempt_seconds)
                self._connections[node] = connection
            return connection

    def _after_fork(self) -> None:
        inherited = self._connections
        self._reset()
        for connection in inherited.values():
            connection.drop_after_fork()
