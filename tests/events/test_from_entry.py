"""The events of a journal entry, from entries written by hand and by the engine."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ducto_redis import CreditEvent, CreditManager
from ducto_redis.delivery import EventTail
from ducto_redis.engine.entry import JournalEntry, UnreadableEntryError
from ducto_redis.events.from_entry import entry_events
from ducto_redis.events.types import (
    Added,
    CapReached,
    CapWarned,
    Deducted,
    Expired,
    LeaseExpired,
    LowBalance,
    Overdraft,
    PlanChanged,
    Refunded,
    Settled,
)
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"_default": "output_tokens"},
    "signup_bonus": 50,
    "default_plan": "free",
    "plans": {"free": {"free_allowance": 10}},
}


def entry(
    operation: str,
    *,
    amount: int = 0,
    balance_change: int = 0,
    shortfall: int = 0,
    cause: str = "",
    details: str = "",
    changes: tuple[tuple[str, str], ...] = (),
) -> JournalEntry:
    return JournalEntry(
        partition=3,
        entry_id="1700000000123-4",
        operation=operation,
        account="u1",
        epoch=1,
        seq=7,
        operation_key="key/k",
        amount=amount,
        balance_change=balance_change,
        shortfall=shortfall,
        version=2,
        cause=cause,
        details=details.replace("|", "\x1f"),
        changes=tuple((name, value.replace("|", "\x1f")) for name, value in changes),
    )


def said(written: JournalEntry) -> list[object]:
    return [event.data for event in entry_events(written)]


def test_a_charge_and_all_that_it_crossed() -> None:
    """One entry tells the charge, then overdraft, levels and caps, with the charge's member, models and metadata."""
    written = entry(
        "deduct",
        amount=9_000_000,
        balance_change=-7_000_000,
        cause='{"usage":[["gpt-4o",0,9]],"operation_type":"chat","metadata":{"request":"r1"}}',
        details="allowance|2000000 1|cap/day|9000000 account|crossed/day|warn account|crossed/month|notify model/gpt-4o"
        "|member|ana|low|5000000|low|0",
        changes=(("balance", "-1500000"),),
    )
    assert said(written) == [
        Deducted(
            amount=Decimal(9),
            balance_after=Decimal("-1.5"),
            allowance_consumed=Decimal(2),
            operation_type="chat",
            models=("gpt-4o",),
            member="ana",
        ),
        Overdraft(amount=Decimal(7), balance_after=Decimal("-1.5")),
        LowBalance(level=Decimal(5), balance_after=Decimal("-1.5")),
        LowBalance(level=Decimal(0), balance_after=Decimal("-1.5")),
        CapWarned(cap_id="day", scope="account", member="ana"),
        CapReached(cap_id="month", scope="model/gpt-4o", member="ana"),
    ]
    events = list(entry_events(written))
    assert {event.transaction_id for event in events} == {"3-1-1700000000123-4"}
    assert all(event.metadata == {"request": "r1"} for event in events)


def test_the_same_entry_tells_the_same() -> None:
    """An entry that comes again tells the same events under the same ids."""
    written = entry("deduct", amount=1, balance_change=-1, details="low|5", changes=(("balance", "4"),))
    assert list(entry_events(written)) == list(entry_events(written))


def test_a_balance_that_did_not_move_is_not_known() -> None:
    """An entry that left the balance alone says none; nothing of the balance can be crossed by it."""
    written = entry("deduct", amount=5, details="allowance|5 1")
    assert said(written) == [
        Deducted(amount=Decimal("0.000005"), balance_after=None, allowance_consumed=Decimal("0.000005"))
    ]


def test_settling() -> None:
    """A settle charged what its cost was without the shortfall."""
    written = entry(
        "settle",
        amount=9_000_000,
        balance_change=-4_000_000,
        shortfall=5_000_000,
        details="late|1|member|ana",
        changes=(("balance", "0"), ("lease/l1", "")),
    )
    assert said(written) == [
        Settled(
            lease_id="l1",
            amount=Decimal(4),
            balance_after=Decimal(0),
            shortfall=Decimal(5),
            late=True,
            member="ana",
        )
    ]


def test_a_refund() -> None:
    """A refund says what it was about, where it went, and what was lost."""
    written = entry(
        "refund",
        amount=6_000_000,
        balance_change=3_000_000,
        cause='{"reason":"ticket 81"}',
        details="refund_of|3-1-1-0|allowance|2000000 1|lost|1000000",
        changes=(("balance", "3000000"),),
    )
    assert said(written) == [
        Refunded(
            amount=Decimal(6),
            balance_after=Decimal(3),
            refund_of="3-1-1-0",
            allowance_restored=Decimal(2),
            lost=Decimal(1),
            reason="ticket 81",
        )
    ]


@pytest.mark.parametrize("operation", ["renew", "forget", "sweep", "set_cap", "freeze", "create_team", "something_new"])
def test_what_nobody_needs_to_hear(operation: str) -> None:
    """Other entries tell nothing, those of a later version among them."""
    assert said(entry(operation)) == []


def test_a_damaged_entry_is_an_error() -> None:
    """Details that are none are an error, so that the entry becomes a dead letter instead of half an event."""
    with pytest.raises(UnreadableEntryError):
        said(entry("deduct", details="low"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told_by(clock: Clock) -> list[CreditEvent]:
    return list(EventTail(clock.store, since=clock.time - timedelta(days=100)).read_all())


def test_a_new_account_tells_what_it_begins_with(clock: Clock) -> None:
    """The first change of an account tells its bonus and its plan, before the change itself."""
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.deduct("u1", 1, skip_allowance=True)
        opening = [event for event in told_by(clock) if event.account == "u1"]
        assert [event.data for event in opening] == [
            Added(amount=Decimal(50), balance_after=Decimal(50), type="signup_bonus"),
            PlanChanged(plan="free"),
            Deducted(amount=Decimal(1), balance_after=Decimal(49)),
        ]


def test_a_lease_that_expires_is_told(clock: Clock) -> None:
    """A lease whose time is over tells what it held and what was charged for it, whoever applied it."""
    with CreditManager(clock.store, on_lease_expiry="charge") as manager:
        manager.add_credits("u1", 100)
        lease = manager.reserve("u1", 8, ttl=60)
        clock.move(seconds=61)
        manager.sweep()
        *_, expired = told_by(clock)
    assert expired.data == LeaseExpired(
        lease_id=lease.lease_id, amount=Decimal(8), charged=Decimal(8), balance_after=Decimal(92)
    )


def test_grants_tell_what_they_were(clock: Clock) -> None:
    """Credits that expire say of which grant and type they were, and credits that come in when they will."""
    expires_at = clock.time + timedelta(days=1)
    with CreditManager(clock.store) as manager:
        manager.add_credits("u1", 5, type="bonus", expires_at=expires_at)
        clock.move(days=2)
        manager.sweep_expired_credits()
        added, expired = told_by(clock)
    assert added.data.expires_at == datetime.fromtimestamp(expires_at.timestamp(), UTC)
    assert expired.data == Expired(amount=Decimal(5), grant=1, type="bonus", balance_after=Decimal(0))
