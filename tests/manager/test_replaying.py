"""A new pricing document is tried on the ledger's real usage before it is activated."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import ConfigError, ExpressionError
from ducto_redis.ledger import entry_queries
from ducto_redis.pricing import PricingEngine

OLD = {
    "models": {"a": "input_tokens / 3", "b": "input_tokens * 2"},
    "plans": {"pro": {"free_allowance": 1, "rate_overrides": {"b": "input_tokens"}}},
}
NEW = {
    "models": {"a": "input_tokens / 7", "b": "input_tokens * 3"},
    "plans": {"pro": {"rate_overrides": {"b": "input_tokens * 10"}}},
}


def used(model: str, tokens: int) -> UsageMetrics:
    return UsageMetrics(model=model, input_tokens=tokens)


@pytest.fixture
def manager() -> Iterator[CreditManager]:
    """A manager whose store and ledger live in this process."""
    with CreditManager.from_url("memory://") as manager:
        manager.publish_pricing(OLD)
        yield manager


@pytest.fixture
def hour_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=1)


def test_replay_of_real_charges(manager: CreditManager, hour_ago: datetime) -> None:
    """Deducts and settles are priced anew, under the plan they were charged under; nothing is published or charged."""
    new = PricingEngine.from_dict(NEW)
    for account in ("u1", "u2"):
        manager.add_credits(account, 100)
    manager.set_user_plan("u2", "pro")
    for _ in range(3):
        manager.deduct("u1", used("a", 1))
    lease = manager.reserve("u1", used("a", 100))
    manager.settle("u1", lease.lease_id, [used("a", 2), used("b", 4)])
    manager.deduct("u2", used("b", 5))
    manager.deduct("u1", 7)
    before = manager.get_balance("u1")

    result = manager.replay_pricing(NEW, hour_ago)

    of_a = 3 * new.total(used("a", 1)) + new.total(used("a", 2))
    assert {row.name: row.replayed for row in result.by_model} == {"a": of_a, "b": Decimal(12 + 50)}
    assert {row.name: row.cost for row in result.by_model} == {"a": Decimal("1.666666"), "b": Decimal(8 + 5)}
    accounts = {row.name: row for row in result.by_account}
    assert (accounts["u1"].charges, accounts["u2"].charges) == (4, 1)
    assert (accounts["u2"].charged, accounts["u2"].from_allowance) == (5, 1)
    assert (result.by_amount, result.by_amount_charged) == (1, 7)
    assert result.total.difference == result.total.replayed - result.total.cost
    assert (result.unpriced, result.missing_plans) == ((), ())
    assert manager.get_balance("u1") == before
    assert [version.version for version in manager.pricing_history()] == [1]


def test_only_the_time_that_is_asked_for(manager: CreditManager, hour_ago: datetime) -> None:
    """Charges before the start, or at or after the end, do not count."""
    manager.add_credits("u1", 100)
    manager.deduct("u1", used("b", 1))
    assert manager.replay_pricing(NEW, hour_ago, hour_ago + timedelta(minutes=30)).total.charges == 0
    assert manager.replay_pricing(NEW, hour_ago, datetime.now(UTC) + timedelta(minutes=1)).total.charges == 1
    transaction = manager.deduct("u1", used("b", 1)).transaction_id
    at = datetime.fromtimestamp(int(transaction.split("-")[2]) / 1000, UTC)
    assert manager.replay_pricing(NEW, at, at + timedelta(milliseconds=1)).total.charges >= 1
    assert manager.replay_pricing(NEW, at + timedelta(milliseconds=1)).total.charges == 0


def test_some_entries_at_a_time(manager: CreditManager, hour_ago: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few entries are read at a time, each charge counts once."""
    for number in range(40):
        manager.add_credits(f"u{number % 7}", 100)
        manager.deduct(f"u{number % 7}", used("b", number))
    whole = manager.replay_pricing(NEW, hour_ago)
    monkeypatch.setattr(entry_queries, "ENTRIES_AT_A_TIME", 3)
    paged = manager.replay_pricing(NEW, hour_ago)
    assert paged.total == whole.total
    assert (paged.by_account, paged.total.charges) == (whole.by_account, 40)


def test_what_is_wrong_is_refused(manager: CreditManager, hour_ago: datetime) -> None:
    """A wrong document, a time without a zone, and a time that ends before it starts are errors that say so."""
    with pytest.raises(ExpressionError, match=r"models\.a"):
        manager.replay_pricing({"models": {"a": "nonsense"}}, hour_ago)
    with pytest.raises(ConfigError, match="time zone"):
        manager.replay_pricing(NEW, hour_ago.replace(tzinfo=None))
    with pytest.raises(ConfigError, match="must be after"):
        manager.replay_pricing(NEW, hour_ago, hour_ago)


def test_without_a_ledger(valkey_url: str, namespace: str, hour_ago: datetime) -> None:
    """Without a ledger there is nothing to replay, which is said."""
    with (
        CreditManager.from_url(valkey_url, namespace=namespace) as manager,
        pytest.raises(ConfigError, match="ledger_url"),
    ):
        manager.replay_pricing(NEW, hour_ago)


async def test_async_manager(hour_ago: datetime) -> None:
    """The manager of an event loop replays the same way."""
    async with AsyncCreditManager.from_url("memory://") as manager:
        await manager.publish_pricing(OLD)
        await manager.add_credits("u1", 10)
        await manager.deduct("u1", [used("b", 1), used("a", 3)])
        result = await manager.replay_pricing(NEW, hour_ago)
        assert [(row.name, row.cost) for row in result.by_model] == [("b", 2), ("a", 1)]
