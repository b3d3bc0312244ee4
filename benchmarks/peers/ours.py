"""ducto-redis, doing what the peers do, and what they do not."""

import asyncio
from collections.abc import Sequence

from benchmarks.setting import Setting
from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.benchmark.accounts import fill
from ducto_redis.benchmark.setting import some_of
from ducto_redis.benchmark.throughput import THREADS, rate_in_flight, rate_in_threads
from ducto_redis.benchmark.works import DEDUCT


def async_rate(setting: Setting, accounts: Sequence[str], full: int) -> float:
    """`deduct` of a usage to price, with an idempotency key."""
    drawn = some_of(accounts, full + full // 10, setting.seed)

    async def measured(namespace: str) -> float:
        async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            return await rate_in_flight(
                lambda number: DEDUCT.by_manager(manager, drawn[number], f"{number:012d}"), full
            )

    with setting.namespace() as namespace:
        fill(setting, namespace, accounts)
        return asyncio.run(measured(namespace))


def threads_rate(setting: Setting, accounts: Sequence[str], full: int) -> float:
    """Charge from threads."""
    drawn = some_of(accounts, 2 * full + THREADS, setting.seed)
    with setting.namespace() as namespace:
        fill(setting, namespace, accounts)
        with CreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            return rate_in_threads(
                lambda number: DEDUCT.by_thread(manager, drawn[number % len(drawn)], f"{number:012d}"), full
            )
