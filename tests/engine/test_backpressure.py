"""A server that takes or answers nothing for a while: what waits is bounded, in order, and loses nothing."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ducto_redis.engine import async_connection
from ducto_redis.engine.async_connection import AsyncConnection
from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.blocking_link import BlockingLink
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.run_sync import run_sync
from tests.engine.echo import echo
from tests.engine.proxy import Proxy
from tests.servers import Server

PLENTY = 30.0
ROOM = 10
LARGE = 400_000
"""Bytes of a command; a few dozen of them are more than what the system takes for a server that does not read."""


@pytest.fixture
async def link(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncLink]:
    """A connected link with room for ten commands."""
    monkeypatch.setattr(async_connection, "MOST_IN_FLIGHT", ROOM)
    link = AsyncLink(read_topology(proxy.url), timeout_seconds=PLENTY)
    await link.run(echo(0))
    yield link
    await link.close()


def connection_of(link: AsyncLink) -> AsyncConnection:
    (connection,) = link._connections.values()
    return connection


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_no_more_than_there_is_room_for(link: AsyncLink, proxy: Proxy) -> None:
    """Callers beyond the bound wait, and go in the order in which they came."""
    answered: list[int] = []

    async def ask(value: int) -> None:
        answered.append(await link.run(echo(value)))

    proxy.hold_replies()
    tasks = [asyncio.create_task(ask(value)) for value in range(5 * ROOM)]
    connection = connection_of(link)
    await until(lambda: len(connection._waiting) == 4 * ROOM)
    assert len(connection._in_flight) == ROOM
    proxy.release_replies()
    await asyncio.gather(*tasks)
    assert answered == list(range(5 * ROOM))


async def test_callers_that_leave_the_queue(link: AsyncLink, proxy: Proxy) -> None:
    """One that is cancelled, before or after it was given room, leaves its place to the others."""
    proxy.hold_replies()
    tasks = [asyncio.create_task(link.run(echo(value))) for value in range(5 * ROOM)]
    await until(lambda: len(connection_of(link)._waiting) == 4 * ROOM)
    for task in tasks[ROOM + 1 :: 2]:
        task.cancel()
    proxy.release_replies()
    await tasks[0]
    tasks[ROOM].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    patient = [value for value, task in enumerate(tasks) if not task.cancelled()]
    assert [results[value] for value in patient] == patient
    assert len(patient) >= 3 * ROOM - 1


async def test_whoever_comes_meanwhile_waits_behind(
    link: AsyncLink, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that was given and not yet taken is nobody else's."""
    monkeypatch.setattr(async_connection, "MOST_IN_FLIGHT", 1)
    answered: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def ask(value: int) -> None:
        answered.append(await link.run(echo(value)))
        if value < 4:  # at the moment at which the next one has been given its place
            tasks.append(asyncio.create_task(ask(value + 4)))
            await link.run(echo(-1))

    proxy.hold_replies()
    tasks += [asyncio.create_task(ask(value)) for value in range(4)]
    await until(lambda: len(connection_of(link)._waiting) == 3)
    proxy.release_replies()
    while waiting := [task for task in tasks if not task.done()]:
        assert len(connection_of(link)._in_flight) <= 1
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert answered == list(range(8))


async def test_a_place_given_to_one_who_leaves(link: AsyncLink, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that is cancelled between being given a place and taking it leaves it to the next."""
    monkeypatch.setattr(async_connection, "MOST_IN_FLIGHT", 1)
    proxy.hold_replies()

    async def ask_and_cancel_the_next() -> None:
        await link.run(echo(0))
        tasks[1].cancel()

    tasks: list[asyncio.Task[object]] = [asyncio.create_task(ask_and_cancel_the_next())]
    tasks += [asyncio.create_task(link.run(echo(value))) for value in (1, 2)]
    await until(lambda: len(connection_of(link)._waiting) == 2)
    proxy.release_replies()
    assert await asyncio.wait_for(tasks[2], PLENTY / 2) == 2
    assert tasks[1].cancelled()


async def test_no_room_in_time(link: AsyncLink, proxy: Proxy) -> None:
    """Who gets no room until the deadline is told that nothing was sent."""
    proxy.hold_replies()
    tasks = [asyncio.create_task(link.run(echo(value))) for value in range(ROOM)]
    await until(lambda: len(connection_of(link)._in_flight) == ROOM)
    with pytest.raises(StoreUnavailableError, match="not sent"):
        await link.run(echo(-1), timeout_seconds=0.1)
    proxy.release_replies()
    assert await asyncio.gather(*tasks) == list(range(ROOM))


async def test_a_cut_connection_loses_nobody_who_waits(link: AsyncLink, proxy: Proxy) -> None:
    """Those who wait for room go to the next connection."""
    proxy.hold_replies()
    tasks = [asyncio.create_task(link.run(echo(value))) for value in range(5 * ROOM)]
    await until(lambda: len(connection_of(link)._waiting) == 4 * ROOM)
    proxy.cut()
    proxy.release_replies()
    assert await asyncio.gather(*tasks) == list(range(5 * ROOM))
    assert proxy.connections == 2


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """A server that neither reads nor answers."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_server_that_takes_nothing(start_valkey: Callable[..., Server]) -> None:
    """What the system does not take stays in the link's own queue; once the server reads, everybody is answered."""
    server = start_valkey()
    link = AsyncLink(read_topology(server.url), timeout_seconds=PLENTY)
    await link.run(echo(0))
    connection = connection_of(link)
    with stopped(server):
        tasks = [asyncio.create_task(link.run(echo(value, size=LARGE))) for value in range(50)]
        await until(lambda: connection._is_paused)
        late = asyncio.create_task(link.run(echo(50)))
        await until(lambda: connection._unsent)
        with pytest.raises(StoreUnavailableError):
            await link.run(echo(51), timeout_seconds=0.1)
    assert await asyncio.gather(*tasks, late) == list(range(51))
    await link.close()


def test_a_server_that_takes_nothing_from_threads(start_valkey: Callable[..., Server]) -> None:
    """The same with threads; one whose time is over leaves, also in the middle of writing."""
    server = start_valkey()
    link = BlockingLink(read_topology(server.url), timeout_seconds=PLENTY)
    run_sync(link.run(echo(0)))

    def ask(value: int) -> object:
        began = time.monotonic()
        try:
            return run_sync(link.run(echo(value, size=LARGE), timeout_seconds=0.2 if value % 2 else PLENTY))
        except StoreUnavailableError:
            return time.monotonic() - began < PLENTY / 2

    with ThreadPoolExecutor(32) as threads:
        with stopped(server):
            calls = [threads.submit(ask, value) for value in range(32)]
            assert all(call.result() is True for call in calls[1::2])
        assert [call.result() for call in calls[::2]] == list(range(0, 32, 2))
    run_sync(link.close())
