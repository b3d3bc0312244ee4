"""Connections: redis-py reads the URL and connects (TCP, TLS, unix sockets); then hands are shaken, in one round trip.

What is left is a socket or a transport, for a link to take over. Links speak RESP2, a server's default: the pushed
messages of RESP3 would break the order of replies.
"""

import asyncio
import os
import socket
from time import monotonic
from typing import Any

import hiredis
import redis.asyncio.connection as async_connections
import redis.connection as blocking_connections
from redis.exceptions import RedisError

from ducto_redis.engine.topology import ConnectionSettings, Node
from ducto_redis.errors import ConfigError

_SCHEMES = ("redis://", "rediss://", "unix://")
_DEFAULT_HOST = "localhost"
_DEFAULT_PORT = 6379
# What redis-py's pools take out of a URL; a connection would refuse it.
_OF_POOLS = ("max_connections", "timeout")
_NOT_NOW = ("LOADING", "MASTERDOWN", "BUSY", "ERR max number of clients")
_FAILURES = (RedisError, OSError, TimeoutError, hiredis.HiredisError)
_NOTHING = object()
_RECEIVE_BYTES = 65536


class ConnectionLostError(Exception):
    """The connection was lost, or could not be made; what was sent may or may not have taken effect."""


class HandshakeRefusedError(ConnectionLostError):
    """The node is there, and refuses the credentials or the database: trying again changes nothing."""


class TimedOutError(Exception):
    """The deadline passed.

    Attributes:
        reason: what there was no time for.
        sent: whether the command may have reached the node.
    """

    def __init__(self, reason: str = "", *, sent: bool = True) -> None:
        self.reason = reason
        self.sent = sent
        super().__init__(reason)


def read_url(url: str) -> tuple[Node, ConnectionSettings]:
    """Return the address in a URL, and the settings to connect with. Raises ConfigError without the URL's password."""
    if not url.startswith(_SCHEMES):
        raise ConfigError("a Redis URL begins with redis://, rediss:// or unix://")
    try:
        options: dict[str, Any] = dict(blocking_connections.parse_url(url))  # type: ignore[no-untyped-call]
        kind = options.pop("connection_class", None)
        for name in _OF_POOLS:
            options.pop(name, None)
        host, port = options.pop("host", _DEFAULT_HOST), options.pop("port", _DEFAULT_PORT)
        if kind is blocking_connections.UnixDomainSocketConnection:
            node = Node(options.pop("path"), 0)
        else:
            node = Node(host, port)
        settings = ConnectionSettings(tls=kind is blocking_connections.SSLConnection, options=options)
        _make_connection(blocking_connections, node, settings, 0)
    except (ValueError, TypeError, KeyError, RedisError) as error:
        raise ConfigError(f"the Redis URL cannot be read: {type(error).__name__}") from None
    return node, settings


def check_url(url: str) -> str:
    """Return `url` if it can be connected to. Raises ConfigError, which never repeats the URL's password."""
    read_url(url)
    return url


async def connect_async(node: Node, settings: ConnectionSettings, timeout_seconds: float) -> asyncio.StreamWriter:
    """Connect and shake hands on the running event loop. Raises ConnectionLostError.

    The caller keeps the writer for as long as it uses its transport: a writer that is collected closes it.
    """
    handshake = _Handshake(settings)
    connection = _make_connection(async_connections, node, settings, timeout_seconds)
    try:
        async with asyncio.timeout(timeout_seconds):
            await connection.connect()
            connection._writer.write(handshake.commands)
            while not handshake.is_over(await connection._reader.read(_RECEIVE_BYTES)):
                pass
    except BaseException as error:
        if connection._writer is not None:
            connection._writer.transport.abort()
        if isinstance(error, _FAILURES):
            raise ConnectionLostError(str(error) or type(error).__name__) from error
        raise
    finally:
        # A connection object that is collected complains about a writer that it still has.
        writer: asyncio.StreamWriter = connection._writer
        connection._reader = connection._writer = None
    return writer


def connect_blocking(node: Node, settings: ConnectionSettings, timeout_seconds: float) -> socket.socket:
    """Connect and shake hands. Raises ConnectionLostError."""
    deadline = monotonic() + timeout_seconds
    handshake = _Handshake(settings)
    connection = _make_connection(blocking_connections, node, settings, timeout_seconds)
    connected: socket.socket | None = None
    try:
        connection.connect()
        connected, connection._sock = connection._sock, None
        assert connected is not None
        connected.settimeout(_seconds_until(deadline))
        connected.sendall(handshake.commands)
        while True:
            connected.settimeout(_seconds_until(deadline))
            if handshake.is_over(connected.recv(_RECEIVE_BYTES)):
                return connected
    except BaseException as error:
        if connected is not None:
            connected.close()
        if isinstance(error, _FAILURES):
            raise ConnectionLostError(str(error) or type(error).__name__) from error
        raise


def _seconds_until(deadline: float) -> float:
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError("no connection in time")
    return seconds


class _Handshake:
    """Return the first commands on a connection: one write, one reply for each.

    Attributes:
        commands: to send, packed.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        username, password = settings.options.get("username"), settings.options.get("password")
        database = settings.options.get("db")
        must: list[tuple[Any, ...]] = []
        if username or password:
            must.append(("AUTH", username, password or "") if username else ("AUTH", password))
        if database:
            must.append(("SELECT", database))
        # A server may not know these, and a user may have no right to them.
        may = [
            ("CLIENT", "SETNAME", f"ducto-redis-{os.getpid()}"),
            ("CLIENT", "SETINFO", "LIB-NAME", "ducto-redis"),
        ]
        self.commands = b"".join(hiredis.pack_command(command) for command in (*must, *may))
        self._must = len(must)
        self._missing = len(must) + len(may)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    def is_over(self, data: bytes) -> bool:
        """Take what was received, and tell whether all is said. Raises ConnectionLostError where it failed."""
        if not data:
            raise ConnectionLostError("the server closed the connection")
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _NOTHING:
            if isinstance(reply, hiredis.ReplyError) and (self._must > 0 or str(reply).startswith(_NOT_NOW)):
                kind = ConnectionLostError if str(reply).startswith(_NOT_NOW) else HandshakeRefusedError
                raise kind(f"{reply!s:.200}")
            self._must -= 1
            self._missing -= 1
        return self._missing <= 0


def _make_connection(kinds: Any, node: Node, settings: ConnectionSettings, timeout_seconds: float) -> Any:
    options = {
        **settings.options,
        # redis-py would shake hands with a round trip for each command, and wait for each as long as for connecting.
        "redis_connect_func": _nothing,
        "protocol": 2,
        "socket_connect_timeout": timeout_seconds,
        "socket_timeout": timeout_seconds,
    }
    if not node.port:
        return kinds.UnixDomainSocketConnection(path=node.host, **options)
    kind = kinds.SSLConnection if settings.tls else kinds.Connection
    return kind(host=node.host, port=node.port, **options)


def _nothing(connection: Any) -> None:
    pass
