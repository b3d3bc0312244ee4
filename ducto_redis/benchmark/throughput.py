"""Operations a second, from an event loop and from threads, beside the bare script."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from ducto_redis.benchmark.bare import Command, plain_socket, redis_benchmark, redis_benchmark_can
from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure
from ducto_redis.benchmark.setting import ACCOUNT, Setting, prepare, prepare_namespace
from ducto_redis.benchmark.works import WORKS, Work
from ducto_redis.manager import AsyncCreditManager, CreditManager
from ducto_redis.store.redis import RedisStore

IN_FLIGHT = 256
THREADS = 32

_FULL_ASYNC = 12_000
_FULL_THREADS = 6_000
_FULL_BARE = 20_000


def throughput(setting: Setting) -> Iterator[Comparison]:
    """Compare each operation, with 256 in flight from one process and from 32 threads, with the bare script."""
    for work in WORKS:
        manager, threads = f"AsyncCreditManager, {IN_FLIGHT} in flight", f"CreditManager, {THREADS} threads"
        bare, nothing = _bare_contenders(setting, work)
        yield Comparison(
            work=work.name,
            unit="/s",
            contenders=[
                Contender(manager, partial(_by_manager, setting, work, setting.count(_FULL_ASYNC))),
                Contender(threads, partial(_by_threads, setting, work, setting.count(_FULL_THREADS))),
                bare,
                nothing,
            ],
            figures=[
                Figure(manager, bare.name, target=work.share),
                Figure(threads, manager, target=work.threads_share),
                Figure(bare.name, nothing.name, target=work.of_nothing),
            ],
        )


async def in_flight(do: Callable[[int], Awaitable[object]], numbers: Iterable[int]) -> None:
    """Call with each number, 256 at a time."""
    waiting = iter(numbers)

    async def call_after_call() -> None:
        for number in waiting:
            await do(number)

    await asyncio.gather(*(call_after_call() for _ in range(IN_FLIGHT)))


async def rate_in_flight(do: Callable[[int], Awaitable[object]], full: int) -> float:
    """Calls per second, with 256 in flight. Each is given a number of its own; a tenth more warms up."""
    warm_up = full // 10
    await in_flight(do, range(warm_up))
    start = perf_counter()
    await in_flight(do, range(warm_up, warm_up + full))
    return full / (perf_counter() - start)


def rate_in_threads(do: Callable[[int], object], full: int) -> float:
    """Calls per second from 32 threads. Each call is given a number of its own; a tenth more warms up."""
    per_thread = max(1, full // THREADS)

    def call_after_call(numbers: range) -> None:
        for number in numbers:
            do(number)

    def numbers_of(thread: int) -> range:
        return range(thread * per_thread, (thread + 1) * per_thread)

    with ThreadPoolExecutor(THREADS) as pool:
        warm_up = max(1, per_thread // 10)
        list(pool.map(call_after_call, [numbers_of(THREADS + thread)[:warm_up] for thread in range(THREADS)]))
        start = perf_counter()
        list(pool.map(call_after_call, map(numbers_of, range(THREADS))))
        return THREADS * per_thread / (perf_counter() - start)


def _by_manager(setting: Setting, work: Work, full: int) -> float:
    async def measured(namespace: str) -> float:
        async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            await prepare(manager, ACCOUNT)
            rate = await rate_in_flight(lambda number: work.by_manager(manager, ACCOUNT, f"{number:012d}"), full)
            _check(work, (await manager.get_balance(ACCOUNT)).seq, full)
            return rate

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


def _by_threads(setting: Setting, work: Work, full: int) -> float:
    with setting.namespace() as namespace:
        asyncio.run(prepare_namespace(setting, namespace, ACCOUNT))
        with CreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            rate = rate_in_threads(lambda number: work.by_thread(manager, ACCOUNT, f"{number:012d}"), full)
            _check(work, manager.get_balance(ACCOUNT).seq, full // THREADS * THREADS)
            return rate


def _check(work: Work, changes: int, full: int) -> None:
    if changes < full * work.journalled:
        raise BenchmarkError(f"{work.name} changed the account {changes} times instead of {full * work.journalled}")


def _bare_contenders(setting: Setting, work: Work) -> tuple[Contender, Contender]:
    with setting.namespace() as namespace:
        commands = asyncio.run(work.commands(setting, namespace))
    by_redis_benchmark = redis_benchmark_can(setting.redis_url, commands)
    tool = "redis-benchmark -P 16" if by_redis_benchmark else "one plain socket"
    full = setting.count(_FULL_BARE)

    def rate(*, nothing: bool) -> float:
        with setting.namespace() as namespace:
            commands = asyncio.run(work.commands(setting, namespace))
            if nothing:
                commands = [command.doing_nothing() for command in commands]
            load_scripts_of(setting, commands)
            before = journalled(setting, namespace)
            if by_redis_benchmark:
                measured = redis_benchmark(setting.redis_url, commands[0], full)
            else:
                measured = plain_socket(setting.redis_url, commands, full)
            made = journalled(setting, namespace) - before
            expected = 0 if nothing else full * work.journalled
            # redis-benchmark may draw an id twice, and does a few commands more than it was asked for.
            if not 0.99 * expected <= made <= expected + 1000:
                raise BenchmarkError(f"the bare {work.name} made {made} journal entries instead of {expected}")
            return measured

    return (
        Contender(f"bare script, {tool}", partial(rate, nothing=False)),
        Contender(f"return 1, {tool}", partial(rate, nothing=True)),
    )


def load_scripts_of(setting: Setting, commands: list[Command]) -> None:
    """Load the commands' scripts, so that EVALSHA finds them."""
    with setting.redis() as client:
        for command in commands:
            client.script_load(command.script.text)


def journalled(setting: Setting, namespace: str, account: str = ACCOUNT) -> int:
    """Entries in the journal of an account's partition."""
    store = RedisStore(setting.redis_url, namespace=namespace)
    with setting.redis() as client:
        return int(client.xlen(store.namespace.journal(store.namespace.partition_of(account))))
