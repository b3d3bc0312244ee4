"""The events of what a manager did or was refused, made of its results and errors.

They are those that the journal's entry tells under the same id. What only the entry knows stays None here: a settled
lease's member, for one.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ducto_redis.engine.ids import new_id
from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    CreditError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    LeaseExpiredError,
    MemberNotFoundError,
    RefundError,
    TeamNotFoundError,
    TransactionNotFoundError,
    UnpricedModelError,
)
from ducto_redis.events.types import (
    Added,
    CapReached,
    CreditEvent,
    Deducted,
    DeductFailed,
    EventData,
    EventType,
    Expired,
    LeaseExpired,
    PlanChanged,
    PricingActivated,
    Refunded,
    RefundFailed,
    Released,
    Reserved,
    Settled,
    crossing_events,
    event_of,
    pricing_activated_id,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import (
    ZERO,
    AccountChange,
    AddResult,
    AdjustResult,
    DeductResult,
    ExtendResult,
    PricingVersion,
    RefundResult,
    ReleaseResult,
    ReserveResult,
    SettleResult,
    SweepResult,
)

Call = Mapping[str, Any]
"""The arguments of a call, by name."""

CHARGE_REFUSED = (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    MemberNotFoundError,
    TeamNotFoundError,
    UnpricedModelError,
)
"""What refuses a charge or a hold."""

REFUND_REFUSED = (RefundError, TransactionNotFoundError)
"""What refuses a refund."""


def added(result: AddResult, call: Call) -> Iterator[CreditEvent]:
    data = Added(
        amount=result.amount, balance_after=result.balance_after, type=call["type"], expires_at=result.expires_at
    )
    yield event_of(result.transaction_id, result.account, EventType.ADDED, data, metadata=call["metadata"])


def adjusted(result: AdjustResult, call: Call) -> Iterator[CreditEvent]:
    data = Added(
        amount=result.amount,
        balance_after=result.balance_after,
        type="adjustment",
        actor=call["actor"],
        reason=call["reason"],
    )
    yield event_of(result.transaction_id, result.account, EventType.ADDED, data, metadata=call["metadata"])
    yield from crossing_events(
        result.transaction_id,
        result.account,
        balance_after=result.balance_after,
        balance_change=result.amount,
        metadata=call["metadata"],
    )


def deducted(result: DeductResult, call: Call) -> Iterator[CreditEvent]:
    data = Deducted(
        amount=result.amount,
        balance_after=result.balance_after,
        allowance_consumed=result.allowance_consumed,
        operation_type=call["operation_type"],
        models=_models(call["usage_or_amount"]),
        member=call["member"],
    )
    yield event_of(result.transaction_id, result.account, EventType.DEDUCTED, data, metadata=call["metadata"])
    yield from crossing_events(
        result.transaction_id,
        result.account,
        balance_after=result.balance_after,
        balance_change=result.allowance_consumed - result.amount,
        low_levels=result.low_levels,
        crossed=result.warnings,
        member=call["member"],
        metadata=call["metadata"],
    )


def reserved(result: ReserveResult, call: Call) -> Iterator[CreditEvent]:
    data = Reserved(
        lease_id=result.lease_id,
        amount=result.amount,
        operation_type=call["operation_type"],
        member=call["member"],
        allowance_consumed=result.allowance_consumed,
        expires_at=result.expires_at,
        parent=call["parent"],
    )
    yield event_of(result.transaction_id, result.account, EventType.RESERVED, data)
    yield from crossing_events(result.transaction_id, result.account, crossed=result.warnings, member=call["member"])


def extended(result: ExtendResult, call: Call) -> Iterator[CreditEvent]:
    data = Reserved(lease_id=result.lease_id, amount=result.amount, extended=True)
    yield event_of(result.transaction_id, result.account, EventType.RESERVED, data)


def settled(result: SettleResult, call: Call) -> Iterator[CreditEvent]:
    metadata = call["metadata"]
    if result.late:
        yield _lease_expired(result.account, result.lease_id)
    data = Settled(
        lease_id=result.lease_id,
        amount=result.amount,
        balance_after=result.balance_after,
        shortfall=result.shortfall,
        allowance_consumed=result.allowance_consumed,
        late=result.late,
        models=_models(call["usage_or_amount"]),
    )
    yield event_of(result.transaction_id, result.account, EventType.SETTLED, data, metadata=metadata)
    # What a late one changed is not known here: its expiry may have charged before.
    yield from crossing_events(
        result.transaction_id,
        result.account,
        balance_after=result.balance_after,
        balance_change=ZERO if result.late else result.allowance_consumed - result.amount,
        low_levels=result.low_levels,
        crossed=result.warnings,
        metadata=metadata,
    )


def released(result: ReleaseResult, call: Call) -> Iterator[CreditEvent]:
    data = Released(lease_id=result.lease_id, amount=result.amount)
    yield event_of(result.transaction_id, result.account, EventType.RELEASED, data)


def nothing(result: object, call: Call) -> Iterator[CreditEvent]:
    return iter(())


def refunded(result: RefundResult, call: Call) -> Iterator[CreditEvent]:
    data = Refunded(
        amount=result.amount,
        balance_after=result.balance_after,
        refund_of=result.refund_of,
        allowance_restored=result.allowance_restored,
        lost=result.lost,
        reason=call["reason"],
    )
    yield event_of(result.transaction_id, result.account, EventType.REFUNDED, data, metadata=call["metadata"])


def plan_changed(result: AccountChange, call: Call) -> Iterator[CreditEvent]:
    data = PlanChanged(plan=call["plan"])
    yield event_of(result.transaction_id, result.account, EventType.PLAN_CHANGED, data)


def pricing_activated(result: PricingVersion, call: Call) -> Iterator[CreditEvent]:
    data = PricingActivated(version=result.version, activation=result.activation)
    yield _event(EventType.PRICING_ACTIVATED, "", data, event_id=pricing_activated_id(result.activation))


def swept(result: SweepResult, call: Call) -> Iterator[CreditEvent]:
    if result.grants_expired and not call.get("dry_run"):
        data = Expired(amount=result.credits_expired, grants=result.grants_expired)
        yield _event(EventType.EXPIRED, "", data)


def charge_refused(error: CreditError, call: Call, *, operation: str) -> Iterator[CreditEvent]:
    account, member = call["account"], call.get("member")
    failed = DeductFailed(
        operation=operation,
        error=error.code,
        message=str(error),
        operation_type=call.get("operation_type", "default"),
        member=member,
        lease_id=call.get("lease_id"),
        needed=getattr(error, "needed", None),
        available=getattr(error, "available", None),
        parent=getattr(error, "parent", None),
    )
    yield _event(EventType.DEDUCT_FAILED, account, failed, metadata=call.get("metadata"))
    if isinstance(error, CapReachedError):
        reached = CapReached(
            cap_id=error.cap_id,
            scope=error.scope,
            blocking=True,
            member=member,
            window=error.window,
            limit=error.limit,
            used=error.used,
            held=error.held,
            needed=error.needed,
            window_end=error.window_end,
        )
        yield _event(EventType.CAP_REACHED, account, reached, metadata=call.get("metadata"))


def refund_refused(error: CreditError, call: Call) -> Iterator[CreditEvent]:
    failed = RefundFailed(refund_of=str(call["transaction_id"]), error=error.code, message=str(error))
    yield _event(EventType.REFUND_FAILED, getattr(error, "account", ""), failed, metadata=call.get("metadata"))


def lease_expired(error: CreditError, call: Call) -> Iterator[CreditEvent]:
    yield _lease_expired(call["account"], call["lease_id"])


def extend_refused(error: CreditError, call: Call) -> Iterator[CreditEvent]:
    if isinstance(error, LeaseExpiredError):
        return lease_expired(error, call)
    return charge_refused(error, call, operation="extend")


def _lease_expired(account: str, lease_id: str) -> CreditEvent:
    return _event(EventType.LEASE_EXPIRED, account, LeaseExpired(lease_id=lease_id))


def _event(
    type: EventType,
    account: str,
    data: EventData,
    *,
    event_id: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> CreditEvent:
    return CreditEvent(
        type=type,
        account=account,
        time=datetime.now(UTC),
        event_id=event_id or f"told:{new_id()}",
        data=data,
        metadata=metadata or None,
    )


def _models(usage_or_amount: Any) -> tuple[str, ...]:
    if isinstance(usage_or_amount, UsageMetrics):
        return (usage_or_amount.model,) if usage_or_amount.model else ()
    if isinstance(usage_or_amount, Sequence) and not isinstance(usage_or_amount, str):
        return tuple(usage.model for usage in usage_or_amount if usage.model)
    return ()
