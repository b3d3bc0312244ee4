"""A manager in memory, with prices and an account that has credits."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Scope

from ducto_redis import AsyncCreditManager, MemoryStore
from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import until

PRICING = {
    "version": 1,
    "models": {
        "m": "input_tokens * 0.001 + output_tokens * 0.01",
        # Every part of a usage has its own digits in the price.
        "digits": "input_tokens * 0.000001 + output_tokens * 0.01 + cache_read_tokens * 100 + reasoning_tokens * 1e6",
        "divided": "input_tokens * 0.001 + 1 / output_tokens",
        "render": "gpu_seconds * 0.5",
        "free": "0 * requests",
    },
    "measures": ["gpu_seconds"],
    "tools": {"search": "tool_calls * 2"},
}

FUNDS = Decimal(100)


class Accounts:
    """What the accounts of a manager look like from outside."""

    def __init__(self, manager: AsyncCreditManager) -> None:
        self.manager = manager

    async def spent(self, account: str = "u1") -> Decimal:
        """Credits charged so far; asserts that nothing is held any more."""
        balance = await self.manager.get_balance(account)
        assert balance.held == 0
        assert await self.manager.list_leases(account) == []
        return FUNDS - balance.balance

    def journal(self, account: str = "u1") -> list[JournalEntry]:
        """Everything that was journalled for an account."""
        namespace, redis = self.manager.store.namespace, self.manager.store.redis()
        partition = namespace.partition_of(account)
        raw = redis.xrange(namespace.journal(partition))
        entries = [decode_entry(partition, entry_id.decode(), fields[b"entry"]) for entry_id, fields in raw]
        return [entry for entry in entries if entry.account == account]

    async def settled(self, account: str = "u1") -> Decimal:
        """Wait until nothing is held any more; return the credits charged so far."""

        async def nothing_held() -> bool:
            return not await self.held(account)

        await until(nothing_held)
        return await self.spent(account)

    async def held(self, account: str = "u1") -> Decimal:
        return (await self.manager.get_balance(account)).held


@pytest.fixture
async def manager() -> AsyncIterator[AsyncCreditManager]:
    """A manager in memory, priced, whose account u1 has 100 credits."""
    async with AsyncCreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture
def accounts(manager: AsyncCreditManager) -> Accounts:
    return Accounts(manager)


@pytest.fixture
def metered(manager: AsyncCreditManager) -> Callable[..., ASGIApp]:
    """Wraps an application in the middleware; the header `x-account` says who pays, u1 by default."""

    def account(scope: Scope) -> str | None:
        named = dict(scope["headers"]).get(b"x-account", b"u1").decode()
        return None if named == "nobody" else named

    def wrap(app: ASGIApp, **options: Any) -> ASGIApp:
        return MeteringMiddleware(app, **{"manager": manager, "account": account, **options})

    return wrap
