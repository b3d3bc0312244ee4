"""The cost of the number of accounts: one hot account beside many, and a thousand beside a million."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import redis

from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure, Target
from ducto_redis.benchmark.setting import (
    ACCOUNT,
    Setting,
    account_names,
    copy_account,
    prepare_namespace,
    some_of,
)
from ducto_redis.benchmark.throughput import rate_in_flight
from ducto_redis.benchmark.works import DEDUCT
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.store.redis import RedisStore

MANY = 10_000
FEW_ACCOUNTS, MOST_ACCOUNTS = 1_000, 1_000_000

_FULL_CHARGES = 15_000
_FULL_GROWTH_CHARGES = 30_000
_BYTES_PER_ACCOUNT = 400
"""More than an account takes: what must be free before so many are written."""
_QUIET_SECONDS = 0.3

Measure = Callable[[AsyncCreditManager, list[str]], Awaitable[float]]
"""Charges each account of the list once, under ids that no other call has. Returns a sample."""


def accounts(setting: Setting) -> Iterator[Comparison]:
    """`deduct` with 256 in flight on one account, and on 10,000 that are drawn at random."""
    many = setting.count(MANY)
    full = setting.count(_FULL_CHARGES)
    one, others = "one hot account", f"{many:,} accounts"
    with setting.namespace() as namespace:
        names = account_names(many)
        fill(setting, namespace, names)

        def measure(among: list[str], seed: int) -> float:
            drawn = some_of(among, full + full // 10, seed)
            return asyncio.run(_charged(setting, namespace, partial(_rate, full=full), drawn))

        yield Comparison(
            work="deduct, 256 in flight",
            unit="/s",
            contenders=[
                Contender(one, partial(measure, [ACCOUNT], setting.seed)),
                Contender(others, partial(measure, names, setting.seed)),
            ],
            figures=[Figure(one, others, target=Target(0.9, 1.1))],
        )


def growth(setting: Setting) -> Iterator[Comparison]:
    """Processor time of the server for one `deduct`, with a thousand accounts and with a million."""
    most = max(FEW_ACCOUNTS, setting.count(MOST_ACCOUNTS))
    full = setting.count(_FULL_GROWTH_CHARGES)
    _check_memory(setting, most)
    with setting.namespace() as small, setting.namespace() as large:
        few_names, most_names = account_names(FEW_ACCOUNTS), account_names(most)
        fill(setting, small, few_names)
        fill(setting, large, most_names)
        few, many = f"{FEW_ACCOUNTS:,} accounts", f"{most:,} accounts"

        def measure(namespace: str, among: list[str]) -> float:
            drawn = some_of(among, full + full // 10, setting.seed)
            return asyncio.run(_charged(setting, namespace, partial(_server_time, setting=setting, full=full), drawn))

        yield Comparison(
            work="deduct, the server's processor",
            unit="µs",
            contenders=[
                Contender(many, partial(measure, large, most_names)),
                Contender(few, partial(measure, small, few_names)),
            ],
            figures=[Figure(many, few, target=Target(at_most=1.15))],
        )


def fill(setting: Setting, namespace: str, names: Sequence[str]) -> None:
    """Make a namespace with these accounts, and ACCOUNT, each of which has plenty."""
    asyncio.run(prepare_namespace(setting, namespace, ACCOUNT))
    key_of = RedisStore(setting.redis_url, namespace=namespace).namespace.account
    with setting.redis() as client:
        copy_account(client, key_of(ACCOUNT).keys[0], (key_of(name).keys[0] for name in names if name != ACCOUNT))


async def _charged(setting: Setting, namespace: str, measure: Measure, drawn: list[str]) -> float:
    async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
        before = (await manager.get_balance(drawn[0])).seq
        sample = await measure(manager, drawn)
        if (await manager.get_balance(drawn[0])).seq - before < drawn.count(drawn[0]):
            raise BenchmarkError("an account was not charged as often as it was drawn")
        return sample


_RUN = iter(range(10**6))


def _ids() -> Callable[[int], str]:
    """Ids of twelve digits that no other sample of this process has."""
    run = next(_RUN)
    return lambda number: f"{run:05d}{number:07d}"


async def _rate(manager: AsyncCreditManager, drawn: list[str], *, full: int) -> float:
    unique = _ids()
    return await rate_in_flight(lambda number: DEDUCT.by_manager(manager, drawn[number], unique(number)), full)


async def _server_time(manager: AsyncCreditManager, drawn: list[str], *, setting: Setting, full: int) -> float:
    """Microseconds of the server's processor for one charge."""
    unique = _ids()

    async def charge(number: int) -> None:
        await DEDUCT.by_manager(manager, drawn[number], unique(number))

    with setting.redis() as client:
        await asyncio.sleep(_QUIET_SECONDS)  # what it still tidies up in the background is not this contender's
        before = _processor_seconds(client)
        await rate_in_flight(charge, full)
        return (_processor_seconds(client) - before) / len(drawn) * 1e6


def _processor_seconds(client: redis.Redis) -> float:
    """Return the processor time of the server's main thread; where it is not reported, of all its threads."""
    used: Any = client.info("cpu")
    names = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
    if not all(name in used for name in names):
        names = ("used_cpu_user", "used_cpu_sys")
    return sum(float(used[name]) for name in names)


def _check_memory(setting: Setting, count: int) -> None:
    with setting.redis() as client:
        memory: Any = client.info("memory")
    limit, needed = int(memory.get("maxmemory", 0)), count * _BYTES_PER_ACCOUNT
    if limit and int(memory["used_memory"]) + needed > limit:
        raise BenchmarkError(
            f"{count:,} accounts need some {needed // 2**20} MiB more than the server's maxmemory leaves; choose other "
            "families, or a server with more memory"
        )
