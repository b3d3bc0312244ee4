"""The server dies again and again under load, and every call is made until it is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from ducto_redis import AsyncCreditManager
from ducto_redis.engine.entry import decode_entry
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import StoreUnavailableError
from tests.servers import Server

CALLERS, CALLS, KILLS = 16, 40, 5


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_every_charge_is_made_once(start_valkey: Callable[..., Server], appendfsync: str) -> None:
    """Whatever was in flight when the server was killed: asked again with its key, it takes effect exactly once."""
    server = start_valkey(appendfsync=appendfsync)
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.add_credits("u1", 100_000)
        done = 0

        async def until_answered(call: Callable[[], Awaitable[object]]) -> None:
            nonlocal done
            while True:
                try:
                    await call()
                except StoreUnavailableError:
                    await asyncio.sleep(0.01)
                else:
                    done += 1
                    return

        async def spend(caller: int) -> None:
            for number in range(CALLS):
                key = f"{caller}-{number}"
                await until_answered(partial(manager.deduct, "u1", 1, idempotency_key=key))
                await until_answered(partial(manager.reserve, "u1", 5, lease_id=key))
                await until_answered(partial(manager.settle, "u1", key, 2))

        async def kill() -> None:
            for step in range(1, KILLS + 1):
                while done < step * CALLERS * CALLS * 3 // (KILLS + 1):
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)

        await asyncio.gather(kill(), *(spend(caller) for caller in range(CALLERS)))
        balance = await manager.get_balance("u1")
        assert balance.balance == 100_000 - CALLERS * CALLS * 3
        assert balance.held == 0
        assert balance.seq == 1 + CALLERS * CALLS * 3

        client, namespace = manager.store.redis(), manager.store.namespace
        partition = namespace.partition_of("u1")
        state = AccountState.fold(
            decode_entry(partition, entry_id.decode(), fields[b"entry"])
            for entry_id, fields in client.xrange(namespace.journal(partition))
        )
        keys = namespace.account("u1").keys
        assert state.fields == {name.decode(): value.decode() for name, value in client.hgetall(keys[0]).items()}
        assert state.leases == {}
