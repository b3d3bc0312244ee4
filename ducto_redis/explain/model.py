"""What an explanation says: of one transaction, and of a balance. Credits are Decimals, times are in UTC."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import CostBreakdown
from ducto_redis.results import ZERO, AllowanceStatus, CapStatus, Grant, TeamMember

SourceKind: TypeAlias = Literal["allowance", "grant", "pool"]
LeaseState: TypeAlias = Literal["open", "settled", "released", "expired"]


class Price(Struct, frozen=True, kw_only=True):
    """How usage was priced.

    Attributes:
        version: of the pricing document; 0 is an engine that a manager was given.
        plan: whose rates applied; None for the document's own.
        costs: what each usage cost, line by line with formulas; empty where the document cannot be had any more.
        exact: the sum before each usage's price was rounded, to 18 places; None where it cannot be had.
        rounding: what rounding added.
        total: what was asked for: the price that the engine was told.
    """

    version: int
    plan: str | None
    costs: tuple[CostBreakdown, ...]
    exact: Decimal | None
    rounding: Decimal | None
    total: Decimal


class Source(Struct, frozen=True, kw_only=True):
    """What credits came from, or went back to.

    Attributes:
        kind: the plan's allowance; a grant; or the pool of all other credits.
        period: of an allowance, its number.
        grant: of a grant, its number; type, priority and expires_at are its own.
    """

    kind: SourceKind
    amount: Decimal
    period: int | None = None
    grant: int | None = None
    type: str | None = None
    priority: int | None = None
    expires_at: datetime | None = None


class CapCount(Struct, frozen=True, kw_only=True):
    """A spend cap that a charge counted towards, or of which a lease holds a part.

    `crossed` is the cap's action (warn, notify) where this is what took it over its limit.
    """

    cap_id: str
    scope: str
    amount: Decimal
    crossed: str | None = None


class LeaseStory(Struct, frozen=True, kw_only=True):
    """A lease, from its reserve to its end.

    Attributes:
        state: what became of it.
        parent: the lease that it was opened inside of, or None.
        held: credits that it held, extensions included.
        inside: the part of them that leases inside of it took, and had not given back when it was closed.
        held_of_allowance: the part of them that rested on the allowance.
        estimate: the usage that it was opened for; empty where an amount was given.
        reserved_by: the transaction that opened it.
        extended_by: transactions that enlarged it.
        charged: credits that it was charged in the end; None where it was not.
        returned: the part of the hold that was neither charged nor taken inside of it.
        shortfall: the part of the cost that nothing could pay.
        late: whether it had expired when it was settled.
        closed_by: the transaction that closed it.
    """

    lease_id: str
    state: LeaseState
    parent: str | None = None
    held: Decimal | None = None
    inside: Decimal = ZERO
    held_of_allowance: Decimal = ZERO
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    closed_at: datetime | None = None
    operation_type: str | None = None
    owner: str | None = None
    estimate: tuple[UsageMetrics, ...] = ()
    reserved_by: str | None = None
    extended_by: tuple[str, ...] = ()
    charged: Decimal | None = None
    returned: Decimal | None = None
    shortfall: Decimal = ZERO
    late: bool = False
    closed_by: str | None = None


class RefundOf(Struct, frozen=True, kw_only=True):
    """A refund of a charge. `lost` is the part that could not be returned."""

    transaction_id: str
    at: datetime
    amount: Decimal
    lost: Decimal = ZERO
    reason: str | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """One transaction, explained. `str()` of it is the whole, in words.

    Attributes:
        operation: deduct, settle, reserve, add_credits, refund, expire, set_plan...
        source: where it was found: `journal`, in Redis, or `ledger`.
        key: the idempotency key that the caller gave, or None.
        amount: credits that the operation was about.
        charged: credits that it charged, whoever paid for them.
        shortfall: the part of the cost that could not be charged.
        balance_change: by how much the balance moved.
        balance_before, balance_after: None where it is not known any more.
        usage: what was consumed, or estimated; empty where an amount was given.
        price: how that was priced; None where it was not.
        sources: what paid for it; of a refund, where it went back to.
        caps: spend caps that it counted towards.
        low_levels: low-balance levels that it took the balance below.
        lease: the lease that it belongs to.
        refunds, refunded: refunds since, and their sum.
        refund_of: of a refund, the transaction that was refunded.
        lost: of a refund, what could not be returned.
        type: of credits that came in or expired.
        plan, allowance: that the account got, of an operation that changed them.
        grants: those that the operation made, or changed.
        caps_set: spend caps as the operation left them.
        members: members of the team as the operation left them.
        details: what else it wrote, by name.
        flags: what is unusual about the usage.
        actor, reason: who did it by hand, and why.
        missing: what cannot be said, and why.
    """

    transaction_id: str
    account: str
    operation: str
    at: datetime
    source: Literal["journal", "ledger"]
    key: str | None
    amount: Decimal
    charged: Decimal = ZERO
    shortfall: Decimal = ZERO
    balance_change: Decimal = ZERO
    balance_before: Decimal | None = None
    balance_after: Decimal | None = None
    usage: tuple[UsageMetrics, ...] = ()
    price: Price | None = None
    sources: tuple[Source, ...] = ()
    caps: tuple[CapCount, ...] = ()
    low_levels: tuple[Decimal, ...] = ()
    member: str | None = None
    operation_type: str | None = None
    lease: LeaseStory | None = None
    refunds: tuple[RefundOf, ...] = ()
    refunded: Decimal = ZERO
    refund_of: str | None = None
    lost: Decimal = ZERO
    type: str | None = None
    plan: str | None = None
    allowance: AllowanceStatus | None = None
    grants: tuple[Grant, ...] = ()
    caps_set: tuple[CapStatus, ...] = ()
    members: tuple[TeamMember, ...] = ()
    details: Mapping[str, str] = {}
    flags: tuple[str, ...] = ()
    actor: str | None = None
    reason: str | None = None
    metadata: Mapping[str, Any] | None = None
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        from ducto_redis.explain.transaction import explanation_lines

        return "\n".join(explanation_lines(self))


class BalanceLine(Struct, frozen=True, kw_only=True):
    """Movements of one kind, which together moved the balance by `amount`.

    Attributes:
        kind: opened, added, charged, refunded, expired, adjusted, other; `earlier` is what happened before all that is
            known, `due` what has fallen due and is journalled with the account's next change.
        name: the type of the credits, or the model that was charged for; None where there is none.
        count: how many movements.
        from_allowance: of charges, what allowances paid beside it; of refunds, what went back to allowances.
    """

    kind: str
    name: str | None
    count: int
    amount: Decimal
    from_allowance: Decimal = ZERO


class BalanceMovement(Struct, frozen=True, kw_only=True):
    """One change that moved a balance."""

    transaction_id: str
    at: datetime
    operation: str
    name: str | None
    amount: Decimal
    balance_after: Decimal


class LeaseHold(Struct, frozen=True, kw_only=True):
    """What an open lease holds: `amount` of the balance, and `of_allowance` beside it."""

    lease_id: str
    amount: Decimal
    of_allowance: Decimal
    operation_type: str
    owner: str
    created_at: datetime
    expires_at: datetime


class BalanceExplanation(Struct, frozen=True, kw_only=True):
    """How a balance came about. `str()` of it is the whole, in words.

    Attributes:
        lines: all movements by kind; their amounts add up to the balance.
        movements: the last ones that moved the balance, newest first.
        grants: what the balance is made of; number 0 is the pool, below zero where the account is in debt.
        leases: what holds `held` of the balance.
        since: when the first change that is known happened; None where none is.
        adds_up: whether lines, grants and leases were found to add up to the balance and to what is held of it.
        problems: what does not add up.
        missing: what cannot be said, and why.
    """

    account: str
    at: datetime
    balance: Decimal
    held: Decimal
    available: Decimal
    allowance: AllowanceStatus
    lines: tuple[BalanceLine, ...]
    movements: tuple[BalanceMovement, ...]
    grants: tuple[Grant, ...]
    leases: tuple[LeaseHold, ...]
    since: datetime | None
    adds_up: bool
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        from ducto_redis.explain.balance import balance_lines

        return "\n".join(balance_lines(self))
