"""The one table of the events that each operation brings about, and the events of what a change crossed."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ducto_redis.engine.ids import TransactionId, new_id
from ducto_redis.events.facts import Facts
from ducto_redis.events.types import (
    EVENT_DATA,
    Added,
    CapReached,
    CapWarned,
    CreditEvent,
    Deducted,
    EventData,
    Expired,
    LeaseExpired,
    LowBalance,
    Overdraft,
    PlanChanged,
    PricingActivated,
    Refunded,
    Released,
    Reserved,
    Settled,
)
from ducto_redis.money import to_signed_micro
from ducto_redis.results import ZERO

_EVENT_TYPE = {data: event_type for event_type, data in EVENT_DATA.items()}


def events_of(operation: str, facts: Facts) -> Iterator[CreditEvent]:
    """Yield the events of an operation: first what was done, then what it crossed.

    An operation that is not in `TOLD` has no events. The same facts give the same events under the same ids, except
    where the transaction is not known.
    """
    tell = TOLD.get(operation)
    if tell is None:
        return
    for data in tell(facts):
        yield event_of(data, facts.account, facts.transaction_id, metadata=facts.metadata)
    yield from crossing_events(facts)


def crossing_events(facts: Facts) -> Iterator[CreditEvent]:
    """Yield the events of what a change crossed: zero, low-balance levels, spend caps."""

    def event(data: EventData, which: str = "") -> CreditEvent:
        return event_of(data, facts.account, facts.transaction_id, which=which, metadata=facts.metadata)

    balance_after = facts.balance_after
    if balance_after is not None:
        if balance_after < 0 <= balance_after - facts.balance_change:
            yield event(Overdraft(amount=-facts.balance_change, balance_after=balance_after))
        for level in facts.low_levels:
            yield event(LowBalance(level=level, balance_after=balance_after), str(to_signed_micro(level)))
    for number, cap in enumerate(facts.crossed):
        passed = CapWarned if cap.action == "warn" else CapReached
        yield event(passed(cap_id=cap.cap_id, scope=cap.scope, member=facts.member), str(number))


def event_of(
    data: EventData,
    account: str,
    transaction_id: str | None = None,
    *,
    which: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> CreditEvent:
    """Return the event that says `data`.

    Args:
        data: the event's own fields; they tell its type.
        account: whose it is; empty for the whole namespace.
        transaction_id: the change that brought it; None for a refusal, or if it is not known. The event then happens
            now and has an id of its own.
        which: tells several events of one type and one change apart.
        metadata: the caller's own.
    """
    event_type = _EVENT_TYPE[type(data)]
    if isinstance(data, PricingActivated):
        # A manager tells an activation without knowing its transaction; the journal tells it under the same id.
        event_id = f"pricing_activated:{data.activation}"
    elif transaction_id is None:
        event_id = f"told:{new_id()}"
    else:
        event_id = f"{transaction_id}:{event_type.value.removeprefix('credits.')}"
    return CreditEvent(
        type=event_type,
        account=account,
        time=datetime.now(UTC) if transaction_id is None else TransactionId.read(transaction_id).time,
        event_id=f"{event_id}:{which}" if which else event_id,
        data=data,
        transaction_id=transaction_id,
        metadata=metadata or None,
    )


def _added(facts: Facts) -> Iterator[EventData]:
    if facts.balance_change:  # an adjustment by nothing writes down a decision, see `deduct_personal_then_team`
        yield Added(
            amount=facts.balance_change,
            balance_after=facts.balance_after,
            type=facts.type or "",
            expires_at=facts.expires_at,
            actor=facts.actor,
            reason=facts.reason,
        )


def _opened(facts: Facts) -> Iterator[EventData]:
    yield from _added(facts)
    if facts.plan:
        yield from _plan_changed(facts)


def _reserved(facts: Facts, *, extended: bool = False) -> Iterator[EventData]:
    yield Reserved(
        lease_id=facts.lease_id,
        amount=facts.amount,
        extended=extended,
        operation_type=facts.operation_type,
        member=facts.member,
        allowance_consumed=facts.allowance,
        expires_at=facts.expires_at,
        parent=facts.parent,
    )


def _extended(facts: Facts) -> Iterator[EventData]:
    return _reserved(facts, extended=True)


def _settled(facts: Facts) -> Iterator[EventData]:
    yield Settled(
        lease_id=facts.lease_id,
        amount=facts.amount,
        balance_after=facts.balance_after,
        shortfall=facts.shortfall,
        allowance_consumed=facts.allowance or ZERO,
        late=facts.late,
        models=facts.models,
        member=facts.member,
    )


def _released(facts: Facts) -> Iterator[EventData]:
    yield Released(lease_id=facts.lease_id, amount=facts.amount)


def _lease_expired(facts: Facts) -> Iterator[EventData]:
    yield LeaseExpired(
        lease_id=facts.lease_id, amount=facts.amount, charged=facts.charged, balance_after=facts.balance_after
    )


def _deducted(facts: Facts) -> Iterator[EventData]:
    yield Deducted(
        amount=facts.amount,
        balance_after=facts.balance_after,
        allowance_consumed=facts.allowance or ZERO,
        operation_type=facts.operation_type or "default",
        models=facts.models,
        member=facts.member,
    )


def _refunded(facts: Facts) -> Iterator[EventData]:
    yield Refunded(
        amount=facts.amount,
        balance_after=facts.balance_after,
        refund_of=facts.refund_of,
        allowance_restored=facts.allowance or ZERO,
        lost=facts.lost,
        reason=facts.reason,
    )


def _expired(facts: Facts) -> Iterator[EventData]:
    if facts.grants:
        yield Expired(
            amount=facts.amount,
            grants=facts.grants,
            grant=facts.grant,
            type=facts.type,
            balance_after=facts.balance_after,
        )


def _plan_changed(facts: Facts) -> Iterator[EventData]:
    yield PlanChanged(plan=facts.plan)


def _pricing_activated(facts: Facts) -> Iterator[EventData]:
    yield PricingActivated(version=facts.version, activation=facts.activation)


TOLD: Mapping[str, Callable[[Facts], Iterator[EventData]]] = {
    "add_credits": _added,
    "adjust_credits": _added,
    "open_account": _opened,
    "reserve": _reserved,
    "extend": _extended,
    "settle": _settled,
    "release": _released,
    "expire": _lease_expired,
    "deduct": _deducted,
    "refund": _refunded,
    "expire_grant": _expired,
    "set_plan": _plan_changed,
    "publish_pricing": _pricing_activated,
    "activate_pricing": _pricing_activated,
}
"""The events of each operation; the other operations have none."""
