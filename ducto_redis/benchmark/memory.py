"""Bytes kept in Redis: the growth of the server's memory over many items, divided by their number.

So the keys' names, the tables that hold them and what the allocator rounds up are all in it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from time import sleep
from typing import Any

import redis
from msgspec import Struct

from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure, Target
from ducto_redis.benchmark.setting import (
    ACCOUNT,
    Setting,
    account_names,
    copy_account,
    prepare,
)
from ducto_redis.benchmark.throughput import in_flight
from ducto_redis.benchmark.works import ESTIMATE, USAGE
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.store.redis import RedisStore

_FULL = 10_000
_LEASES_OF_ONE_ACCOUNT = 100
_LONGEST_WAIT_SECONDS = 10.0


class Bench(Struct, frozen=True):
    """A prepared namespace, and what looks into it."""

    client: redis.Redis
    store: RedisStore
    manager: AsyncCreditManager
    count: int

    async def grown(self, do: Callable[[], Awaitable[None]]) -> float:
        """By how many bytes the server's memory grows for one of `count`, by `do`; without what it journals."""
        before = used_memory(self.client)
        await do()
        self.trim()
        return (used_memory(self.client) - before) / self.count

    def trim(self) -> None:
        """Forget what the journal holds, as a worker does that has written it to the ledger."""
        for partition in self.store.partitions():
            self.client.xtrim(self.store.namespace.journal(partition), maxlen=0, approximate=False)

    async def each(self, do: Callable[[int], Awaitable[object]]) -> None:
        """`do` for each number below `count`."""
        await in_flight(do, range(self.count))

    def copy_accounts(self, count: int) -> list[str]:
        """Make that many accounts of ACCOUNT. Returns their names."""
        key_of = self.store.namespace.account
        names = account_names(count)
        copy_account(self.client, key_of(ACCOUNT).keys[0], (key_of(name).keys[0] for name in names))
        return names


def memory(setting: Setting) -> Iterator[Comparison]:
    """Measure an idle account, a live lease, a journal entry, an idempotency record."""
    kinds: list[tuple[str, Callable[[Bench], Awaitable[float]], Target | None]] = [
        ("idle account", _idle_account, Target(at_most=200)),
        ("live lease, the only one of its account", _live_lease, Target(at_most=250)),
        (f"live lease, {_LEASES_OF_ONE_ACCOUNT} on each account", _many_leases, None),
        ("journal entry", _journal_entry, Target(at_most=150)),
        ("idempotency record", _idempotency_record, Target(at_most=170)),
    ]
    yield Comparison(
        work="memory in Redis",
        unit="bytes",
        contenders=[Contender(name, partial(_measure, setting, measure)) for name, measure, _ in kinds],
        figures=[Figure(name, target=target) for name, _, target in kinds],
    )


def _measure(setting: Setting, measure: Callable[[Bench], Awaitable[float]]) -> float:
    async def measured() -> float:
        with setting.namespace() as namespace:
            async with _bench(setting, namespace) as bench:
                return await measure(bench)

    return asyncio.run(measured())


@asynccontextmanager
async def _bench(setting: Setting, namespace: str) -> AsyncIterator[Bench]:
    store = RedisStore(setting.redis_url, namespace=namespace)
    with setting.redis() as client:
        async with AsyncCreditManager(store) as manager:
            await prepare(manager, ACCOUNT)
            # An account that has been used: charged, and with a lease that is closed again.
            await manager.deduct(ACCOUNT, USAGE)
            lease = await manager.reserve(ACCOUNT, ESTIMATE)
            await manager.settle(ACCOUNT, lease.lease_id, USAGE)
            bench = Bench(client, store, manager, setting.count(_FULL))
            bench.trim()
            yield bench


async def _idle_account(bench: Bench) -> float:
    async def do() -> None:
        bench.copy_accounts(bench.count)

    return await bench.grown(do)


async def _live_lease(bench: Bench) -> float:
    names = bench.copy_accounts(bench.count)
    return await bench.grown(lambda: bench.each(lambda number: bench.manager.reserve(names[number], ESTIMATE)))


async def _many_leases(bench: Bench) -> float:
    names = bench.copy_accounts(bench.count // _LEASES_OF_ONE_ACCOUNT + 1)
    return await bench.grown(
        lambda: bench.each(
            lambda number: bench.manager.reserve(names[number // _LEASES_OF_ONE_ACCOUNT], ESTIMATE),
        )
    )


async def _journal_entry(bench: Bench) -> float:
    """Return the bytes freed when the entries of so many charges are trimmed."""
    await bench.each(lambda number: bench.manager.deduct(ACCOUNT, USAGE, idempotency_key=f"request-{number:012d}"))
    before = used_memory(bench.client)
    kept = _journalled(bench)
    bench.trim()
    if kept < bench.count:
        raise BenchmarkError(f"the journal holds {kept} entries instead of {bench.count}")
    return (before - used_memory(bench.client)) / kept


async def _idempotency_record(bench: Bench) -> float:
    return await bench.grown(
        lambda: bench.each(
            lambda number: bench.manager.deduct(ACCOUNT, USAGE, idempotency_key=f"request-{number:012d}")
        )
    )


def _journalled(bench: Bench) -> int:
    return sum(int(bench.client.xlen(bench.store.namespace.journal(it))) for it in bench.store.partitions())


def used_memory(client: redis.Redis) -> int:
    """Bytes that the server holds for data: without its clients' buffers and that of the append-only file.

    What is being freed in the background is waited for.
    """
    waited = 0.0
    while True:
        used: Any = client.info("memory")
        if not used.get("lazyfree_pending_objects") or waited > _LONGEST_WAIT_SECONDS:
            buffers = ("mem_clients_normal", "mem_clients_slaves", "mem_aof_buffer")
            return int(used["used_memory"]) - sum(int(used.get(name, 0)) for name in buffers)
        waited += 0.02
        sleep(0.02)
