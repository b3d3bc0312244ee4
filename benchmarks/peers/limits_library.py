"""`limits`: a fixed window, counted in Redis."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import coredis
import redis.asyncio
from limits import RateLimitItemPerDay
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as AsyncFixedWindow
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from benchmarks.peers.peer import CHARGE, Peer, check
from benchmarks.setting import Setting
from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.benchmark.setting import some_of
from ducto_redis.benchmark.throughput import THREADS, rate_in_flight, rate_in_threads

CONNECTIONS = 32

_PLENTY = RateLimitItemPerDay(10**15)
_ASYNC = "limits, fixed window, asyncio"
_THREADS = f"limits, fixed window, {THREADS} threads"
_LACKS = (
    "idempotency (a retry counts twice), journal, balances, holds, prices; one counter that a window's end sets to 0,"
    " and that has been raised also where the limit refused"
)


def _async_rate(setting: Setting, accounts: Sequence[str], full: int, *, implementation: str) -> float:
    drawn = some_of(accounts, full + full // 10, setting.seed)

    async def measured(namespace: str) -> float:
        # As many callers as may wait take turns on a pool of connections.
        pool: Any
        if implementation == "coredis":
            pool = coredis.BlockingConnectionPool.from_url(setting.redis_url, max_connections=CONNECTIONS)
        else:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                setting.redis_url, max_connections=CONNECTIONS, timeout=None
            )
        storage = AsyncRedisStorage(
            f"async+{setting.redis_url}",
            implementation=implementation,  # type: ignore[arg-type]
            key_prefix=namespace,
            connection_pool=pool,
        )
        window = AsyncFixedWindow(storage)

        async def charge(number: int) -> None:
            if not await window.hit(_PLENTY, drawn[number], cost=CHARGE):
                raise BenchmarkError("limits refused a charge")

        try:
            return await rate_in_flight(charge, full)
        finally:
            closing = pool.disconnect()
            if closing is not None:
                await closing

    with setting.namespace() as namespace:
        rate = asyncio.run(measured(namespace))
        check(_ASYNC, _counted_and_forgotten(setting, namespace), len(drawn))
        return rate


def _threads_rate(setting: Setting, accounts: Sequence[str], full: int) -> float:
    drawn = some_of(accounts, 2 * full + THREADS, setting.seed)
    calls = 0
    with setting.namespace() as namespace:
        window = FixedWindowRateLimiter(RedisStorage(setting.redis_url, key_prefix=namespace))

        def charge(number: int) -> None:
            if not window.hit(_PLENTY, drawn[number % len(drawn)], cost=CHARGE):
                raise BenchmarkError("limits refused a charge")

        rate = rate_in_threads(charge, full)
        calls = _counted_and_forgotten(setting, namespace)
        if calls < full // THREADS * THREADS:
            check(_THREADS, calls, full)
        return rate


def _counted_and_forgotten(setting: Setting, namespace: str) -> int:
    """Return how many charges the counters hold, and delete them."""
    with setting.redis() as client:
        keys = list(client.scan_iter(f"{namespace}*", count=1000))
        values: Any = client.mget(keys) if keys else []
        if keys:
            client.unlink(*keys)
    return sum(map(int, values)) // CHARGE


PEERS = [
    Peer(f"{_ASYNC} by coredis", partial(_async_rate, implementation="coredis"), True, _LACKS),
    Peer(f"{_ASYNC} by redis-py", partial(_async_rate, implementation="redispy"), True, _LACKS),
    Peer(_THREADS, _threads_rate, False, _LACKS),
]
