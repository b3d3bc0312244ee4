"""The types of events, and their JSON."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.events.telling import event_of
from ducto_redis.events.types import EVENT_DATA, SIGNALS, CreditEvent, EventType, LowBalance

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
    event = event_of(data, "u1", TRANSACTION, metadata={"order": "A-17"})
    read = CreditEvent.from_json(event.to_json())
    assert read == event
    assert type(read.data) is kind
    assert read.type == event_type


def test_json_holds_credits_as_decimal_strings() -> None:
    """What a webhook sends can be read without losing a digit."""
    low = LowBalance(level=Decimal("5.000000"), balance_after=Decimal("4.200000"))
    event = event_of(low, "u1", TRANSACTION, which="5000000")
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


def test_every_type_has_its_fields() -> None:
    """No type of events is without a class for what it says, and signals are types."""
    assert set(EVENT_DATA) == set(EventType)
    assert set(SIGNALS) <= set(EventType)
