"""The parts of an explanation. Credits are Decimals, times are in UTC."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from msgspec import Struct

from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import CostBreakdown
from ducto_redis.results import ZERO

SourceKind: TypeAlias = Literal["allowance", "grant", "pool"]
LeaseState: TypeAlias = Literal["open", "settled", "released", "expired"]


class Price(Struct, frozen=True, kw_only=True):
    """The pricing of usage.

    Attributes:
        version: of the pricing document; 0 is an engine that a manager was given.
        plan: the plan whose rates applied; None for the document's own.
        costs: the cost of each usage, line by line with formulas; empty if the document is no longer available.
        exact: the sum before each usage's price was rounded, to 18 places; None if it is not known.
        rounding: the part of the total that rounding added.
        total: the price that the engine was told.
    """

    version: int
    plan: str | None
    costs: tuple[CostBreakdown, ...]
    exact: Decimal | None
    rounding: Decimal | None
    total: Decimal


class Source(Struct, frozen=True, kw_only=True):
    """A source that credits came from, or went back to.

    Attributes:
        kind: the plan's allowance; a grant; or the pool of all other credits.
        period: the number of the allowance's period.
        grant: the number of the grant; type, priority and expires_at are the grant's.
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

    `crossed` is the cap's action (warn, notify) if this took it over its limit.
    """

    cap_id: str
    scope: str
    amount: Decimal
    crossed: str | None = None


class LeaseStory(Struct, frozen=True, kw_only=True):
    """A lease, from its reserve to its end.

    Attributes:
        state: open, settled, released or expired.
        parent: the lease that it was opened inside of, or None.
        held: credits that it held, extensions included.
        inside: the part of them that leases inside of it took, and had not given back when it was closed.
        held_of_allowance: the part of them that came from the allowance.
        estimate: the usage that it was opened for; empty if an amount was given.
        reserved_by: the transaction that opened it.
        extended_by: transactions that enlarged it.
        charged: credits that it was charged in the end; None if it was not charged.
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


class BalanceLine(Struct, frozen=True, kw_only=True):
    """Movements of one kind, which together moved the balance by `amount`.

    Attributes:
        kind: opened, added, charged, refunded, expired, adjusted, other; `earlier` sums up the changes before the first
            known one, `due` those that are due and will be journalled with the account's next change.
        name: the type of the credits, or the model that was charged for; None if there is none.
        count: the number of movements.
        from_allowance: of charges, the part that allowances paid beside it; of refunds, the part that went back there.
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
    """The hold of an open lease: `amount` of the balance, and `of_allowance` beside it."""

    lease_id: str
    amount: Decimal
    of_allowance: Decimal
    operation_type: str
    owner: str
    created_at: datetime
    expires_at: datetime
