"""The types of events, and the fields of each.

An event is told in the process that caused it (`manager.on`), and to workers, which read the journal. Both tell the
same event under the same id.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.errors import ConfigError
from ducto_redis.results import ZERO


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
    """The fields of an event besides account and time: one class for each type. Credits are Decimals."""


class Added(EventData, frozen=True, kw_only=True):
    """Credits that came in, or an adjustment. `amount` is below zero for an adjustment that took some.

    `type` is that of the credits: purchase, bonus, adjustment, signup_bonus...; `actor` and `reason` belong to
    adjustments.
    """

    amount: Decimal
    balance_after: Decimal | None
    type: str
    expires_at: datetime | None = None
    actor: str | None = None
    reason: str | None = None


class Reserved(EventData, frozen=True, kw_only=True):
    """A lease that was opened or extended. `amount` is all that it holds, `allowance_consumed` the allowance's part.

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
    """A lease that was settled. `amount` was charged, `shortfall` could not be. `late`: the lease had expired."""

    lease_id: str
    amount: Decimal
    balance_after: Decimal | None
    shortfall: Decimal = ZERO
    allowance_consumed: Decimal = ZERO
    late: bool = False
    models: tuple[str, ...] = ()
    member: str | None = None


class Released(EventData, frozen=True, kw_only=True):
    """A lease that was released. `amount` is the hold that ended."""

    lease_id: str
    amount: Decimal


class Deducted(EventData, frozen=True, kw_only=True):
    """A charge in one step. `allowance_consumed` is the part that the plan's allowance paid."""

    amount: Decimal
    balance_after: Decimal | None
    allowance_consumed: Decimal = ZERO
    operation_type: str = "default"
    models: tuple[str, ...] = ()
    member: str | None = None


class DeductFailed(EventData, frozen=True, kw_only=True):
    """A refused charge or hold.

    Attributes:
        operation: deduct, reserve or extend.
        error: the code of the error, such as `insufficient_credits`; `message` is its text.
        needed, available: credits, if the error has them.
        lease_id: of an extend.
        suppressed: the number of similar refusals since the last one that was told; they were too many to tell.
        parent: the lease whose hold was too small, if it was not the account that could not pay.
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
    """A refund of a charge, or of a part of it. The fields are those of `RefundResult`."""

    amount: Decimal
    balance_after: Decimal | None
    refund_of: str
    allowance_restored: Decimal = ZERO
    lost: Decimal = ZERO
    reason: str | None = None


class RefundFailed(EventData, frozen=True, kw_only=True):
    """A refused refund. `refund_of` is the transaction, `error` and `message` say why."""

    refund_of: str
    error: str
    message: str
    suppressed: int = 0


class Expired(EventData, frozen=True, kw_only=True):
    """Credits that expired.

    `grant` is the number of their grant, `type` the type of its credits. Both are None for a sweep, which counts the
    grants of all accounts together (`grants`).
    """

    amount: Decimal
    grants: int = 1
    grant: int | None = None
    type: str | None = None
    balance_after: Decimal | None = None


class LeaseExpired(EventData, frozen=True, kw_only=True):
    """A lease that nobody closed in time. `amount` is its hold, `charged` the charge that followed.

    Only the journal knows these. A manager that finds a lease expired tells its id alone.
    """

    lease_id: str
    amount: Decimal | None = None
    charged: Decimal | None = None
    balance_after: Decimal | None = None


class CapWarned(EventData, frozen=True, kw_only=True):
    """A spend cap with action `warn` whose limit a charge or a hold passed, for the first time in its window."""

    cap_id: str
    scope: str
    member: str | None = None


class CapReached(EventData, frozen=True, kw_only=True):
    """A spend cap whose limit was passed, with action `notify`, or which refused a charge (`blocking`).

    A cap that notifies does so once in its window. The numbers are those of a refusal, in credits.
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
    """A charge that took the balance to a low-balance level or below. Each level tells once, until credits come in."""

    level: Decimal
    balance_after: Decimal


class Overdraft(EventData, frozen=True, kw_only=True):
    """A charge that took the balance from zero or more to below zero. `amount` is its part of the balance."""

    amount: Decimal
    balance_after: Decimal


class PlanChanged(EventData, frozen=True, kw_only=True):
    """A plan that an account got; None if it lost its plan."""

    plan: str | None


class PricingActivated(EventData, frozen=True, kw_only=True):
    """A pricing document that was activated. `activation` grows by 1 with each."""

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
"""The class of the data of each type."""


SIGNALS = (EventType.DEDUCT_FAILED, EventType.REFUND_FAILED, EventType.CAP_REACHED)
"""The types of refusals, which are in no journal."""


class CreditEvent(Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        type: the type.
        account: whose event it is; empty for the whole namespace.
        time: the time, UTC.
        event_id: the same wherever and however often the event is told; it holds no dot.
        transaction_id: the change; None for a refusal, which changed nothing.
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
        """Return the event as JSON, credits as decimal strings. Webhooks send this."""
        return _encoder.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> "CreditEvent":
        """Return the event that `to_json` wrote. Raises ConfigError if the text is no event."""
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
