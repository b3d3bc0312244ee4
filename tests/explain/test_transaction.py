"""Every transaction can be explained: what was used, how it was priced, who paid, and what came of it."""

import importlib
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from ducto_redis import AsyncCreditManager, CreditManager, ToolCall, UsageMetrics
from ducto_redis.errors import TransactionNotFoundError
from ducto_redis.explain.history_reader import FIRST, HistoryReader
from ducto_redis.ledger import Ledger
from ducto_redis.pricing import PricingEngine
from tests.manager.clock import Clock

DOCUMENT: dict[str, Any] = {
    "models": {"gpt": "input_tokens * 0.002 + output_tokens / 3"},
    "tools": {"web": "tool_calls * 0.5"},
    "plans": {
        "pro": {
            "free_allowance": 5,
            "rate_overrides": {"gpt": "input_tokens * 0.001 + output_tokens / 3"},
            "spend_caps": [{"window": "day", "limit": 10, "action": "warn"}],
        }
    },
    "signup_bonus": 3,
}
ENGINE = PricingEngine.from_dict(DOCUMENT)


def used(input_tokens: int, output_tokens: int = 0, **more: Any) -> UsageMetrics:
    return UsageMetrics(model="gpt", input_tokens=input_tokens, output_tokens=output_tokens, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(clock: Clock) -> Iterator[CreditManager]:
    """A manager with a ledger, in this process, and a document published."""
    with CreditManager(clock.store, ledger=Ledger.from_url("sqlite://"), low_balance_thresholds=[100]) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.fixture
def bare(clock: Clock) -> Iterator[CreditManager]:
    """A manager without a ledger."""
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


def trim(manager: CreditManager, account: str, *, keep: int = 0) -> None:
    """Trim the journal of an account's partition to its last entries."""
    partition = manager.store.namespace.account(account).partition
    manager.store.redis().xtrim(manager.store.namespace.journal(partition), maxlen=keep, approximate=False)  # type: ignore[attr-defined]


def transactions(manager: CreditManager, account: str = "u1") -> list[str]:
    """The account's transactions, oldest first."""
    ledger = manager.core.ledger
    if ledger is not None:
        manager.wait_for_ledger()
        pages = ledger.account_entries(manager.store.namespace.name, account)
        return [traced.entry.transaction_id for page in pages for traced in page]
    evidence = HistoryReader(manager.store, None, account, manager.store.namespace.account(account).partition)
    return [entry.transaction_id for entry in evidence.journal_after(FIRST)]


def test_settle_with_everything(manager: CreditManager, clock: Clock) -> None:
    """A settle says usage, formula, version, plan, rounding, who paid, lease, caps, refunds and balance."""
    manager.set_user_plan("u1", "pro")
    manager.add_credits("u1", 4, type="bonus", expires_at=clock.time + timedelta(days=3))
    manager.add_credits("u1", 100)
    estimate = used(10_000, 30)
    lease = manager.reserve("u1", estimate, operation_type="chat", lease_id="job-1")
    manager.extend("u1", "job-1", 2)
    usage = used(9_000, 10, tool_calls=[ToolCall("web", 3)])
    settled = manager.settle("u1", "job-1", usage, metadata={"ticket": 7})
    refund = manager.refund_credits(settled.transaction_id, "1.5", reason="wrong answer")

    told = manager.explain(settled.transaction_id)

    cost = ENGINE.calculate(usage, "pro")
    assert (told.operation, told.account, told.source, told.usage) == ("settle", "u1", "journal", (usage,))
    assert told.charged == told.amount == cost.total == settled.amount
    price = told.price
    assert price is not None
    assert (price.version, price.plan, price.costs, price.total) == (1, "pro", (cost,), cost.total)
    assert price.exact == Decimal("13.833333333333333333")
    assert price.rounding == Decimal("-0.000000333333333333")
    assert [(it.kind, it.amount, it.type) for it in told.sources] == [
        ("allowance", 5, None),
        ("grant", 4, "bonus"),
        ("pool", Decimal("4.833333"), None),
    ]
    (cap,) = told.caps
    assert (cap.scope, cap.amount, cap.crossed) == ("account", cost.total, None)
    (held,) = manager.explain(lease.transaction_id).caps
    assert (held.cap_id, held.amount, held.crossed) == (cap.cap_id, lease.amount, "warn")
    assert told.lease is not None
    assert (told.lease.lease_id, told.lease.state, told.lease.operation_type) == ("job-1", "settled", "chat")
    assert (told.lease.held, told.lease.held_of_allowance) == (lease.amount + 2, 5)
    assert (told.lease.estimate, told.lease.charged, told.lease.returned) == (
        (estimate,),
        cost.total,
        Decimal("8.166667"),
    )
    assert (told.lease.reserved_by, told.lease.closed_by) == (lease.transaction_id, settled.transaction_id)
    assert len(told.lease.extended_by) == 1
    assert [(it.transaction_id, it.amount, it.reason) for it in told.refunds] == [
        (refund.transaction_id, Decimal("1.5"), "wrong answer")
    ]
    assert (told.refunded, told.metadata, told.plan) == (Decimal("1.5"), {"ticket": 7}, "pro")
    assert (told.balance_before, told.balance_change, told.balance_after) == (
        107,
        5 - cost.total,
        112 - cost.total,
    )
    assert told.low_levels == (100,)
    assert told.missing == ()
    text = str(told)
    for part in ("input_tokens * 0.001 + output_tokens / 3", "version 1", "plan pro", "wrong answer", "job-1", "bonus"):
        assert part in text


def test_the_ledger_says_the_same(bare: CreditManager, clock: Clock) -> None:
    """What was trimmed from the journal is explained from the ledger, in the same words."""
    everything(bare, clock)
    ids = transactions(bare)
    told = [bare.explain(transaction_id) for transaction_id in ids]
    with CreditManager(clock.store, ledger=Ledger.from_url("sqlite://")) as manager:
        manager.wait_for_ledger()
        trim(manager, "u1")
        again = [manager.explain(transaction_id) for transaction_id in ids]
    assert {(each.source, each.missing) for each in again} == {("ledger", ())}
    for ours, theirs in zip(again, told, strict=True):
        assert structs.replace(ours, source="journal", missing=theirs.missing) == theirs


def everything(manager: CreditManager, clock: Clock) -> None:
    """Every operation that there is, on u1."""
    manager.add_credits("u1", 50, idempotency_key="invoice-1")
    manager.add_credits("u1", 5, type="bonus", expires_at=clock.time + timedelta(hours=1), priority=10)
    manager.set_user_plan("u1", "pro")
    cap = manager.set_spend_cap("u1", window="month", limit=1000)
    manager.raise_spend_cap("u1", cap.cap_id, 2000, until=clock.time + timedelta(days=1))
    manager.clear_spend_cap("u1", cap.cap_id)
    manager.remove_spend_cap("u1", cap.cap_id)
    manager.create_team("u1", name="Team", owner="ann")
    manager.add_team_member("u1", "bob")
    manager.remove_team_member("u1", "bob")
    charge = manager.deduct("u1", used(1000), member="ann", operation_type="chat")
    manager.refund_credits(charge.transaction_id, "0.25")
    manager.adjust_credits("u1", "-1.5", actor="kim", reason="counted twice")
    manager.freeze("u1", actor="kim", reason="card was stolen")
    manager.unfreeze("u1", actor="kim", reason="new card")
    for lease_id in ("settled", "released", "late", "left"):
        manager.reserve("u1", used(500), lease_id=lease_id)
    manager.renew("u1", "settled", ttl=3600)
    manager.extend("u1", "settled", used(100))
    manager.settle("u1", "settled", used(1000))
    manager.release("u1", "released")
    clock.move(hours=2)
    manager.settle("u1", "late", 2)
    manager.deduct("u1", 1)


def test_every_operation_is_explained(manager: CreditManager, clock: Clock) -> None:
    """Whatever happened to an account can be explained, the balances follow each other, and who paid adds up."""
    everything(manager, clock)
    told = [manager.explain(transaction_id) for transaction_id in transactions(manager)]
    assert {each.operation for each in told} >= {
        *("open_account", "add_credits", "set_plan", "set_cap", "raise_cap", "clear_cap", "remove_cap", "create_team"),
        *("set_member", "deduct", "refund", "adjust_credits", "freeze", "unfreeze", "reserve", "renew", "extend"),
        *("settle", "release", "expire", "expire_grant"),
    }
    balance = Decimal(0)
    for each in told:
        assert each.missing == ()
        assert (each.balance_before, each.balance_after) == (balance, balance + each.balance_change)
        balance = each.balance_after or Decimal(0)
        if each.operation in ("deduct", "settle", "refund", "expire_grant"):
            paid = sum((source.amount for source in each.sources), Decimal(0))
            assert paid == (each.charged or each.amount - each.lost)
        first, second, *_ = str(each).splitlines()
        assert each.operation not in first.split()  # it is said in words
        assert each.transaction_id in second
    assert balance == manager.get_balance("u1").balance
    said = {each.operation: each for each in told}
    assert said["open_account"].balance_change == 3
    assert (said["adjust_credits"].actor, said["adjust_credits"].reason) == ("kim", "counted twice")
    assert said["set_cap"].caps_set[0].limit == 1000
    assert said["deduct"].price is None
    assert said["add_credits"].type == "bonus"
    assert said["expire_grant"].type == "bonus"
    assert said["settle"].lease is not None
    assert said["settle"].lease.late
    charged = next(each for each in told if each.operation == "deduct")
    assert (charged.member, charged.operation_type, charged.refunded) == ("ann", "chat", Decimal("0.25"))
    assert next(each for each in told if each.operation == "add_credits").key == "invoice-1"


def test_pricing_is_explained_too(manager: CreditManager) -> None:
    """What was published and activated stands under the reserved account, and is explained like all else."""
    evidence = HistoryReader(manager.store, None, "@ducto", manager.store.namespace.reserved.partition)
    (entry,) = evidence.journal_after(FIRST)
    told = manager.explain(entry.transaction_id)
    assert (told.operation, told.account) == ("publish_pricing", "@ducto")
    assert "a pricing document was published" in str(told)


def test_it_is_explained_by_the_document_of_then(manager: CreditManager) -> None:
    """A charge is explained by the version that priced it, also when another one is active."""
    manager.add_credits("u1", 100)
    charge = manager.deduct("u1", used(1000))
    manager.publish_pricing({"models": {"gpt": "input_tokens"}})
    told = manager.explain(charge.transaction_id)
    assert told.price is not None
    assert (told.price.version, told.price.costs) == (1, (ENGINE.calculate(used(1000)),))


def test_a_document_that_cannot_be_had_is_said(clock: Clock) -> None:
    """A charge of a manager with an engine of its own is explained by that manager; another says what it lacks."""
    with CreditManager(clock.store, ENGINE) as own:
        own.add_credits("u1", 100)
        charge = own.deduct("u1", used(1000))
        told = own.explain(charge.transaction_id)
        assert told.price is not None
        assert told.price.costs == (ENGINE.calculate(used(1000)),)
        with CreditManager(clock.store, PricingEngine.from_dict({"models": {"gpt": "1"}})) as other:
            lacking = other.explain(charge.transaction_id)
            assert lacking.price is not None
            assert (lacking.price.costs, lacking.price.total) == ((), 2)
            assert any("gives 1.000000 credits, but the price was 2.000000" in reason for reason in lacking.missing)
        with CreditManager(clock.store) as publisher:
            publisher.publish_pricing(DOCUMENT)  # it prices alike, and yet it is not what priced this
            unknown = publisher.explain(charge.transaction_id)
            assert unknown.price is not None
            assert unknown.price.costs == ()
            assert any("the manager's own engine is not available here" in reason for reason in unknown.missing)


def test_late_settle_of_a_charged_lease(clock: Clock) -> None:
    """A lease that was charged when it expired and settled later tells both, and so does one that was released."""
    with CreditManager(clock.store, ledger=Ledger.from_url("sqlite://"), on_lease_expiry="charge") as manager:
        manager.add_credits("u1", 10)
        for lease_id in ("settled", "released"):
            manager.reserve("u1", 4, lease_id=lease_id, ttl=60)
        clock.move(minutes=2)
        manager.release("u1", "released")
        settled = manager.settle("u1", "settled", 1)
        told = manager.explain(settled.transaction_id)
        assert told.lease is not None
        assert (told.lease.state, told.lease.late, told.lease.charged, told.lease.returned) == ("settled", True, 1, 0)
        assert (told.balance_before, told.balance_after) == (6, 9)
        by_operation = {}
        for transaction_id in transactions(manager):
            each = manager.explain(transaction_id)
            by_operation[each.operation, each.lease.lease_id if each.lease else ""] = each
        expired = by_operation["expire", "settled"]
        assert (expired.charged, [(it.kind, it.amount) for it in expired.sources]) == (4, [("pool", 4)])
        released = by_operation["release", "released"]
        assert (released.balance_change, released.lease and released.lease.state) == (4, "released")
        assert manager.explain_balance("u1").adds_up


def test_shortfall(manager: CreditManager) -> None:
    """What nobody could pay is told beside who did."""
    manager.add_credits("u1", 2)
    lease = manager.reserve("u1", 5)
    told = manager.explain(manager.settle("u1", lease.lease_id, 9).transaction_id)
    assert (told.amount, told.charged, told.shortfall) == (9, 5, 4)
    assert "4  not charged (shortfall)" in str(told)


def test_a_lease_id_that_is_used_again(manager: CreditManager, clock: Clock) -> None:
    """Each life of a lease id is told by itself."""
    manager.add_credits("u1", 100)
    first = manager.reserve("u1", 1, lease_id="job")
    manager.settle("u1", "job", 1)
    manager.store.redis().delete(manager.store.namespace.account("u1").closed + b"job")  # type: ignore[attr-defined]
    second = manager.reserve("u1", 2, lease_id="job")
    manager.wait_for_ledger()
    stories = [manager.explain(each.transaction_id).lease for each in (first, second)]
    assert [(it.held, it.state, it.reserved_by) for it in stories if it] == [
        (1, "settled", first.transaction_id),
        (2, "open", second.transaction_id),
    ]


def test_without_a_ledger(bare: CreditManager, clock: Clock) -> None:
    """Without a ledger the journal says what it still has, and what it has no more is said to be missing."""
    bare.add_credits("u1", 10)
    lease = bare.reserve("u1", 5, lease_id="job")
    charge = bare.settle("u1", "job", 3)
    refund = bare.refund_credits(charge.transaction_id, 1)
    told = bare.explain(charge.transaction_id)
    assert told.lease is not None
    assert (told.lease.reserved_by, told.lease.held) == (lease.transaction_id, 5)
    assert [it.transaction_id for it in told.refunds] == [refund.transaction_id]
    assert [reason.partition(":")[0] for reason in told.missing] == ["there is no ledger"]

    trim(bare, "u1", keep=2)
    told = bare.explain(charge.transaction_id)
    assert told.lease is not None
    assert (told.lease.reserved_by, told.lease.held, told.lease.charged) == (None, None, 3)
    assert any(reason.startswith("the reserve of lease job") for reason in told.missing)
    assert told.balance_after == 10
    with pytest.raises(TransactionNotFoundError):
        bare.explain(lease.transaction_id)


def test_balance_that_is_not_known_any_more(bare: CreditManager) -> None:
    """A change that moved nothing has its balance from the changes around it, or says that nobody knows it."""
    bare.add_credits("u1", 10)
    lease = bare.reserve("u1", 5)
    assert bare.explain(lease.transaction_id).balance_after == 13
    trim(bare, "u1", keep=1)
    told = bare.explain(lease.transaction_id)
    assert told.balance_after is None
    assert any(reason.startswith("the balance before and after") for reason in told.missing)
    bare.deduct("u1", 2)
    assert bare.explain(lease.transaction_id).balance_after == 13


@pytest.mark.parametrize("transaction", ["", "nonsense", "1-2-3", "0-1-1-0", "99999-1-1700000000000-0", "0-9-1-1-1", 7])
def test_unknown_transactions(manager: CreditManager, transaction: Any) -> None:
    """What neither the journal nor the ledger has, or is no transaction id at all, is an error that names it."""
    with pytest.raises(TransactionNotFoundError, match="there is no transaction"):
        manager.explain(transaction)


def test_epoch_is_part_of_the_name(manager: CreditManager) -> None:
    """A transaction of another epoch is another transaction."""
    partition, epoch, entry_id = manager.add_credits("u1", 1).transaction_id.split("-", 2)
    with pytest.raises(TransactionNotFoundError):
        manager.explain(f"{partition}-{int(epoch) + 1}-{entry_id}")


async def test_async_manager() -> None:
    """The manager of an event loop explains the same way."""
    async with AsyncCreditManager.from_url("memory://") as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        charge = await manager.deduct("u1", used(1000))
        told = await manager.explain(charge.transaction_id)
        assert (told.charged, told.missing) == (2, ())
        assert (await manager.explain_balance("u1")).adds_up


def test_on_a_server(valkey_url: str, namespace: str) -> None:
    """Over a real server, without a ledger, the journal is searched the same way."""
    with CreditManager.from_url(valkey_url, namespace=namespace) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 10)
        lease = manager.reserve("u1", used(1000))
        charge = manager.settle("u1", lease.lease_id, used(500))
        manager.refund_credits(charge.transaction_id)
        told = manager.explain(charge.transaction_id)
        assert (told.charged, told.refunded) == (1, 1)
        assert told.lease is not None
        assert told.lease.reserved_by == lease.transaction_id
        assert manager.explain_balance("u1").adds_up


def test_a_store_without_a_journal_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom store's entries are explained as far as they go, and what cannot be found is said."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs" / "examples"))
    store = importlib.import_module("dict_store").make_store("explained")
    with CreditManager(store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 10)
        lease = manager.reserve("u1", used(2000))
        told = manager.explain(manager.settle("u1", lease.lease_id, used(1000)).transaction_id)
        assert (told.charged, told.price and told.price.costs) == (2, (ENGINE.calculate(used(1000)),))
        assert told.lease is not None
        assert (told.lease.lease_id, told.lease.charged) == (lease.lease_id, 2)
        assert any("the journal of this store cannot be searched" in reason for reason in told.missing)
        balance = manager.explain_balance("u1")
        assert sum(line.amount for line in balance.lines) == balance.balance == 11
        assert any("the journal of this store cannot be searched" in reason for reason in balance.missing)
