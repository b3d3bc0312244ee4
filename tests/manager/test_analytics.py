"""Analytics through the manager, over real charges."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import ConfigError, InvalidIdError, LedgerError, TeamNotFoundError
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.store.redis import RedisStore
from tests.manager.clock import Clock

DOCUMENT = {
    "version": 1,
    "models": {"gpt": "input_tokens * 0.01", "claude": "input_tokens * 0.02"},
    "plans": {"free": {"name": "Free", "free_allowance": 3}},
}


@pytest.fixture
def manager() -> Iterator[CreditManager]:
    """A manager with its own engine and ledger, and what some customers spent."""
    with CreditManager.from_url("memory://") as manager:
        manager.publish_pricing(DOCUMENT)
        for account in ("u1", "u2"):
            manager.add_credits(account, 100)
        manager.deduct("u1", UsageMetrics(model="gpt", input_tokens=500))
        lease = manager.reserve("u1", UsageMetrics(model="claude", input_tokens=1000), operation_type="chat")
        manager.settle("u1", lease.lease_id, UsageMetrics(model="claude", input_tokens=250))
        manager.deduct("u2", "2.5")
        yield manager


def test_answers_hold_what_was_done_before(manager: CreditManager) -> None:
    """On a local engine an answer waits for the worker: no charge that returned is missing."""
    assert [(it.account, it.charged) for it in manager.spend_by_user()] == [("u1", Decimal(10)), ("u2", Decimal("2.5"))]
    assert [(it.account, it.charges) for it in manager.top_users(1)] == [("u1", 2)]
    assert {it.model: it.charged for it in manager.spend_by_model()} == {
        "gpt": Decimal(5),
        "claude": Decimal(5),
        None: Decimal("2.5"),
    }
    manager.deduct("u2", 50)
    assert manager.top_users(1)[0].account == "u2"
    now = datetime.now(UTC)
    assert sum(day.charged for day in manager.daily_spend(now - timedelta(days=2), account="u2")) == Decimal("52.5")
    assert manager.spend_by_user(end=now - timedelta(days=1)) == []
    stats = manager.aggregate_stats()
    assert (stats.charged, stats.added, stats.top_model) == (Decimal("62.5"), {"purchase": Decimal(200)}, "claude")
    assert {it.of: it.quantity for it in manager.usage("input_tokens")} == {"gpt": 500, "claude": 250}
    assert manager.anomalies() == []
    page = manager.list_user_transactions("u1", operations=["settle"])
    assert [(it.operation_type, it.model, it.charged) for it in page.transactions] == [("chat", "claude", Decimal(5))]


def test_what_the_allowance_paid_is_spent_too(manager: CreditManager) -> None:
    """It is part of what was charged, and named; a refund is counted where it was given."""
    manager.set_user_plan("u3", "free")
    manager.add_credits("u3", 10)
    charge = manager.deduct("u3", UsageMetrics(model="gpt", input_tokens=500))
    manager.refund_credits(charge.transaction_id, 4)
    [spent] = [it for it in manager.spend_by_user() if it.account == "u3"]
    assert (spent.charged, spent.allowance, spent.refunded, spent.net) == (5, 3, 4, 1)
    [by_model] = manager.spend_by_model(account="u3")
    assert (by_model.model, by_model.refunded) == ("gpt", 4)
    assert manager.core.ledger is not None
    assert manager.core.ledger.verify().ok


def test_who_spent_of_a_team(manager: CreditManager) -> None:
    """Charges of members, and in nobody's name."""
    manager.create_team("acme", owner="ann")
    manager.add_team_member("acme", "bob")
    manager.add_credits("acme", 50)
    manager.deduct("acme", 3, member="ann")
    manager.deduct("acme", 7, member="bob")
    manager.deduct("acme", 1)
    assert [(it.member, it.charged) for it in manager.spend_by_member("acme")] == [("bob", 7), ("ann", 3), (None, 1)]
    assert {it.of: it.quantity for it in manager.usage("input_tokens", "member", account="acme")} == {}


def test_who_is_no_team(manager: CreditManager) -> None:
    """An account without members, and one that nothing ever happened to; a team that spent nothing yet is one."""
    for account, exists in (("u1", True), ("u9", False)):
        with pytest.raises(TeamNotFoundError) as refused:
            manager.spend_by_member(account)
        assert (refused.value.team, refused.value.exists) == (account, exists)
    manager.create_team("acme", owner="ann")
    assert manager.spend_by_member("acme") == []


def test_a_team_that_the_ledger_has_not_heard_of(valkey_url: str, namespace: str, ledger_url: str) -> None:
    """The engine is asked before it is refused."""
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
    with CreditManager.from_url(valkey_url, ledger_url, namespace=namespace) as manager:
        manager.create_team("acme", owner="ann")
        assert manager.spend_by_member("acme") == []
        with pytest.raises(TeamNotFoundError):
            manager.spend_by_member("beta")


def test_measures_that_there_are(manager: CreditManager) -> None:
    """Those of the document count, also before their first use; any other is refused, with the list."""
    manager.publish_pricing({**DOCUMENT, "measures": ["gpu_seconds"]})
    assert manager.usage("gpu_seconds") == []
    assert manager.usage("audio_input_tokens") == []
    with pytest.raises(ConfigError, match=r"'gpu_second'.*did you mean 'gpu_seconds'"):
        manager.usage("gpu_second")


def test_an_expiry_that_was_charged_is_settled_late() -> None:
    """Together they are what the work cost, and one charge, for the model that was reserved; a late release takes it
    back. What the allowance paid of it comes and goes too."""
    clock = Clock()
    ledger = Ledger.from_url("sqlite://")
    with CreditManager(clock.store, ledger=ledger, on_lease_expiry="charge") as manager:
        manager.publish_pricing(DOCUMENT)
        for account in ("u1", "u2", "u3"):
            manager.set_user_plan(account, "free")
            manager.add_credits(account, 100)
        leases = {
            account: manager.reserve(account, UsageMetrics(model="gpt", input_tokens=1000)).lease_id
            for account in ("u1", "u2", "u3")
        }
        clock.move(seconds=601)
        manager.sweep()
        assert {it.account: (it.charges, it.charged, it.allowance) for it in manager.spend_by_user()} == dict.fromkeys(
            leases, (1, Decimal(10), Decimal(3))
        )
        manager.settle("u1", leases["u1"], UsageMetrics(model="gpt", input_tokens=200))
        manager.release("u2", leases["u2"])
        spent = {it.account: (it.charges, it.charged, it.allowance) for it in manager.spend_by_user()}
        assert spent == {"u1": (1, 2, 2), "u2": (0, 0, 0), "u3": (1, 10, 3)}
        assert [(it.model, it.charged) for it in manager.spend_by_model(account="u1")] == [("gpt", Decimal(2))]
        report = ledger.verify()
        assert report.ok, report.failures


def test_without_a_ledger(valkey_url: str, namespace: str) -> None:
    """The error says what is missing, for every question."""
    with CreditManager.from_url(valkey_url, namespace=namespace) as manager:
        for question in (manager.spend_by_user, manager.aggregate_stats, manager.anomalies, manager.daily_spend):
            with pytest.raises(ConfigError, match="ledger_url"):
                question()


def test_wrong_accounts_are_refused(manager: CreditManager) -> None:
    """Before anything is asked."""
    for account in ("", "@ducto", "a\x00b"):
        with pytest.raises(InvalidIdError):
            manager.list_user_transactions(account)
        with pytest.raises(InvalidIdError):
            manager.aggregate_stats(account=account)
        with pytest.raises(InvalidIdError):
            manager.spend_by_member(account)


async def test_on_an_event_loop(valkey_url: str, namespace: str, ledger_url: str) -> None:
    """The same questions of a ledger that a worker elsewhere fills: they read what it has written."""
    ledger = Ledger.from_url(ledger_url)
    ledger.migrate()
    async with AsyncCreditManager.from_url(valkey_url, ledger_url, namespace=namespace) as manager:
        await manager.add_credits("u1", 10, durability="fast")
        await manager.deduct("u1", 4)
        assert await manager.spend_by_user() == []
        store = RedisStore(valkey_url, namespace=namespace, blocking=True)
        LedgerWorker(store, ledger).run_until_idle()
        store.redis().close()
        assert [it.charged for it in await manager.spend_by_user()] == [Decimal(4)]
        page = await manager.list_user_transactions("u1", limit=1)
        assert [it.operation for it in page.transactions] == ["deduct"]
        rest = await manager.list_user_transactions("u1", cursor=page.cursor)
        assert [it.operation for it in rest.transactions] == ["add_credits"]
    ledger.close()


def test_a_worker_that_stands_still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Waiting for the local worker is bounded: the error says that it is behind."""
    monkeypatch.setattr("ducto_redis.manager.analytics._WAIT_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with CreditManager.from_url("memory://", url) as manager, Ledger.from_url(url) as other:
        assert manager.spend_by_user() == []
        with other._database.write():  # holds the file, as a frozen process would
            manager.add_credits("u1", 1, durability="fast")
            with pytest.raises(LedgerError, match="in time"):
                manager.spend_by_user()
        manager.wait_for_ledger()
        assert manager.aggregate_stats().added == {"purchase": Decimal(1)}
