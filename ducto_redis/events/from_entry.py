"""The events of a journal entry."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct, structs

from ducto_redis.engine.cause import Cause
from ducto_redis.engine.entry import Details, JournalEntry, LeaseGrounds, LeaseRecord
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.events.types import (
    Added,
    CreditEvent,
    Deducted,
    EventData,
    EventType,
    Expired,
    LeaseExpired,
    PlanChanged,
    PricingActivated,
    Refunded,
    Released,
    Reserved,
    Settled,
    crossing_events,
    event_of,
    pricing_activated_id,
)
from ducto_redis.money import from_micro
from ducto_redis.results import CapWarning

_FIELD_SEPARATOR = "\x1f"
_SIGNUP_BONUS = "signup_bonus"
_ADJUSTMENT = "adjustment"


def entry_events(entry: JournalEntry) -> Iterator[CreditEvent]:
    """What a journal entry tells: first what was done, then what was crossed by it. The same entry, the same events.

    Raises:
        UnreadableEntryError: if the entry is damaged.
    """
    told = _TOLD.get(entry.operation)
    if told is None:
        return
    change = _Change.read(entry)
    account = "" if entry.account == RESERVED_ACCOUNT else entry.account
    metadata = change.cause.metadata
    for event_type, data in told(change):
        event = event_of(entry.transaction_id, account, event_type, data, metadata=metadata)
        if isinstance(data, PricingActivated):
            event = structs.replace(event, event_id=pricing_activated_id(data.activation))
        yield event
    yield from crossing_events(
        entry.transaction_id,
        account,
        balance_after=change.balance_after,
        balance_change=from_micro(entry.balance_change),
        low_levels=[from_micro(level) for level in change.details.low],
        crossed=[CapWarning(cap_id=cap.cap_id, scope=cap.scope, action=cap.action) for cap in change.details.crossed],
        member=change.member,
        metadata=metadata,
    )


class _Change(Struct, frozen=True):
    entry: JournalEntry
    cause: Cause
    details: Details
    fields: Mapping[str, str]
    lease_id: str
    lease: LeaseRecord | None
    grounds: LeaseGrounds

    @classmethod
    def read(cls, entry: JournalEntry) -> "_Change":
        fields = dict(entry.changes)
        lease_id, record = entry.lease or ("", "")
        lease = LeaseRecord.decode(record) if record else None
        grounds = LeaseGrounds.decode(lease.grounds if lease else "")
        return cls(entry, entry.read_cause(), entry.read_details(), fields, lease_id, lease, grounds)

    @property
    def balance_after(self) -> Decimal | None:
        balance = self.fields.get("balance")
        return None if balance is None else from_micro(int(balance))

    @property
    def member(self) -> str | None:
        return self.details.member or self.grounds.member or None

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(usage.model for usage in self.cause.usages if usage.model)


_Told = Iterator[tuple[EventType, EventData]]


def _credits_added(change: _Change, credits_type: str) -> _Told:
    grant = change.fields.get(f"grant/{change.entry.seq}", "")
    expires_ms = int(grant.split(_FIELD_SEPARATOR)[1]) if grant else 0
    yield (
        EventType.ADDED,
        Added(
            amount=from_micro(change.entry.balance_change),
            balance_after=change.balance_after,
            type=credits_type,
            expires_at=_time(expires_ms) if expires_ms else None,
            actor=change.cause.actor,
            reason=change.cause.reason,
        ),
    )


def _adjusted(change: _Change) -> _Told:
    if change.entry.balance_change:  # by nothing: a decision that was written down, see `deduct_personal_then_team`
        yield from _credits_added(change, _ADJUSTMENT)


def _plan_changed(change: _Change) -> _Told:
    plan = change.fields["plan"].split(_FIELD_SEPARATOR)[0]
    yield EventType.PLAN_CHANGED, PlanChanged(plan=plan or None)


def _opened(change: _Change) -> _Told:
    if change.entry.balance_change:
        yield from _credits_added(change, _SIGNUP_BONUS)
    if change.fields.get("plan"):
        yield from _plan_changed(change)


def _reserved(change: _Change, *, extended: bool) -> _Told:
    if change.lease is None:
        return
    yield (
        EventType.RESERVED,
        Reserved(
            lease_id=change.lease_id,
            amount=from_micro(change.lease.amount),
            extended=extended,
            operation_type=change.lease.operation_type,
            member=change.member,
            allowance_consumed=from_micro(change.grounds.allowance),
            expires_at=_time(change.lease.expires_ms),
            parent=change.grounds.parent,
        ),
    )


def _settled(change: _Change) -> _Told:
    yield (
        EventType.SETTLED,
        Settled(
            lease_id=change.lease_id,
            amount=from_micro(change.entry.charged),
            balance_after=change.balance_after,
            shortfall=from_micro(change.entry.shortfall),
            allowance_consumed=from_micro(change.details.allowance),
            late=change.details.late,
            models=change.models,
            member=change.member,
        ),
    )


def _released(change: _Change) -> _Told:
    yield EventType.RELEASED, Released(lease_id=change.lease_id, amount=from_micro(change.entry.amount))


def _lease_expired(change: _Change) -> _Told:
    yield (
        EventType.LEASE_EXPIRED,
        LeaseExpired(
            lease_id=change.lease_id,
            amount=from_micro(change.entry.amount),
            charged=from_micro(change.entry.charged),
            balance_after=change.balance_after,
        ),
    )


def _deducted(change: _Change) -> _Told:
    yield (
        EventType.DEDUCTED,
        Deducted(
            amount=from_micro(change.entry.amount),
            balance_after=change.balance_after,
            allowance_consumed=from_micro(change.details.allowance),
            operation_type=change.cause.operation_type or "default",
            models=change.models,
            member=change.member,
        ),
    )


def _refunded(change: _Change) -> _Told:
    yield (
        EventType.REFUNDED,
        Refunded(
            amount=from_micro(change.entry.amount),
            balance_after=change.balance_after,
            refund_of=change.details.refund_of,
            allowance_restored=from_micro(change.details.allowance),
            lost=from_micro(change.details.lost),
            reason=change.cause.reason,
        ),
    )


def _grant_expired(change: _Change) -> _Told:
    grant = change.details.grants[0]
    yield (
        EventType.EXPIRED,
        Expired(
            amount=from_micro(change.entry.amount),
            grant=grant.number,
            type=grant.type,
            balance_after=change.balance_after,
        ),
    )


def _pricing_activated(change: _Change) -> _Told:
    activation = int(change.fields["activation"])
    yield EventType.PRICING_ACTIVATED, PricingActivated(version=change.entry.version, activation=activation)


_TOLD: Mapping[str, Callable[[_Change], _Told]] = {
    "add_credits": lambda change: _credits_added(change, change.cause.type or ""),
    "adjust_credits": _adjusted,
    "open_account": _opened,
    "reserve": lambda change: _reserved(change, extended=False),
    "extend": lambda change: _reserved(change, extended=True),
    "settle": _settled,
    "release": _released,
    "expire": _lease_expired,
    "deduct": _deducted,
    "refund": _refunded,
    "expire_grant": _grant_expired,
    "set_plan": _plan_changed,
    "publish_pricing": _pricing_activated,
    "activate_pricing": _pricing_activated,
}


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
