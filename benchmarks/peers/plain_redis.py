"""The script of `deduct` itself, with the same KEYS and ARGV, by redis-py: one EVALSHA awaited per request."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio

from benchmarks.peers.peer import Peer, check
from benchmarks.setting import Setting
from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.accounts import fill
from ducto_redis.benchmark.bare import UNIQUE, Command
from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.benchmark.setting import some_of
from ducto_redis.benchmark.throughput import in_flight, rate_in_flight
from ducto_redis.benchmark.works import DEDUCT, record
from ducto_redis.store.redis import RedisStore

CONNECTIONS = 32

_NAME = "redis-py, EVALSHA of the same script"
_LACKS = (
    "prices, the reading of replies and refusals, retries with the same key, deadlines, a circuit breaker: all that"
    " stands around the script. The script itself is ours, with idempotency and journal"
)


def _rate(setting: Setting, accounts: Sequence[str], full: int) -> float:
    with setting.namespace() as namespace:
        fill(setting, namespace, accounts)
        commands = asyncio.run(_recorded(setting, namespace, accounts))
        drawn = some_of(accounts, full + full // 10, setting.seed)
        # The arguments of each call are made before the clock starts.
        calls = [commands[account].with_id(b"%012d" % number)[1:] for number, account in enumerate(drawn)]
        before = _journalled(setting, namespace)
        rate = asyncio.run(_measured(setting, calls, full))
        check(_NAME, _journalled(setting, namespace) - before, len(drawn))
        return rate


async def _measured(setting: Setting, calls: Sequence[Sequence[bytes]], full: int) -> float:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        setting.redis_url, max_connections=CONNECTIONS, timeout=None, protocol=2
    )
    client: Any = redis.asyncio.Redis(connection_pool=pool)

    async def charge(number: int) -> None:
        sha, keys, *arguments = calls[number]
        reply = await client.evalsha(sha, int(keys), *arguments)
        if not reply.startswith(b"ok\t"):
            raise BenchmarkError(f"the script refused: {reply!r:.200}")

    try:
        return await rate_in_flight(charge, full)
    finally:
        await client.aclose()
        await pool.disconnect()


async def _recorded(setting: Setting, namespace: str, accounts: Sequence[str]) -> dict[str, Command]:
    store = RedisStore(setting.redis_url, namespace=namespace)
    async with AsyncCreditManager(store) as manager:
        await manager.get_balance(accounts[0])
        commands: list[Command] = []

        async def charge(number: int) -> None:
            await DEDUCT.by_manager(manager, accounts[number], UNIQUE)

        commands = await record(setting, store, lambda: in_flight(charge, range(len(accounts))))
    by_account = {store.namespace.account(account).keys[0]: account for account in accounts}
    # The manager may have looked for a new pricing document in between.
    return {by_account[command.keys[0]]: command for command in commands if command.keys[0] in by_account}


def _journalled(setting: Setting, namespace: str) -> int:
    store = RedisStore(setting.redis_url, namespace=namespace)
    with setting.redis() as client:
        return sum(int(client.xlen(store.namespace.journal(partition))) for partition in store.partitions())


PEERS = [Peer(_NAME, _rate, True, _LACKS)]
