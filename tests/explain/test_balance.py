"""How a balance came about is told in lines that add up to it, and checked."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ducto_redis import CreditManager, UsageMetrics
from ducto_redis.errors import CreditError, InvalidIdError
from ducto_redis.explain.balance import BalanceExplanation
from ducto_redis.explain.balance_history import BalanceHistory, read_history
from ducto_redis.explain.history_reader import HistoryReader
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger, entry_queries
from ducto_redis.store import store_from_url
from tests.manager.clock import Clock

DOCUMENT: dict[str, Any] = {
    "models": {"a": "input_tokens / 3", "b": "input_tokens * 2"},
    # Its period begins with the assignment: a month of the calendar may end while a test moves the clock.
    "plans": {"pro": {"free_allowance": 5, "anchor": "assignment"}},
    "signup_bonus": 3,
}


def used(model: str, tokens: int) -> UsageMetrics:
    return UsageMetrics(model=model, input_tokens=tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(clock: Clock) -> Iterator[CreditManager]:
    """A manager with a ledger, in this process, and a document published."""
    with CreditManager(clock.store, ledger=Ledger.from_url("sqlite://")) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.fixture
def bare(clock: Clock) -> Iterator[CreditManager]:
    """A manager without a ledger."""
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


def lines(explanation: BalanceExplanation) -> dict[tuple[str, str | None], Decimal]:
    assert sum((line.amount for line in explanation.lines), Decimal(0)) == explanation.balance
    return {(line.kind, line.name): line.amount for line in explanation.lines}


def trim(manager: CreditManager, account: str, keep: int) -> None:
    journal = manager.store.namespace.journal(manager.store.namespace.partition_of(account))
    manager.store.redis().xtrim(journal, maxlen=keep, approximate=False)  # type: ignore[attr-defined]


def test_every_kind_of_movement(manager: CreditManager, clock: Clock) -> None:
    """Credits are told by type, charges and refunds by model, and what allowances paid stands beside."""
    manager.add_credits("u1", 100)
    manager.add_credits("u1", 7, type="bonus", expires_at=clock.time + timedelta(hours=1))
    manager.set_user_plan("u1", "pro")
    charge = manager.deduct("u1", used("b", 4))
    manager.deduct("u1", used("a", 3))
    manager.deduct("u1", [used("a", 3), used("b", 1)])
    manager.refund_credits(charge.transaction_id, 1)
    manager.adjust_credits("u1", "-0.5", actor="kim", reason="rounding")
    lease = manager.reserve("u1", 9, operation_type="chat")
    manager.reserve("u1", 2, lease_id="over", ttl=60)
    clock.move(hours=2)
    manager.add_credits("u1", 1)  # what has fallen due is journalled with it
    manager.reserve("u1", 6, operation_type="job")
    told = manager.explain_balance("u1", movements=3)
    assert told.adds_up
    assert (told.problems, told.missing) == ((), ())
    assert lines(told) == {
        ("opened", "signup_bonus"): 3,
        ("added", "purchase"): 101,
        ("added", "bonus"): 7,
        ("adjusted", None): Decimal("-0.5"),
        ("charged", "b"): -3,
        ("charged", "a"): -1,
        ("charged", None): -3,
        ("refunded", "b"): 1,
        ("expired", "bonus"): Decimal("-0.5"),
    }
    assert {line.name: line.from_allowance for line in told.lines if line.kind == "charged"}["b"] == 5
    assert told.balance == manager.get_balance("u1").balance
    # The first lease ran out of time too.
    assert [(hold.operation_type, hold.amount) for hold in told.leases] == [("job", 6)]
    assert sum(hold.amount for hold in told.leases) == told.held
    assert sum(grant.remaining for grant in told.grants) == told.balance
    assert (told.movements[0].operation, told.movements[0].amount) == ("add_credits", 1)
    assert [it.balance_after for it in told.movements] == [104, 103, Decimal("103.5")]
    shown = str(told)
    assert "all lines add up to the balance" in shown
    assert "charged for b; 5 more from the allowance" in shown
    assert lease.lease_id not in shown


def test_new_account(manager: CreditManager) -> None:
    """An account that nothing ever happened to has what it would begin with."""
    told = manager.explain_balance("new")
    assert (lines(told), told.adds_up, told.since) == ({("opened", "signup_bonus"): 3}, True, None)
    with pytest.raises(InvalidIdError):
        manager.explain_balance("")


def test_what_has_fallen_due_is_a_line(bare: CreditManager, clock: Clock) -> None:
    """What the engine counts already and has not journalled yet stands in a line of its own."""
    # Without a ledger there is no worker here that sweeps.
    bare.add_credits("u1", 10)
    bare.add_credits("u1", 4, expires_at=clock.time + timedelta(hours=1))
    bare.reserve("u1", 2, ttl=60)
    clock.move(hours=2)
    told = bare.explain_balance("u1")
    assert lines(told)["due", None] == -4
    assert (told.adds_up, told.held, told.leases) == (True, 0, ())


def test_leases_on_allowance(manager: CreditManager) -> None:
    """A lease's hold of the balance is told apart from its hold of the allowance."""
    manager.set_user_plan("u1", "pro")
    manager.reserve("u1", 7)
    told = manager.explain_balance("u1")
    assert [(hold.amount, hold.of_allowance) for hold in told.leases] == [(2, 5)]
    assert (told.held, told.adds_up) == (2, True)


def test_without_a_ledger(bare: CreditManager) -> None:
    """Without a ledger all that the journal has is told, and what came before it is one line."""
    bare.add_credits("u1", 10)
    bare.deduct("u1", used("b", 1))
    bare.reserve("u1", 2)
    bare.deduct("u1", used("a", 3))
    whole = bare.explain_balance("u1")
    assert (whole.adds_up, len(whole.missing)) == (True, 1)
    assert lines(whole)["charged", "b"] == -2
    trim(bare, "u1", 2)
    rest = bare.explain_balance("u1")
    assert lines(rest) == {("earlier", None): 11, ("charged", "a"): -1}
    assert rest.adds_up
    assert any(reason.startswith("changes before 4: they were trimmed") for reason in rest.missing)
    assert rest.held == sum(hold.amount for hold in rest.leases) == 2
    trim(bare, "u1", 0)
    nothing = bare.explain_balance("u1")
    assert lines(nothing) == {("earlier", None): 10}
    assert any(reason.startswith("changes 1 to 5") for reason in nothing.missing)


def test_the_journal_has_what_the_ledger_lacks(valkey_url: str, namespace: str, tmp_path: Any) -> None:
    """A ledger that lags behind is no reason for a hole: what it has not read yet comes from the journal."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger.from_url(url)
    ledger.migrate()
    with ledger, CreditManager.from_url(valkey_url, url, namespace=namespace) as manager:
        manager.add_credits("u1", 10, durability="fast")
        charge = manager.deduct("u1", 1)
        LedgerWorker(store_from_url(valkey_url, namespace=namespace, blocking=True), ledger).run_until_idle()
        manager.deduct("u1", 2)
        refund = manager.refund_credits(charge.transaction_id)
        told = manager.explain_balance("u1")
        assert (told.adds_up, told.missing) == (True, ())
        assert lines(told) == {("added", "purchase"): 10, ("charged", None): -3, ("refunded", None): 1}
        manager.reserve("u1", 1, lease_id="job")
        lease = manager.explain(manager.settle("u1", "job", 1).transaction_id).lease
        assert lease is not None
        assert (lease.held, lease.charged) == (1, 1)
        explained = manager.explain(charge.transaction_id)
        assert [it.transaction_id for it in explained.refunds] == [refund.transaction_id]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE ducto_entries SET balance_change = -7 WHERE operation = 'deduct'", "the movements add up to"),
        ("DELETE FROM ducto_entries WHERE operation = 'deduct'", "are missing"),
    ],
)
def test_a_ledger_that_was_meddled_with(manager: CreditManager, statement: str, problem: str) -> None:
    """Lines that do not add up to the balance are told as what they are."""
    manager.add_credits("u1", 10)
    manager.deduct("u1", 1)
    manager.deduct("u1", 1)
    manager.add_credits("u1", 1)
    manager.wait_for_ledger()
    assert manager.explain_balance("u1").adds_up
    ledger = manager.core.ledger
    assert ledger is not None
    with ledger._database.write() as connection:
        connection.execute(text(statement))
    told = manager.explain_balance("u1")
    assert not told.adds_up
    assert any(problem in each for each in told.problems)
    assert "Inconsistencies" in str(told)


def test_some_entries_at_a_time(manager: CreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few entries are read at a time, each counts once."""
    monkeypatch.setattr(entry_queries, "ENTRIES_AT_A_TIME", 2)
    for _ in range(5):
        manager.add_credits("u1", 2)
        manager.deduct("u1", 1)
    manager.wait_for_ledger()
    told = manager.explain_balance("u1")
    assert (told.adds_up, told.missing) == (True, ())
    assert {line.kind: line.count for line in told.lines} == {"opened": 1, "added": 5, "charged": 5}


def test_an_entry_that_comes_twice_counts_once(bare: CreditManager) -> None:
    """What the ledger and the journal both have counts once, and what is newer than the engine's answer not at all."""
    bare.add_credits("u1", 10)
    described = bare.describe("u1")
    bare.add_credits("u1", 5)
    history = BalanceHistory(described, 10)
    evidence = HistoryReader(bare.store, None, "u1", bare.store.namespace.partition_of("u1"))
    for _ in range(2):
        read_history(history, evidence, ())
    told = history.result([])
    assert (told.adds_up, lines(told)) == (True, {("opened", "signup_bonus"): 3, ("added", "purchase"): 10})


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "grant", "deduct", "usage", "reserve", "settle", "release", "refund", "adjust", "time", "plan"]
        ),
        st.integers(1, 9),
    ),
    max_size=25,
)


@given(STEPS, st.sampled_from(["release", "charge"]))
@settings(max_examples=40, deadline=None)
def test_it_always_adds_up(steps: list[tuple[str, int]], on_expiry: Any) -> None:
    """Whatever happens to an account, the lines add up to its balance, and its leases to what is held of it."""
    clock = Clock()
    manager = CreditManager(clock.store, on_lease_expiry=on_expiry)
    manager.publish_pricing(DOCUMENT)
    charges: list[str] = []
    for number, (step, amount) in enumerate(steps):
        try:
            match step:
                case "add":
                    manager.add_credits("u1", amount)
                case "grant":
                    manager.add_credits("u1", amount, type="bonus", expires_at=clock.time + timedelta(hours=amount))
                case "deduct":
                    charges.append(manager.deduct("u1", amount).transaction_id)
                case "usage":
                    charges.append(manager.deduct("u1", used("a", amount)).transaction_id)
                case "reserve":
                    manager.reserve("u1", amount, lease_id=f"{number}", ttl=amount * 3600)
                case "settle" | "release":
                    lease_id = str(max(place for place, each in enumerate(steps[:number]) if each[0] == "reserve"))
                    if step == "settle":
                        charges.append(manager.settle("u1", lease_id, amount).transaction_id)
                    else:
                        manager.release("u1", lease_id)
                case "refund":
                    manager.refund_credits(charges[-1], amount)
                case "adjust":
                    manager.adjust_credits("u1", -amount, actor="kim", reason="test")
                case "time":
                    clock.move(hours=amount)
                case "plan":
                    manager.set_user_plan("u1", "pro" if amount % 2 else None)
        except (CreditError, ValueError, IndexError):
            pass  # refused, or nothing to do it to
    told = manager.explain_balance("u1")
    assert told.problems == ()
    assert lines(told) is not None
    balance = manager.get_balance("u1")
    assert (told.balance, told.held) == (balance.balance, balance.held)
    assert sum((hold.amount for hold in told.leases), Decimal(0)) == balance.held
    for transaction_id in charges:
        explained = manager.explain(transaction_id)
        assert sum((source.amount for source in explained.sources), Decimal(0)) == explained.charged
        assert explained.refunded <= explained.charged
