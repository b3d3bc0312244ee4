"""A provider, and managers in memory with an account that has credits."""

from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.engine.cause import decode_cause
from ducto_redis.engine.entry import decode_entry
from tests.clients.provider import Provider, running
from tests.middleware.asgi import until

PRICING = {"version": 1, "models": {"m": "input_tokens * 0.001 + output_tokens * 0.01"}}
FUNDS = Decimal(100)
MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
# The provider's answer, 10 tokens in and 20 out, and the first piece of a stream: 5 tokens.
WHOLE = Decimal("0.21")


@pytest.fixture(scope="session")
def running_provider() -> Iterator[Provider]:
    provider = Provider()
    with running(provider):
        yield provider


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    running_provider.reset()
    return running_provider


@pytest.fixture
def blocking() -> Iterator[CreditManager]:
    """A manager for threads, whose account u1 has 100 credits."""
    with CreditManager.from_url("memory://") as manager:
        manager.publish_pricing(PRICING)
        manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture
async def manager() -> AsyncIterator[AsyncCreditManager]:
    """A manager for event loops, whose account u1 has 100 credits."""
    async with AsyncCreditManager.from_url("memory://") as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture
def spent(blocking: CreditManager) -> Callable[..., Decimal]:
    """Tells what an account was charged; asserts that nothing is held any more."""

    def spent(account: str = "u1") -> Decimal:
        balance = blocking.get_balance(account)
        assert balance.held == 0
        return FUNDS - balance.balance

    return spent


def flags(manager: AsyncCreditManager | CreditManager, account: str = "u1") -> list[list[str]]:
    """What is unusual about each charge of an account, as the journal says it."""
    partition = manager.store.namespace.partition_of(account)
    entries = manager.store.redis().xrange(manager.store.namespace.journal(partition))  # type: ignore[attr-defined]
    decoded = [decode_entry(partition, entry_id.decode(), fields[b"entry"]) for entry_id, fields in entries]
    settled = [entry for entry in decoded if entry.account == account and entry.operation == "settle"]
    return [list(decode_cause(entry.cause).flags) for entry in settled]


async def spent_by(manager: AsyncCreditManager, account: str = "u1") -> Decimal:
    """Wait until nothing is held any more; return what the account was charged."""

    async def nothing_held() -> bool:
        return not (await manager.get_balance(account)).held

    await until(nothing_held)
    return FUNDS - (await manager.get_balance(account)).balance
