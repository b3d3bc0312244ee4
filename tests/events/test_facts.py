"""The two adapters of facts: a journal entry's and a manager's result give the same facts of an operation."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from ducto_redis import CreditManager, UsageMetrics
from ducto_redis.engine.entry import JournalEntry
from ducto_redis.events.facts import Facts
from ducto_redis.events.from_entry import facts_of
from ducto_redis.events.from_result import FACTS
from ducto_redis.events.telling import TOLD
from ducto_redis.run_sync import run_sync
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01", "_default": "output_tokens"},
    "plans": {"pro": {"free_allowance": 20}},
}
USAGE = (UsageMetrics(model="gpt-4o", output_tokens=100), UsageMetrics(output_tokens=1))
NOTHING = Facts(transaction_id=None, account="")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store, low_balance_thresholds=[50], policy="overdraft", overdraft_floor=-100) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 100)
        manager.set_user_plan("u1", "pro")
        manager.set_spend_cap("u1", 70, window="day", action="warn")
        yield manager


def entry_of(credits: CreditManager, transaction_id: str) -> JournalEntry:
    partition, _, entry_id = transaction_id.split("-", 2)
    entry = run_sync(credits.store.read_entry(int(partition), entry_id))
    assert entry is not None
    return entry


def add(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    expires_at = clock.time + timedelta(days=3)
    call = {"type": "bonus", "metadata": {"order": 1}}
    return credits.add_credits("u1", 7, priority=1, expires_at=expires_at, **call), call


def adjust(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    call = {"actor": "ana", "reason": "ticket 82", "metadata": {"order": 1}}
    return credits.adjust_credits("u1", -1, **call), call


def deduct(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    call = {"usage_or_amount": USAGE, "operation_type": "chat", "member": None, "metadata": {"request": "r1"}}
    return credits.deduct("u1", **call), call


def deduct_across(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    """A charge that passes a spend cap and a level, and goes below zero."""
    call = {"usage_or_amount": 150, "operation_type": "default", "member": None, "metadata": None}
    return credits.deduct("u1", **call), call


def reserve(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    outer = credits.reserve("u1", 40)
    call = {"operation_type": "agent", "member": None, "parent": outer.lease_id}
    return credits.reserve("u1", 30, **call), call


def extend(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    lease = credits.reserve("u1", 40)
    return credits.extend("u1", lease.lease_id, 5), {}


def settle(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    lease = credits.reserve("u1", 10)
    call = {"usage_or_amount": USAGE, "metadata": {"request": "r2"}}
    return credits.settle("u1", lease.lease_id, **call), call


def settle_late(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    lease = credits.reserve("u1", 10, ttl=60)
    clock.move(seconds=61)
    call = {"usage_or_amount": USAGE, "metadata": None}
    return credits.settle("u1", lease.lease_id, **call), call


def release(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    return credits.release("u1", credits.reserve("u1", 10).lease_id), {}


def refund(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    charge = credits.deduct("u1", 30)
    call = {"reason": "ticket 81", "metadata": {"order": 1}}
    return credits.refund_credits(charge.transaction_id, 25, **call), call


def set_plan(credits: CreditManager, clock: Clock) -> tuple[Any, dict[str, Any]]:
    return credits.unset_user_plan("u1"), {"plan": None}


Act = Callable[[CreditManager, Clock], tuple[Any, dict[str, Any]]]
CASES: list[tuple[str, Act]] = [
    ("add_credits", add),
    ("adjust_credits", adjust),
    ("deduct", deduct),
    ("deduct", deduct_across),
    ("reserve", reserve),
    ("extend", extend),
    ("settle", settle),
    ("settle", settle_late),
    ("release", release),
    ("refund", refund),
    ("set_plan", set_plan),
]


@pytest.mark.parametrize(("operation", "act"), CASES, ids=[act.__name__ for _, act in CASES])
def test_both_adapters_give_the_same_facts(
    operation: str,
    act: Callable[[CreditManager, Clock], tuple[Any, dict[str, Any]]],
    credits: CreditManager,
    clock: Clock,
) -> None:
    """Every fact that a result has is that of the entry, but for a balance that the entry left alone."""
    result, call = act(credits, clock)
    known = FACTS[operation](result, call)
    journalled = facts_of(entry_of(credits, result.transaction_id))
    assert journalled is not None
    for name in Facts.__struct_fields__:
        value = getattr(known, name)
        if value != getattr(NOTHING, name) and not (name == "balance_after" and journalled.balance_after is None):
            expected = getattr(journalled, name)
            assert (tuple(value) if name in ("low_levels", "crossed") else value) == (
                tuple(expected) if name in ("low_levels", "crossed") else expected
            ), name


def test_a_charge_that_crosses_everything_is_among_them(credits: CreditManager, clock: Clock) -> None:
    """The facts that are compared hold crossed levels and caps, so that these are compared too."""
    result, call = deduct_across(credits, clock)
    known = FACTS["deduct"](result, call)
    assert known.low_levels
    assert known.crossed
    assert known.allowance


def test_every_result_has_its_events() -> None:
    """An operation whose result a manager tells is in the table of events."""
    assert set(FACTS) <= set(TOLD)
