"""Connections: redis-py reads the URL and shakes hands (TLS, AUTH, ACL, database), a link takes the socket over."""

import asyncio
import os
import socket
from typing import Any

from redis import ConnectionPool
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.exceptions import RedisError

from ducto_redis.engine.link import ConnectionLostError
from ducto_redis.errors import ConfigError

_SCHEMES = ("redis://", "rediss://", "unix://")


def check_url(url: str) -> str:
    """Return `url` if redis-py can connect to it. Raises ConfigError, which never repeats the URL's password."""
    if not url.startswith(_SCHEMES):
        raise ConfigError("a Redis URL begins with redis://, rediss:// or unix://")
    try:
        _make_connection(ConnectionPool.from_url(url), 0)
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigError(f"the Redis URL cannot be read: {type(error).__name__}") from None
    return url


async def connect_async(url: str, timeout_seconds: float) -> asyncio.StreamWriter:
    """Connect and shake hands on the running event loop. Raises ConnectionLostError.

    The caller keeps the writer for as long as it uses its transport: a writer that is collected closes it.
    """
    connection = _make_connection(AsyncConnectionPool.from_url(url), timeout_seconds)
    try:
        async with asyncio.timeout(timeout_seconds):
            await connection.connect()
    except (RedisError, OSError, TimeoutError) as error:
        raise ConnectionLostError(str(error) or type(error).__name__) from error
    writer: asyncio.StreamWriter = connection._writer
    # A connection object that is collected complains about a writer that it still has.
    connection._reader = connection._writer = None
    return writer


def connect_blocking(url: str, timeout_seconds: float) -> socket.socket:
    """Connect and shake hands. Raises ConnectionLostError."""
    connection = _make_connection(ConnectionPool.from_url(url), timeout_seconds)
    try:
        connection.connect()
    except (RedisError, OSError, TimeoutError) as error:
        raise ConnectionLostError(str(error) or type(error).__name__) from error
    sock: socket.socket = connection._sock
    connection._sock = None
    return sock


def _make_connection(pool: Any, timeout_seconds: float) -> Any:
    # Ours stand above what the URL says. Pushed messages would break the order of replies, so the links speak RESP2.
    pool.connection_kwargs.update(
        protocol=2,
        client_name=f"ducto-redis-{os.getpid()}",
        socket_connect_timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
    )
    return pool.make_connection()
