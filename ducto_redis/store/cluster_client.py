"""A synchronous client of a cluster, for consumers of the journal and for tools.

It is redis-py's client of one server, which sends each command to the node that its key lives on. redis-py's own client
of clusters connects as soon as it is made, takes no scripts into pipelines, asks a server where the keys of a command
are, and raises errors that are none of `RedisError`, which is what those that use it wait for and try again after.
"""

import threading
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from hiredis import ReplyError
from redis import Connection, ConnectionPool, Redis, SSLConnection
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from ducto_redis.engine.cluster import Cluster
from ducto_redis.engine.connecting import ConnectionLostError
from ducto_redis.engine.keys import slot_of_key
from ducto_redis.engine.topology import ConnectionSettings, Node
from ducto_redis.run_sync import run_sync

Command = tuple[tuple[Any, ...], dict[str, Any]]

_NODE_LOST = (ConnectionError, TimeoutError, ReadOnlyError)
_NOT_NOW = (*_NODE_LOST, ClusterDownError, TryAgainError, MovedError)
_RETRIES = -1  # until patience is over
_PATIENCE_SECONDS = 5.0
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.02, 0.5
# Commands without a key go to the node of partition 0, whose clock the namespace's workers are known by.
_WITHOUT_KEY = {
    *("CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DEBUG", "FLUSHALL", "FLUSHDB", "INFO", "KEYS", "MEMORY"),
    *("PING", "ROLE", "SCAN", "SCRIPT", "SLOWLOG", "TIME", "WAIT"),
}


class ClusterUnreachableError(ConnectionError):
    """No node of the cluster answers, or none knows it."""


class ClusterClient(Redis):
    """redis-py's client, of a cluster. Nothing is connected before the first command.

    A command whose node was lost or has moved is sent again, for a few seconds; not where no node answers at all. The
    keys of one command have to be in one slot; of the commands for several keys only `delete` takes any.

    Args:
        topology: the cluster; this client's own.
    """

    def __init__(self, topology: Cluster) -> None:
        super().__init__(protocol=2)  # its own pool is never connected
        self._topology = topology
        self._clients: dict[Node, Redis] = {}
        self._lock = threading.RLock()  # over discovering, and over making clients
        self._retry = Retry(ExponentialWithJitterBackoff(_LONGEST_SECONDS, _SHORTEST_SECONDS), _RETRIES, _NOT_NOW)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command on the node of its key, again after a while where that node cannot serve it now."""
        slot = _slot_of_command(args)
        give_up = monotonic() + _PATIENCE_SECONDS

        def attempt() -> Any:
            node = self._node_of(slot)
            client: Any = self._client(node)
            try:
                return client.execute_command(*args, **options)
            except MovedError as error:
                self._topology.moved(slot, _told(node, error))
                raise
            except AskError as error:
                return self._ask(_told(node, error), args)
            except (*_NODE_LOST, ClusterDownError):
                self._topology.lost(node)
                raise

        def check(error: Exception) -> None:
            if monotonic() >= give_up or isinstance(error, ClusterUnreachableError):
                raise error

        return self._retry.call_with_retry(attempt, check)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> "ClusterPipeline":
        """Commands to send together: those of one node in one round trip. They are no transaction."""
        return ClusterPipeline(self)

    def scan_iter(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Iterate over the keys of all nodes."""
        for client in self.primaries().values():
            yield from client.scan_iter(*args, **options)

    def delete(self, *names: Any) -> int:
        """Delete keys, wherever they are."""
        with self.pipeline() as pipeline:
            for name in names:
                pipeline.delete(name)
            return sum(pipeline.execute())

    def primaries(self) -> dict[Node, Redis]:
        """Return a client of each node that holds slots."""
        self._discover()
        return {node: self._client(node) for node in self._topology.primaries}

    def nodes(self) -> dict[Node, Redis]:
        """Return a client of each node, replicas too. Raises redis-py's ConnectionError."""
        self._discover()
        return {node: self._client(node) for node in self._topology.nodes}

    def close(self) -> None:
        """Close all connections; they are made again when they are needed again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()
        super().close()

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands, those of one node in one round trip. Errors are replies."""
        replies: list[Any] = [None] * len(commands)
        by_node: dict[Node | None, list[int]] = {}
        for index, (args, _) in enumerate(commands):
            by_node.setdefault(self._topology.node_of(_slot_of_command(args)), []).append(index)
        for node, indexes in by_node.items():
            again = indexes
            if node is not None:
                again = self._execute_together(node, commands, indexes, replies)
            for index in again:
                args, options = commands[index]
                try:
                    replies[index] = self.execute_command(*args, **options)
                except RedisError as error:
                    replies[index] = error
        return replies

    def _execute_together(
        self, node: Node, commands: Sequence[Command], indexes: list[int], replies: list[Any]
    ) -> list[int]:
        """Run commands on one node. Returns those that are to be sent again."""
        try:
            client: Any = self._client(node)
            with client.pipeline(transaction=False) as pipeline:
                for index in indexes:
                    args, options = commands[index]
                    pipeline.execute_command(*args, **options)
                for index, reply in zip(indexes, pipeline.execute(raise_on_error=False), strict=True):
                    replies[index] = reply
        except (ConnectionError, TimeoutError):
            self._topology.lost(node)
            return indexes
        return [index for index in indexes if isinstance(replies[index], (*_NOT_NOW, AskError))]

    def _ask(self, node: Node, args: tuple[Any, ...]) -> Any:
        """Run a command on the node that its slot is moving to."""
        client: Any = self._client(node)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*args)
            return pipeline.execute()[1]

    def _node_of(self, slot: int) -> Node:
        node = self._topology.node_of(slot)
        if node is None:
            self._discover()
            node = self._topology.node_of(slot)
        if node is None:
            raise ConnectionError(f"no node of the cluster holds slot {slot} now")
        return node

    def _discover(self) -> None:
        with self._lock:
            try:
                run_sync(self._topology.discover(self._tell))
            except ConnectionLostError as error:
                raise ClusterUnreachableError(str(error)) from error

    async def _tell(self, node: Node, command: tuple[str, ...]) -> Any:
        """Return a node's answer, for the topology."""
        client: Any = self._client(node)
        try:
            return client.execute_command(*command)
        except ResponseError as error:
            return ReplyError(str(error))
        except RedisError as error:
            raise ConnectionLostError(str(error)) from error

    def _client(self, node: Node) -> Redis:
        client = self._clients.get(node)
        if client is None:
            with self._lock:
                client = self._clients.get(node)
                if client is None:
                    client = self._clients[node] = client_of_node(node, self._topology.settings(node))
        return client


class ClusterPipeline(Pipeline):
    """Commands for a cluster that are sent when they are all there. They are no transaction."""

    def __init__(self, client: ClusterClient) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)
        self._cluster = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands and return their replies, in order; errors too, or the first of them is raised."""
        commands, self.command_stack = self.command_stack, []
        replies = self._cluster.execute_all(commands)
        if raise_on_error:
            self.raise_first_error(commands, replies)  # type: ignore[no-untyped-call]
        return replies


def client_of_node(node: Node, settings: ConnectionSettings) -> Redis:
    """Return a client of one node, which tries nothing again."""
    options = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **settings.options}
    kind = SSLConnection if settings.tls else Connection
    return Redis.from_pool(ConnectionPool(connection_class=kind, host=node.host, port=node.port, **options))


def _told(node: Node, error: AskError) -> Node:
    """Return the node that a redirection names."""
    return Node(error.host or node.host, int(error.port))


def _slot_of_command(args: tuple[Any, ...]) -> int:
    """Return the slot of a command's first key, 0 without one."""
    name = args[0].upper().partition(" ")[0]
    if name in ("EVAL", "EVALSHA"):
        return _slot(args[3]) if int(args[2]) else 0
    if name in ("XREAD", "XREADGROUP"):
        return _slot(args[1 + [str(arg).upper() for arg in _texts(args)].index("STREAMS")])
    return 0 if name in _WITHOUT_KEY else _slot(args[1])


def _texts(args: tuple[Any, ...]) -> Iterator[str]:
    return (arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg) for arg in args)


def _slot(key: Any) -> int:
    return slot_of_key(key if isinstance(key, bytes) else str(key).encode())
