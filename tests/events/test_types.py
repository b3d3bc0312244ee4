"""What events are: their types, their JSON, their ids, and what a change crosses."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.events.types import EVENT_DATA, SIGNALS, CapReached, CreditEvent, EventType, crossing_events, event_of
from ducto_redis.results import CapWarning

TRANSACTION = "3-1-1700000000123-4"


def example_of(annotation: Any) -> Any:
    """Some value of a field's type."""
    if isinstance(annotation, msgspec.inspect.UnionType):
        annotation = next(it for it in annotation.types if not isinstance(it, msgspec.inspect.NoneType))
    kind = type(annotation).__name__
    return {
        "StrType": "a",
        "IntType": 7,
        "BoolType": True,
        "DecimalType": Decimal("1.500000"),
        "DateTimeType": datetime(2026, 1, 31, 12, 0, 0, 5000, tzinfo=UTC),
        "VarTupleType": ("a", "b"),
    }[kind]


@pytest.mark.parametrize("event_type", EventType)
def test_every_type_survives_json(event_type: EventType) -> None:
    """An event that is written as JSON and read again is the same, whatever its type says."""
    kind = EVENT_DATA[event_type]
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    data = kind(**{field.name: example_of(field.type) for field in info.fields})
    event = event_of(TRANSACTION, "u1", event_type, data, metadata={"order": "A-17"})
    read = CreditEvent.from_json(event.to_json())
    assert read == event
    assert type(read.data) is kind


def test_json_holds_credits_as_decimal_strings() -> None:
    """What a webhook sends can be read without losing a digit."""
    (event,) = crossing_events(TRANSACTION, "u1", balance_after=Decimal("4.200000"), low_levels=[Decimal("5.000000")])
    assert msgspec.json.decode(event.to_json()) == {
        "type": "credits.low_balance",
        "account": "u1",
        "time": "2023-11-14T22:13:20.123000Z",
        "event_id": "3-1-1700000000123-4:low_balance:5000000",
        "data": {"level": "5.000000", "balance_after": "4.200000"},
        "transaction_id": TRANSACTION,
        "metadata": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"type": "credits.sold", "account": "u", "time": "2026-01-01T00:00:00Z", "event_id": "x", "data": {}}',
        b'{"type": "credits.low_balance", "account": "u", "time": "2026-01-01T00:00:00Z", "event_id": "x", "data": {}}',
    ],
)
def test_what_is_no_event_is_refused(text: bytes) -> None:
    """A text that is no event is an error that says so, never half an event."""
    with pytest.raises(ConfigError, match="not an event"):
        CreditEvent.from_json(text)


def test_a_change_that_crosses_nothing_tells_nothing() -> None:
    """A charge above all levels, and one below zero that was there already, cross nothing."""
    assert list(crossing_events(TRANSACTION, "u1", balance_after=Decimal(5), balance_change=Decimal(-1))) == []
    assert list(crossing_events(TRANSACTION, "u1", balance_after=Decimal(-2), balance_change=Decimal(-1))) == []


@pytest.mark.parametrize(
    ("after", "change", "overdraft"),
    [("0", "-5", False), ("-0.000001", "-5", True), ("-5", "-5", True), ("-6", "-5", False), ("-1", "2", False)],
)
def test_overdraft_is_the_step_below_zero(after: str, change: str, overdraft: bool) -> None:
    """Overdraft is told by the charge that takes a balance from zero or more to below zero, by no other."""
    events = list(crossing_events(TRANSACTION, "u1", balance_after=Decimal(after), balance_change=Decimal(change)))
    assert [event.type for event in events] == [EventType.OVERDRAFT] * overdraft


def test_what_is_crossed_is_told_apart() -> None:
    """Several levels and caps in one change are several events, each with an id of its own that holds no dot."""
    events = list(
        crossing_events(
            TRANSACTION,
            "team",
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
    event = event_of(TRANSACTION, "u1", EventType.RELEASED, EVENT_DATA[EventType.RELEASED](lease_id="l", amount=1))
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_every_type_has_its_fields() -> None:
    """No type of events is without a class for what it says, and signals are types."""
    assert set(EVENT_DATA) == set(EventType)
    assert set(SIGNALS) <= set(EventType)
