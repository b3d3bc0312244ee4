"""Operations: how many a second, beside the bare script; and how long one takes alone, beside a PING."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from time import monotonic, perf_counter
from typing import TypeAlias

import hiredis

from benchmarks.bare import RETURN_1, Command, plain_socket, redis_benchmark, redis_benchmark_can
from benchmarks.harness import BenchmarkError, Comparison, Contender, Figure
from benchmarks.setting import Setting, prepare, prepare_namespace
from benchmarks.works import ACCOUNT, WORKS, Work
from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.engine.operation import Operation
from ducto_redis.store.redis import RedisStore

IN_FLIGHT = 256
THREADS = 32

_FULL_THROUGHPUT = 6_000
_FULL_BARE = 20_000
_FULL_LATENCY = 1_000

AsyncWork: TypeAlias = Callable[[str], Awaitable[object]]
"""Does the work once, under an id."""

Measure: TypeAlias = Callable[[AsyncWork, int], Awaitable[float]]
"""Does the work so many times. Returns a sample."""


def throughput(setting: Setting) -> Iterator[Comparison]:
    """Each operation with 256 in flight from one process, and from 32 threads, beside the bare script."""
    for work in WORKS:
        full = setting.count(_FULL_THROUGHPUT)
        manager, store = f"AsyncCreditManager, {IN_FLIGHT} in flight", f"store, {IN_FLIGHT} in flight"
        threads = f"CreditManager, {THREADS} threads"
        bare, nothing = _bare_contenders(setting, work)
        yield Comparison(
            work=work.name,
            unit="/s",
            contenders=[
                Contender(manager, partial(_by_manager, setting, work, _rate, full)),
                Contender(store, partial(_by_store, setting, work, _rate, full)),
                Contender(threads, partial(_by_threads, setting, work, full)),
                bare,
                nothing,
            ],
            figures=[
                Figure(manager, bare.name),
                Figure(store, bare.name),
                Figure(threads, manager),
                Figure(bare.name, nothing.name),
            ],
        )


def latency(setting: Setting) -> Iterator[Comparison]:
    """Each operation with one in flight (median), beside `return 1` and a PING through the same link."""
    for work in WORKS:
        full = setting.count(_FULL_LATENCY)
        manager, store, nothing, ping = (
            "AsyncCreditManager",
            "store",
            "return 1 through the link",
            "PING through the link",
        )
        yield Comparison(
            work=f"{work.name}, 1 in flight",
            unit="µs",
            contenders=[
                Contender(manager, partial(_by_manager, setting, work, _latency, full)),
                Contender(store, partial(_by_store, setting, work, _latency, full)),
                Contender(nothing, partial(_nothing_latency, setting, work, full)),
                Contender(ping, partial(_ping_latency, setting, work.round_trips, full)),
            ],
            figures=[Figure(manager, ping), Figure(store, ping), Figure(store, nothing)],
        )


def _bare_contenders(setting: Setting, work: Work) -> tuple[Contender, Contender]:
    with setting.namespace() as namespace:
        commands = asyncio.run(work.commands(setting, namespace))
    by_redis_benchmark = redis_benchmark_can(setting.redis_url, commands)
    tool = "redis-benchmark -P 16" if by_redis_benchmark else "one plain socket"

    def rate(*, nothing: bool) -> float:
        full = setting.count(_FULL_BARE)
        with setting.namespace() as namespace:
            commands = asyncio.run(work.commands(setting, namespace))
            if nothing:
                commands = [command.doing_nothing() for command in commands]
            _load(setting, commands)
            before = _journalled(setting, namespace)
            if by_redis_benchmark:
                measured = redis_benchmark(setting.redis_url, commands[0], full)
            else:
                measured = plain_socket(setting.redis_url, commands, full)
            made = _journalled(setting, namespace) - before
            expected = 0 if nothing else full * work.journalled
            # redis-benchmark may draw an id twice, and does a few commands more than it was asked for.
            if not 0.99 * expected <= made <= expected + 1000:
                raise BenchmarkError(f"the bare {work.name} made {made} journal entries instead of {expected}")
            return measured

    return (
        Contender(f"bare script, {tool}", partial(rate, nothing=False)),
        Contender(f"return 1, {tool}", partial(rate, nothing=True)),
    )


def _load(setting: Setting, commands: list[Command]) -> None:
    with setting.redis() as client:
        for command in commands:
            client.script_load(command.script.text)


def _journalled(setting: Setting, namespace: str) -> int:
    store = RedisStore(setting.redis_url, namespace=namespace)
    with setting.redis() as client:
        return int(client.xlen(store.namespace.journal(store.namespace.partition_of(ACCOUNT))))


def _by_manager(setting: Setting, work: Work, measure: Measure, full: int) -> float:
    async def measured(namespace: str) -> float:
        async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            await prepare(manager, ACCOUNT)
            return await measure(partial(work.by_manager, manager), full)

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


def _by_store(setting: Setting, work: Work, measure: Measure, full: int) -> float:
    async def measured(namespace: str) -> float:
        store = RedisStore(setting.redis_url, namespace=namespace)
        async with AsyncCreditManager(store) as manager:
            await prepare(manager, ACCOUNT)
            return await measure(partial(work.by_store, store), full)

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


def _by_threads(setting: Setting, work: Work, full: int) -> float:
    per_thread = max(1, full // THREADS)

    def call_after_call(thread: int) -> None:
        for number in range(thread * per_thread, (thread + 1) * per_thread):
            work.by_thread(manager, f"{number:012d}")

    with setting.namespace() as namespace:
        asyncio.run(prepare_namespace(setting, namespace, ACCOUNT))
        with (
            CreditManager.from_url(setting.redis_url, namespace=namespace) as manager,
            ThreadPoolExecutor(THREADS) as pool,
        ):
            list(pool.map(call_after_call, range(THREADS, THREADS + max(1, THREADS // 10))))
            start = perf_counter()
            list(pool.map(call_after_call, range(THREADS)))
            return THREADS * per_thread / (perf_counter() - start)


def _nothing_latency(setting: Setting, work: Work, full: int) -> float:
    async def measured(namespace: str) -> float:
        commands = await work.commands(setting, namespace)
        operations = [Operation(RETURN_1, 0, it.keys, it.args, lambda _, reply: reply) for it in commands]
        async with _closing(RedisStore(setting.redis_url, namespace=namespace)) as store:

            async def do(_: str) -> None:
                for operation in operations:
                    await store.link.run(operation)

            return await _latency(do, full)

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


def _ping_latency(setting: Setting, round_trips: int, full: int) -> float:
    async def measured() -> float:
        ping = hiredis.pack_command(("PING",))
        async with _closing(RedisStore(setting.redis_url)) as store:

            async def do(unique: str) -> None:
                for _ in range(round_trips):
                    await store.link.exchange(ping, monotonic() + store.link.timeout_seconds)

            return await _latency(do, full)

    return asyncio.run(measured())


@asynccontextmanager
async def _closing(store: RedisStore) -> AsyncIterator[RedisStore]:
    try:
        yield store
    finally:
        await store.close()


async def _rate(do: AsyncWork, full: int) -> float:
    """Calls per second, with 256 in flight."""

    async def call_after_call(numbers: Iterator[int]) -> None:
        for number in numbers:
            await do(f"{number:012d}")

    async def all_of(numbers: Iterator[int]) -> None:
        await asyncio.gather(*(call_after_call(numbers) for _ in range(IN_FLIGHT)))

    warm_up = full // 10
    await all_of(iter(range(warm_up)))
    start = perf_counter()
    await all_of(iter(range(warm_up, warm_up + full)))
    return full / (perf_counter() - start)


async def _latency(do: AsyncWork, full: int) -> float:
    """The median of single calls, in microseconds."""
    warm_up = full // 10
    seconds = []
    for number in range(warm_up + full):
        unique = f"{number:012d}"
        start = perf_counter()
        await do(unique)
        seconds.append(perf_counter() - start)
    return median(seconds[warm_up:]) * 1e6
