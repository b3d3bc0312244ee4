"""Latency of one operation alone, beside a PING through the same link."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import median
from time import monotonic, perf_counter

import hiredis

from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure
from ducto_redis.benchmark.setting import ACCOUNT, Setting, prepare
from ducto_redis.benchmark.works import WORKS, Work
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.store.redis import RedisStore

_FULL = 2_000


def latency(setting: Setting) -> Iterator[Comparison]:
    """Compare each operation with one in flight (median) with as many PINGs as it takes round trips."""
    for work in WORKS:
        full = setting.count(_FULL)
        manager, ping = "AsyncCreditManager", "PING through the link"
        yield Comparison(
            work=f"{work.name}, 1 in flight, p50",
            unit="µs",
            contenders=[
                Contender(manager, partial(_by_manager, setting, work, full)),
                Contender(ping, partial(_ping, setting, work.round_trips, full)),
            ],
            figures=[Figure(manager, ping, target=work.of_ping)],
        )


def _by_manager(setting: Setting, work: Work, full: int) -> float:
    async def measured(namespace: str) -> float:
        async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            await prepare(manager, ACCOUNT)
            return await _median(lambda number: work.by_manager(manager, ACCOUNT, f"{number:012d}"), full)

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


def _ping(setting: Setting, round_trips: int, full: int) -> float:
    async def measured() -> float:
        store = RedisStore(setting.redis_url)
        ping = hiredis.pack_command(("PING",))
        node = store.link.topology.node_of(0)
        assert node is not None  # one server: it is known without asking

        async def do(number: int) -> None:
            for _ in range(round_trips):
                reply = await store.link.exchange(node, ping, monotonic() + store.link.timeout_seconds)
                if reply != b"PONG":
                    raise BenchmarkError(f"PING was answered with {reply!r:.80}")

        try:
            return await _median(do, full)
        finally:
            await store.close()

    return asyncio.run(measured())


async def _median(do: Callable[[int], Awaitable[object]], full: int) -> float:
    """Return the median of single calls, in microseconds."""
    warm_up = full // 10
    seconds = []
    for number in range(warm_up + full):
        start = perf_counter()
        await do(number)
        seconds.append(perf_counter() - start)
    return median(seconds[warm_up:]) * 1e6
