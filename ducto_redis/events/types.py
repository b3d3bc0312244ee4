"""Events: what happened to an account, told to whoever wants to know.

An event is told in the process that caused it (`manager.on`), and to workers, which read the journal. Both tell the
same event under the same id.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.errors import ConfigError
from ducto_redis.money import to_signed_micro
from ducto_redis.results import ZERO, CapWarning


class EventType(StrEnum):
    """The types of events. Each is a text, such as `credits.low_balance`."""

    ADDED = "credits.added"
    RESERVED = "credits.reserved"
    SETTLED = "credits.settled"
    RELEASED = "credits.released"
    DEDUCTED = "credits.deducted"
    DEDUCT_FAILED = "credits.deduct_failed"
    REFUNDED = "credits.refunded"
    REFUND_FAILED = "credits.refund_failed"
    EXPIRED = "credits.expired"
    LEASE_EXPIRED = "credits.lease_expired"
    CAP_WARNING = "credits.cap_warning"
    CAP_REACHED = "credits.cap_reached"
    LOW_BALANCE = "credits.low_balance"
    OVERDRAFT = "credits.overdraft"
    PLAN_CHANGED = "credits.plan_changed"
    PRICING_ACTIVATED = "credits.pricing_activated"


class EventData(Struct, frozen=True, kw_only=True):
    """What an event says besides who and when: one class for each type. Credits are Decimals."""


class Added(EventData, frozen=True, kw_only=True):
    """Credits came in, or were adjusted. `amount` is below zero for an adjustment that took some.

    `type` is what they are: purchase, bonus, adjustment, signup_bonus...; `actor` and `reason` belong to adjustments.
    """

    amount: Decimal
    balance_after: Decimal | None
    type: str
    expires_at: datetime | None = None
    actor: str | None = None
    reason: str | None = None


class Reserved(EventData, frozen=True, kw_only=True):
    """A lease was opened, or extended. `amount` is all that it holds, a part of it from the allowance.

    `parent` is the lease that it is inside of.
    """

    lease_id: str
    amount: Decimal
    extended: bool = False
    operation_type: str | None = None
    member: str | None = None
    allowance_consumed: Decimal | None = None
    expires_at: datetime | None = None
    parent: str | None = None


class Settled(EventData, frozen=True, kw_only=True):
    """A lease was settled. `amount` was charged; `shortfall` could not be. `late`: it had expired."""

    lease_id: str
    amount: Decimal
    balance_after: Decimal | None
    shortfall: Decimal = ZERO
    allowance_consumed: Decimal = ZERO
    late: bool = False
    models: tuple[str, ...] = ()
    member: str | None = None


class Released(EventData, frozen=True, kw_only=True):
    """A lease was released. `amount` is what it no longer holds."""

    lease_id: str
    amount: Decimal


class Deducted(EventData, frozen=True, kw_only=True):
    """Credits were charged in one step. `allowance_consumed` is the part that the plan's allowance paid."""

    amount: Decimal
    balance_after: Decimal | None
    allowance_consumed: Decimal = ZERO
    operation_type: str = "default"
    models: tuple[str, ...] = ()
    member: str | None = None


class DeductFailed(EventData, frozen=True, kw_only=True):
    """A charge or a hold was refused.

    Attributes:
        operation: deduct, reserve or extend.
        error: the code of the error, such as `insufficient_credits`; `message` is its text.
        needed, available: credits, where the error says them.
        lease_id: of an extend.
        suppressed: how many refusals like it were not told since the last one, because there were too many.
        parent: the lease whose hold was too small, where it was not the account that could not pay.
    """

    operation: str
    error: str
    message: str
    operation_type: str = "default"
    member: str | None = None
    lease_id: str | None = None
    needed: Decimal | None = None
    available: Decimal | None = None
    suppressed: int = 0
    parent: str | None = None


class Refunded(EventData, frozen=True, kw_only=True):
    """A charge was given back, or a part of it, as a `RefundResult` says."""

    amount: Decimal
    balance_after: Decimal | None
    refund_of: str
    allowance_restored: Decimal = ZERO
    lost: Decimal = ZERO
    reason: str | None = None


class RefundFailed(EventData, frozen=True, kw_only=True):
    """A refund was refused. `refund_of` is the transaction, `error` and `message` say why."""

    refund_of: str
    error: str
    message: str
    suppressed: int = 0


class Expired(EventData, frozen=True, kw_only=True):
    """Credits expired.

    `grant` is the number of the grant that they were left of, `type` what its credits were; both are None where a sweep
    says how many (`grants`) it found on all accounts together.
    """

    amount: Decimal
    grants: int = 1
    grant: int | None = None
    type: str | None = None
    balance_after: Decimal | None = None


class LeaseExpired(EventData, frozen=True, kw_only=True):
    """Nobody closed a lease in time. `amount` is what it held, `charged` what was charged for it then.

    Only the journal knows these; a manager that finds out by its own call tells the lease alone.
    """

    lease_id: str
    amount: Decimal | None = None
    charged: Decimal | None = None
    balance_after: Decimal | None = None


class CapWarned(EventData, frozen=True, kw_only=True):
    """A charge or a hold passed the limit of a spend cap with action `warn`, for the first time in its window."""

    cap_id: str
    scope: str
    member: str | None = None


class CapReached(EventData, frozen=True, kw_only=True):
    """A spend cap's limit: passed, with action `notify`, for the first time in its window; or it refused (`blocking`).

    The numbers are those of a refusal, in credits.
    """

    cap_id: str
    scope: str
    blocking: bool = False
    member: str | None = None
    window: str | None = None
    limit: Decimal | None = None
    used: Decimal | None = None
    held: Decimal | None = None
    needed: Decimal | None = None
    window_end: datetime | None = None
    suppressed: int = 0


class LowBalance(EventData, frozen=True, kw_only=True):
    """A charge took the balance to a low-balance level or below. Each level tells so once, until credits come in."""

    level: Decimal
    balance_after: Decimal


class Overdraft(EventData, frozen=True, kw_only=True):
    """A charge took the balance from zero or more to below zero. `amount` is what it took from the balance."""

    amount: Decimal
    balance_after: Decimal


class PlanChanged(EventData, frozen=True, kw_only=True):
    """An account got a plan, or lost it (None)."""

    plan: str | None


class PricingActivated(EventData, frozen=True, kw_only=True):
    """A pricing document is in force. `activation` grows with each."""

    version: int
    activation: int


EVENT_DATA: Mapping[EventType, type[EventData]] = {
    EventType.ADDED: Added,
    EventType.RESERVED: Reserved,
    EventType.SETTLED: Settled,
    EventType.RELEASED: Released,
    EventType.DEDUCTED: Deducted,
    EventType.DEDUCT_FAILED: DeductFailed,
    EventType.REFUNDED: Refunded,
    EventType.REFUND_FAILED: RefundFailed,
    EventType.EXPIRED: Expired,
    EventType.LEASE_EXPIRED: LeaseExpired,
    EventType.CAP_WARNING: CapWarned,
    EventType.CAP_REACHED: CapReached,
    EventType.LOW_BALANCE: LowBalance,
    EventType.OVERDRAFT: Overdraft,
    EventType.PLAN_CHANGED: PlanChanged,
    EventType.PRICING_ACTIVATED: PricingActivated,
}
"""What an event of each type says."""


SIGNALS = (EventType.DEDUCT_FAILED, EventType.REFUND_FAILED, EventType.CAP_REACHED)
"""The types of events that tell refusals, which no journal has."""


class CreditEvent(Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        type: what.
        account: whose; empty for what concerns the whole namespace.
        time: when, UTC.
        event_id: names the event, however often and wherever it is told; it holds no dot.
        transaction_id: the change that it tells of; None for a refusal, which changed nothing.
        data: the type's own fields, see the classes of this module.
        metadata: the caller's own, of the change.
    """

    type: EventType
    account: str
    time: datetime
    event_id: str
    data: Any
    transaction_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def to_json(self) -> bytes:
        """The event as JSON, credits as decimal strings. It is what webhooks send."""
        return _encoder.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> "CreditEvent":
        """The event that `to_json` wrote. Raises ConfigError where it is none."""
        try:
            raw = _decoder.decode(text)
            data = msgspec.json.decode(raw.data, type=EVENT_DATA[raw.type])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(f"not an event: {error}") from None
        fields = {name: getattr(raw, name) for name in raw.__struct_fields__ if name != "data"}
        return CreditEvent(**fields, data=data)


class _RawEvent(CreditEvent, frozen=True, kw_only=True):
    data: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_RawEvent)


def event_of(
    transaction_id: str,
    account: str,
    type: EventType,
    data: EventData,
    *,
    which: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> CreditEvent:
    """The event of that type that a change brings. `which` tells several of one type apart."""
    event_id = f"{transaction_id}:{type.value.removeprefix('credits.')}"
    return CreditEvent(
        type=type,
        account=account,
        time=_time_of(transaction_id),
        event_id=f"{event_id}:{which}" if which else event_id,
        data=data,
        transaction_id=transaction_id,
        metadata=metadata or None,
    )


def pricing_activated_id(activation: int) -> str:
    """The id of the event of an activation, which is told before its transaction is known."""
    return f"pricing_activated:{activation}"


def crossing_events(
    transaction_id: str,
    account: str,
    *,
    balance_after: Decimal | None = None,
    balance_change: Decimal = ZERO,
    low_levels: Sequence[Decimal] = (),
    crossed: Sequence[CapWarning] = (),
    member: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[CreditEvent]:
    """The events of what a change crossed: zero, low-balance levels, spend caps.

    Args:
        balance_after, balance_change: credits; None where the balance stayed.
        low_levels: levels that it took the balance to or below.
        crossed: caps with action warn or notify whose limits it passed.
    """

    def event(type: EventType, data: EventData, which: str = "") -> CreditEvent:
        return event_of(transaction_id, account, type, data, which=which, metadata=metadata)

    if balance_after is not None:
        if balance_after < 0 <= balance_after - balance_change:
            yield event(EventType.OVERDRAFT, Overdraft(amount=-balance_change, balance_after=balance_after))
        for level in low_levels:
            low = LowBalance(level=level, balance_after=balance_after)
            yield event(EventType.LOW_BALANCE, low, str(to_signed_micro(level)))
    for number, cap in enumerate(crossed):
        if cap.action == "warn":
            warned = CapWarned(cap_id=cap.cap_id, scope=cap.scope, member=member)
            yield event(EventType.CAP_WARNING, warned, str(number))
        else:
            reached = CapReached(cap_id=cap.cap_id, scope=cap.scope, member=member)
            yield event(EventType.CAP_REACHED, reached, str(number))


def _time_of(transaction_id: str) -> datetime:
    # partition-epoch-milliseconds-number: when the server wrote it.
    return datetime.fromtimestamp(int(transaction_id.split("-")[2]) / 1000, UTC)
