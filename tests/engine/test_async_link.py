"""The link of an event loop, against a real server and through a proxy that fails on purpose."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.operation import PLAIN, NewGrant, Price
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import ConfigError, StoreError, StoreUnavailableError
from ducto_redis.store import RedisStore
from ducto_redis.testing import assert_fold
from ducto_redis.testing.calls import ACCOUNT, add, deduct, key, numbers_of, reserve, settle
from tests.engine.echo import echo
from tests.engine.proxy import Proxy
from tests.servers import Server

PLENTY = 30.0


@pytest.fixture
async def link(proxy: Proxy) -> AsyncIterator[AsyncLink]:
    """A link through the proxy, connected."""
    link = AsyncLink(read_topology(proxy.url), timeout_seconds=PLENTY)
    await link.run(echo(0))
    yield link
    await link.close()


@pytest.fixture
async def store(proxy: Proxy, namespace: str) -> AsyncIterator[RedisStore]:
    """A store through the proxy, connected, its namespace created."""
    store = RedisStore(proxy.url, namespace=namespace, partitions=1, timeout_seconds=PLENTY)
    await store.create_namespace()
    yield store
    await store.close()


async def test_everybody_gets_their_own_reply(link: AsyncLink, proxy: Proxy) -> None:
    """A thousand operations at once, small and large, share one connection and never mix their replies."""
    values = range(1000)
    operations = (link.run(echo(value, size=20_000 if value % 50 == 0 else 0)) for value in values)
    assert await asyncio.gather(*operations) == list(values)
    assert proxy.connections == 1


async def test_cancelled_before_it_was_sent(link: AsyncLink) -> None:
    """A caller that leaves before its command was written disturbs nobody."""
    tasks = [asyncio.create_task(link.run(echo(value))) for value in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for value, result in enumerate(results):
        assert isinstance(result, asyncio.CancelledError) if value % 3 == 0 else result == value


async def test_cancelled_while_its_reply_is_under_way(link: AsyncLink, proxy: Proxy) -> None:
    """A caller that leaves before its reply arrives disturbs nobody: the reply is dropped in its place."""
    proxy.hold_replies()
    tasks = [asyncio.create_task(link.run(echo(value))) for value in range(100)]
    await asyncio.to_thread(proxy.wait_for_replies)
    for task in tasks[::3]:
        task.cancel()
    proxy.release_replies()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [n for n in range(100) if n % 3]
    assert await link.run(echo(7)) == 7
    assert proxy.connections == 1


async def test_deadline(link: AsyncLink, proxy: Proxy) -> None:
    """Who has no more time gets an error with the key; the reply that comes later goes to nobody."""
    proxy.hold_replies()
    patient = asyncio.create_task(link.run(echo(2)))
    with pytest.raises(StoreUnavailableError, match="in time") as unavailable:
        await link.run(echo(1), timeout_seconds=0.1)
    assert unavailable.value.operation_key == "key 1"
    proxy.release_replies()
    assert await patient == 2
    assert await link.run(echo(3)) == 3
    assert proxy.connections == 1


@pytest.mark.parametrize(
    "failure", ["cut_before_next_reply", "half_close_before_next_reply", "cut_in_the_middle_of_next_reply"]
)
async def test_charged_once_though_the_reply_was_lost(store: RedisStore, proxy: Proxy, failure: str) -> None:
    """An operation that took effect and whose connection was lost is asked for again, and takes effect once."""
    await add(store, 101)
    await deduct(store, 1, "so that the script is known")
    getattr(proxy, failure)()
    charged = await deduct(store, 10)
    assert charged.replayed
    assert await numbers_of(store) == (90, 0, 90)
    assert proxy.connections == 2


async def test_everything_in_flight_is_done_once(store: RedisStore, proxy: Proxy) -> None:
    """A connection that is cut under a hundred operations costs none of them, and doubles none."""
    await add(store, 1000)
    proxy.cut_before_next_reply()
    await asyncio.gather(*(deduct(store, 1, f"charge {number}") for number in range(100)))
    assert await numbers_of(store) == (900, 0, 900)
    assert_fold(store)


async def test_unknown_outcome(store: RedisStore, proxy: Proxy) -> None:
    """A charge whose answer did not come in time may have been made: its key says so, and never charges twice."""
    await add(store, 101)
    await deduct(store, 1, "so that the script is known")
    proxy.hold_replies()
    price, operation_key = Price(10), key("a charge")
    with pytest.raises(StoreUnavailableError) as unknown:
        charge = store.operations.deduct(ACCOUNT, price, operation_key, floor=0, conditions=PLAIN, cause=b"")
        await store.link.run(charge, timeout_seconds=0.2)
    assert unknown.value.operation_key == "a charge"
    await asyncio.to_thread(proxy.wait_for_replies)
    proxy.release_replies()
    assert (await deduct(store, 10)).replayed
    assert await numbers_of(store) == (90, 0, 90)


async def test_nobody_listens() -> None:
    """A server that is not there is an error, when time runs out."""
    link = AsyncLink(read_topology("redis://127.0.0.1:1/0"), timeout_seconds=0.2)
    with pytest.raises(StoreUnavailableError, match="could not be reached") as unavailable:
        await link.run(echo(1))
    assert unavailable.value.operation_key == "key 1"
    await link.close()


async def test_silent_connection_is_replaced(proxy: Proxy) -> None:
    """A connection from which nothing comes any more is given up while there is time for another."""
    link = AsyncLink(read_topology(proxy.url), timeout_seconds=2.0)
    await link.run(echo(0))
    proxy.silence()
    with pytest.raises(StoreUnavailableError):
        await link.run(echo(1), timeout_seconds=0.1)
    assert await link.run(echo(2)) == 2
    proxy.cut()
    proxy.silence_next_connection()
    assert await link.run(echo(3)) == 3
    await link.close()


async def test_closed_link_connects_again(link: AsyncLink, proxy: Proxy) -> None:
    """A link that was closed is connected again when it is used again."""
    await link.close()
    assert await link.run(echo(1)) == 1
    assert proxy.connections == 2


def test_another_event_loop(proxy: Proxy) -> None:
    """A link follows its user into another event loop, with a connection of that loop."""
    link = AsyncLink(read_topology(proxy.url), timeout_seconds=PLENTY)

    async def once(value: int) -> int:
        try:
            return await link.run(echo(value))
        finally:
            await link.close()

    assert [asyncio.run(once(value)) for value in range(3)] == [0, 1, 2]


async def test_scripts_are_flushed_under_traffic(store: RedisStore) -> None:
    """A server that forgets its scripts again and again gets them again; every charge is made, once."""
    await add(store, 1000)
    for turn in range(10):
        charges = [asyncio.create_task(deduct(store, 1, f"charge {turn}.{number}")) for number in range(30)]
        await asyncio.to_thread(store.redis().script_flush)
        await asyncio.gather(*charges)
    assert await numbers_of(store) == (700, 0, 700)
    assert_fold(store)


async def test_full_memory(start_valkey: Callable[..., Server]) -> None:
    """A server whose memory is full opens nothing and says so, while settle, release and expiry work."""
    server = start_valkey()
    store = RedisStore(server.url, partitions=1, timeout_seconds=PLENTY)
    await store.create_namespace()
    await add(store, 100)
    for lease_id in ("settled", "released"):
        await reserve(store, lease_id, 10)
    store.redis().config_set("maxmemory", 1)
    for refused in (add(store, 1, "more"), reserve(store, "new", 1), deduct(store, 1)):
        with pytest.raises(StoreError, match="memory is full"):
            await refused
    assert (await settle(store, "settled", 5)).amount
    await store.release(ACCOUNT, "released", cause=b"")
    assert await numbers_of(store) == (95, 0, 95)
    assert_fold(store)
    await store.close()


async def test_credentials(start_valkey: Callable[..., Server]) -> None:
    """Wrong credentials, and rights that do not suffice, are told, and the password is not."""
    server = start_valkey()
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser("weak", enabled=True, passwords=["+a-secret"], keys=["*"], commands=["+@connection"])
    for user, password in (("weak", "a-secret"), ("weak", "another-secret")):
        link = AsyncLink(read_topology(f"redis://{user}:{password}@127.0.0.1:{server.port}/0"), timeout_seconds=PLENTY)
        with pytest.raises(StoreError) as refused:
            await link.run(echo(1))
        assert "secret" not in str(refused.value)
        await link.close()


@pytest.mark.parametrize("url", ["http://h", "redis://h:port", "", "memory://", "redis://:secret@h:1/0?db=x"])
def test_refused_urls(url: str) -> None:
    """What is no URL of a server is refused at once, without its password."""
    with pytest.raises(ConfigError) as refused:
        AsyncLink(read_topology(url))
    assert "secret" not in str(refused.value)


async def test_price_is_sent_digit_for_digit(store: RedisStore) -> None:
    """The largest amount arrives as it was sent."""
    await store.add_credits(ACCOUNT, NewGrant(2**53 - 1, "purchase"), key("all"), conditions=PLAIN, cause=b"")
    charged = await store.deduct(ACCOUNT, Price(2**53 - 2), key("nearly all"), floor=0, conditions=PLAIN, cause=b"")
    assert (str(charged.amount), str(charged.balance_after)) == ("9007199254.740990", "0.000001")
