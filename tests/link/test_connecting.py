"""What a URL may say, and how long connecting may take."""

import gc
import socket
from typing import Any

import pytest

from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.connecting import ConnectionLostError, check_url, connect_blocking, read_url
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import ConfigError, StoreUnavailableError

from .test_closing import operation


@pytest.mark.parametrize(
    "url",
    [
        "user:s3cret@host:6379",
        "s3cret",
        "https://:s3cret@host",
        "redis://:s3cret@host:port",
        "redis://:s3cret@host?socket_timeout=soon",
        "redis://:s3cret@host?no_such_option=1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    """At once, and not when it connects."""
    with pytest.raises(ConfigError) as refused:
        check_url(url)
    assert "s3cret" not in str(refused.value)


def test_a_url_does_not_change_the_protocol(valkey_url: str) -> None:
    """Replies come in the order of commands only without pushed messages."""
    with connect_blocking(*read_url(f"{valkey_url}?protocol=3&client_name=mine"), 5.0) as connected:
        connected.sendall(b"CLIENT INFO\r\n")
        info = connected.recv(4096).decode()
    assert " resp=2 " in info
    assert " name=ducto-redis-" in info


@pytest.fixture
def silent_url() -> Any:
    """A server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}?socket_timeout=60"


async def test_a_server_that_says_nothing_is_given_up(silent_url: str) -> None:
    """By the link's own time limit, whatever the URL says, so that the next call connects anew; nothing stays open."""
    link = AsyncLink(read_topology(silent_url), timeout_seconds=0.1)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await link.run(operation())
    [attempt] = link._connecting.values()
    with pytest.raises(ConnectionLostError):
        await attempt
    await link.close()
    gc.collect()


def test_a_server_that_says_nothing_to_a_thread(silent_url: str) -> None:
    """The same without an event loop."""
    with pytest.raises(ConnectionLostError):
        connect_blocking(*read_url(silent_url), 0.1)
