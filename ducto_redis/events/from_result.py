"""The facts of a manager's results, and the events of its results and refusals.

The events are those of the journal's entry, under the same ids. A fact that only the entry knows is missing here, such
as the member of a settled lease.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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
from ducto_redis.events.facts import Facts
from ducto_redis.events.telling import event_of, events_of
from ducto_redis.events.types import CapReached, CreditEvent, DeductFailed, LeaseExpired, RefundFailed
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
"""The errors that refuse a charge or a hold."""

REFUND_REFUSED = (RefundError, TransactionNotFoundError)
"""The errors that refuse a refund."""


def result_events(operation: str, result: Any, call: Call) -> Iterator[CreditEvent]:
    """Yield the events of an operation that a manager has done.

    Args:
        operation: the operation, as journal entries call it.
        result: what the manager's method returned.
        call: the method's arguments.
    """
    facts = FACTS.get(operation)
    if facts is None:
        return
    if isinstance(result, SettleResult) and result.late:
        yield _lease_expired(result.account, result.lease_id)
    yield from events_of(operation, facts(result, call))


def refusal_events(operation: str, error: CreditError, call: Call) -> Iterator[CreditEvent]:
    """Yield the events of an error that refused an operation. No journal has them."""
    metadata = call.get("metadata")
    if isinstance(error, LeaseExpiredError):
        yield _lease_expired(call["account"], call["lease_id"])
        return
    if operation == "refund":
        failed = RefundFailed(refund_of=str(call["transaction_id"]), error=error.code, message=str(error))
        yield event_of(failed, getattr(error, "account", ""), metadata=metadata)
        return
    account, member = call["account"], call.get("member")
    yield event_of(
        DeductFailed(
            operation=operation,
            error=error.code,
            message=str(error),
            operation_type=call.get("operation_type", "default"),
            member=member,
            lease_id=call.get("lease_id"),
            needed=getattr(error, "needed", None),
            available=getattr(error, "available", None),
            parent=getattr(error, "parent", None),
        ),
        account,
        metadata=metadata,
    )
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
        yield event_of(reached, account, metadata=metadata)


def _lease_expired(account: str, lease_id: str) -> CreditEvent:
    return event_of(LeaseExpired(lease_id=lease_id), account)


def _added(result: AddResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        balance_after=result.balance_after,
        balance_change=result.amount,
        type=call["type"],
        expires_at=result.expires_at,
        metadata=call["metadata"],
    )


def _adjusted(result: AdjustResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        balance_after=result.balance_after,
        balance_change=result.amount,
        type="adjustment",
        actor=call["actor"],
        reason=call["reason"],
        metadata=call["metadata"],
    )


def _deducted(result: DeductResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        balance_after=result.balance_after,
        balance_change=result.allowance_consumed - result.amount,
        allowance=result.allowance_consumed,
        operation_type=call["operation_type"],
        models=_models(call["usage_or_amount"]),
        member=call["member"],
        low_levels=result.low_levels,
        crossed=result.warnings,
        metadata=call["metadata"],
    )


def _reserved(result: ReserveResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        allowance=result.allowance_consumed,
        lease_id=result.lease_id,
        parent=call["parent"],
        operation_type=call["operation_type"],
        member=call["member"],
        expires_at=result.expires_at,
        crossed=result.warnings,
    )


def _extended(result: ExtendResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id, account=result.account, amount=result.amount, lease_id=result.lease_id
    )


def _settled(result: SettleResult, call: Call) -> Facts:
    # A late one may have been charged by its expiry before: what it changed of the balance is not known here.
    change = ZERO if result.late else result.allowance_consumed - result.amount
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        balance_after=result.balance_after,
        balance_change=change,
        allowance=result.allowance_consumed,
        shortfall=result.shortfall,
        lease_id=result.lease_id,
        late=result.late,
        models=_models(call["usage_or_amount"]),
        low_levels=result.low_levels,
        crossed=result.warnings,
        metadata=call["metadata"],
    )


def _released(result: ReleaseResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id, account=result.account, amount=result.amount, lease_id=result.lease_id
    )


def _refunded(result: RefundResult, call: Call) -> Facts:
    return Facts(
        transaction_id=result.transaction_id,
        account=result.account,
        amount=result.amount,
        balance_after=result.balance_after,
        allowance=result.allowance_restored,
        lost=result.lost,
        reason=call["reason"],
        refund_of=result.refund_of,
        metadata=call["metadata"],
    )


def _plan_changed(result: AccountChange, call: Call) -> Facts:
    return Facts(transaction_id=result.transaction_id, account=result.account, plan=call["plan"])


def _pricing_activated(result: PricingVersion, call: Call) -> Facts:
    return Facts(transaction_id=None, account="", version=result.version, activation=result.activation)


def _swept(result: SweepResult, call: Call) -> Facts:
    expired = 0 if call.get("dry_run") else result.grants_expired
    return Facts(transaction_id=None, account="", amount=result.credits_expired, grants=expired)


FACTS: Mapping[str, Callable[[Any, Call], Facts]] = {
    "add_credits": _added,
    "adjust_credits": _adjusted,
    "reserve": _reserved,
    "extend": _extended,
    "settle": _settled,
    "release": _released,
    "deduct": _deducted,
    "refund": _refunded,
    "expire_grant": _swept,
    "set_plan": _plan_changed,
    "publish_pricing": _pricing_activated,
}
"""The facts of an operation's result and of the arguments of its call."""


def _models(usage_or_amount: Any) -> tuple[str, ...]:
    if isinstance(usage_or_amount, UsageMetrics):
        return (usage_or_amount.model,) if usage_or_amount.model else ()
    if isinstance(usage_or_amount, Sequence) and not isinstance(usage_or_amount, str):
        return tuple(usage.model for usage in usage_or_amount if usage.model)
    return ()
