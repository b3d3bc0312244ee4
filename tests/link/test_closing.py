"""Links that are closed, or whose threads are interrupted, while calls are under way."""

import asyncio
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hiredis
import pytest

from ducto_redis.engine import blocking_connection, blocking_link
from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.blocking_connection import SharedConnection
from ducto_redis.engine.blocking_link import BlockingLink
from ducto_redis.engine.connecting import ConnectionLostError
from ducto_redis.engine.link import Link
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.scripts import Script
from ducto_redis.engine.topology import Node
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.run_sync import run_sync

SECONDS = 5.0


def packed(*command: str) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


def echo(link: BlockingLink, text: str) -> Any:
    return run_sync(link.exchange(node_of(link), packed("ECHO", text), time.monotonic() + SECONDS))


def node_of(link: Link) -> Node:
    node = link.topology.node_of(0)
    assert node is not None
    return node


def shared_by(link: BlockingLink, server: socket.socket) -> SharedConnection:
    """The connection that the link's threads share, connected to this server."""
    shared = link._connection_to(node_of(link))
    shared._connection = blocking_connection._Connection(socket.create_connection(server.getsockname()))
    return shared


@pytest.fixture
def silent() -> Any:
    """A server that takes what it is sent and never answers, not even its first greeting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_closed_while_it_connects(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is told so, and no later call gets its reply."""
    connecting, go_on = threading.Event(), threading.Event()

    def connect(*args: Any) -> socket.socket:
        connecting.set()
        go_on.wait()
        return blocking_link_connect(*args)

    blocking_link_connect = blocking_link.connect_blocking
    monkeypatch.setattr(blocking_link, "connect_blocking", connect)
    link = BlockingLink(read_topology(valkey_url))
    with ThreadPoolExecutor() as threads:
        first = threads.submit(echo, link, "first")
        connecting.wait()
        run_sync(link.close())
        go_on.set()
        assert isinstance(first.exception(), ConnectionLostError)
    assert [echo(link, "second"), echo(link, "third")] == [b"second", b"third"]
    run_sync(link.close())


def operation() -> Operation[Any]:
    script = Script("echo", b"return ARGV[1]", b"0" * 40)
    return Operation(script, 0, (), ("x",), lambda _, reply: reply, operation_key="a key")


def test_closed_while_threads_wait(silent: socket.socket) -> None:
    """They learn it at once, with the key under which to ask again, and nothing is connected anew."""
    link = BlockingLink(read_topology(f"redis://127.0.0.1:{silent.getsockname()[1]}"), timeout_seconds=60)
    shared = shared_by(link, silent)
    connection = shared._connection
    assert connection is not None
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(run_sync, link.run(operation())) for _ in range(4)]
        while len(connection.in_flight) + len(shared._unsent) < 4:
            time.sleep(0)
        run_sync(link.close())
        for call in calls:
            error = call.exception()
            assert isinstance(error, StoreUnavailableError)
            assert error.operation_key == "a key"
    assert shared._connection is None


async def test_closed_while_tasks_wait(valkey_url: str) -> None:
    """The same on an event loop."""
    link = AsyncLink(read_topology(valkey_url))
    assert await link.run(operation()) == b"x"
    calls = [asyncio.create_task(link.run(operation())) for _ in range(4)]
    await asyncio.sleep(0)
    await link.close()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, StoreUnavailableError)
        assert error.operation_key == "a key"
    assert not link._connections


def interrupt_once(shared: SharedConnection, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    whole = getattr(shared, method)

    def interrupted(*args: Any) -> None:
        monkeypatch.setattr(shared, method, whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, method, interrupted)


@pytest.mark.parametrize("method", ["_lead", "_write", "_read", "_leave"])
def test_an_interrupted_leader_leaves_the_lead(valkey_url: str, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Ctrl-C in the thread that reads for all, wherever it is: the others go on, with their own replies."""
    link = BlockingLink(read_topology(valkey_url), timeout_seconds=SECONDS)
    echo(link, "connected")
    interrupt_once(link._connection_to(node_of(link)), monkeypatch, method)
    with pytest.raises(KeyboardInterrupt):
        echo(link, "interrupted")
    assert [echo(link, "one"), echo(link, "two")] == [b"one", b"two"]
    run_sync(link.close())


def test_ctrl_c_while_it_waits_for_a_reply(valkey_url: str, silent: socket.socket) -> None:
    """A real signal, delivered inside `recv`: the thread that waits behind it takes the lead, and connects anew."""
    link = BlockingLink(read_topology(valkey_url), timeout_seconds=60)
    shared = shared_by(link, silent)
    connection = shared._connection
    assert connection is not None

    def follow() -> Any:
        while not connection.in_flight:
            time.sleep(0)
        return echo(link, "behind")

    def interrupt() -> None:
        while not shared._unsent:
            time.sleep(0)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor() as threads:
        behind, interrupted = threads.submit(follow), threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            echo(link, "interrupted")
        interrupted.result()
        assert behind.result() == b"behind"
    run_sync(link.close())


class Endless(BlockingLink):
    """A link whose script always says that more is due."""

    asked = 0

    async def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Any:
        self.asked += 1
        return b"again"


def test_more_that_is_due_is_not_applied_for_ever() -> None:
    """The deadline holds also where every reply comes in time."""
    again = Operation(operation().script, 0, (), (), lambda self, reply: self.parts(reply), operation_key="a key")
    with pytest.raises(StoreUnavailableError, match="in time") as late:
        run_sync(Endless(read_topology("redis://127.0.0.1:1")).run(again, timeout_seconds=0.01))
    assert late.value.operation_key == "a key"
