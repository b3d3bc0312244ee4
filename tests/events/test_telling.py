"""The table of events, and what a change crosses."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ducto_redis.events.facts import Facts
from ducto_redis.events.telling import TOLD, crossing_events, event_of, events_of
from ducto_redis.events.types import CapReached, EventType, LowBalance, PricingActivated, Released
from ducto_redis.results import CapWarning

TRANSACTION = "3-1-1700000000123-4"


def facts(**said: Any) -> Facts:
    return Facts(**{"transaction_id": TRANSACTION, "account": "u1", **said})


def test_a_change_that_crosses_nothing_tells_nothing() -> None:
    """A charge above all levels, and one below zero that was there already, cross nothing."""
    assert list(crossing_events(facts(balance_after=Decimal(5), balance_change=Decimal(-1)))) == []
    assert list(crossing_events(facts(balance_after=Decimal(-2), balance_change=Decimal(-1)))) == []


@pytest.mark.parametrize(
    ("after", "change", "overdraft"),
    [("0", "-5", False), ("-0.000001", "-5", True), ("-5", "-5", True), ("-6", "-5", False), ("-1", "2", False)],
)
def test_overdraft_is_the_step_below_zero(after: str, change: str, overdraft: bool) -> None:
    """Overdraft is told by the charge that takes a balance from zero or more to below zero, by no other."""
    events = list(crossing_events(facts(balance_after=Decimal(after), balance_change=Decimal(change))))
    assert [event.type for event in events] == [EventType.OVERDRAFT] * overdraft


def test_what_is_crossed_is_told_apart() -> None:
    """Several levels and caps in one change are several events, each with an id of its own that holds no dot."""
    events = list(
        crossing_events(
            facts(
                account="team",
                balance_after=Decimal("-1.5"),
                balance_change=Decimal("-9"),
                low_levels=[Decimal("5.5"), Decimal("0.25")],
                crossed=[
                    CapWarning(cap_id="day", scope="model/gpt-4.1", action="warn"),
                    CapWarning(cap_id="day", scope="account", action="notify"),
                ],
                member="ana",
                metadata={"request": "r1"},
            )
        )
    )
    assert [event.type.value.partition(".")[2] for event in events] == [
        "overdraft",
        "low_balance",
        "low_balance",
        "cap_warning",
        "cap_reached",
    ]
    ids = [event.event_id for event in events]
    assert len(set(ids)) == len(ids)
    assert not any("." in event_id for event_id in ids)
    assert all(event.metadata == {"request": "r1"} and event.account == "team" for event in events)
    assert events[-1].data == CapReached(cap_id="day", scope="account", member="ana", blocking=False)


def test_the_time_is_the_transactions() -> None:
    """An event of a change happened when the server journalled it, in UTC."""
    event = event_of(Released(lease_id="l", amount=Decimal(1)), "u1", TRANSACTION)
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_an_event_without_a_transaction_happens_now() -> None:
    """An event whose transaction is not known has the time of its telling and an id of its own."""
    first, second = (event_of(Released(lease_id="l", amount=Decimal(1)), "u1") for _ in range(2))
    assert first.transaction_id is None
    assert first.event_id != second.event_id
    assert abs(datetime.now(UTC) - first.time) < timedelta(minutes=10)


def test_an_activation_has_one_id() -> None:
    """A manager, which does not know the transaction, and the journal tell an activation under the same id."""
    data = PricingActivated(version=2, activation=7)
    assert event_of(data, "").event_id == event_of(data, "", TRANSACTION).event_id == "pricing_activated:7"


def test_an_operation_is_told_before_what_it_crossed() -> None:
    """The events of an operation come in the order of cause and effect; other operations have none."""
    change = facts(amount=Decimal(5), balance_after=Decimal(1), low_levels=[Decimal(2)])
    assert [event.type for event in events_of("deduct", change)] == [EventType.DEDUCTED, EventType.LOW_BALANCE]
    assert list(events_of("freeze", change)) == []
    assert "freeze" not in TOLD
    *_, low = events_of("deduct", change)
    assert low.data == LowBalance(level=Decimal(2), balance_after=Decimal(1))
