"""The facts of a change to an account: everything that an event of it can say."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from ducto_redis.results import ZERO, CapWarning


class Facts(Struct, frozen=True, kw_only=True):
    """The facts of one change, from its journal entry or from a manager's result. Credits are Decimals.

    A fact that the source does not know has its default.

    Attributes:
        transaction_id: the change; None if the source does not know it.
        account: empty for a change of the whole namespace.
        amount: credits that were charged, held, released, refunded or expired; of a lease, all that it holds.
        balance_after: the balance that the change led to.
        balance_change: by how much the balance moved.
        allowance: the part of the amount that the allowance paid, holds or got back.
        shortfall: the part of a lease's cost that could not be charged.
        charged: credits that the expiry of a lease charged.
        lost: the part of a refund that could not be returned.
        lease_id, parent, late: the lease, the lease that it is inside of, and whether it expired before it was settled.
        operation_type, models, member: the kind of work, the models that were used, and the member who spent.
        type, expires_at: the type of the credits, and when they or the lease expire.
        grant, grants: the number of the grant that expired, and how many expired.
        actor, reason: who made the change by hand, and why.
        refund_of: the transaction that was refunded.
        plan: the plan that the account got; None if it lost its plan.
        version, activation: the pricing document that was activated.
        low_levels: low-balance levels that the balance fell to or below.
        crossed: spend caps that warn or notify, and whose limits the change passed.
        metadata: the caller's own.
    """

    transaction_id: str | None
    account: str
    amount: Decimal = ZERO
    balance_after: Decimal | None = None
    balance_change: Decimal = ZERO
    allowance: Decimal | None = None
    shortfall: Decimal = ZERO
    charged: Decimal = ZERO
    lost: Decimal = ZERO
    lease_id: str = ""
    parent: str | None = None
    late: bool = False
    operation_type: str | None = None
    models: tuple[str, ...] = ()
    member: str | None = None
    type: str | None = None
    expires_at: datetime | None = None
    grant: int | None = None
    grants: int = 0
    actor: str | None = None
    reason: str | None = None
    refund_of: str = ""
    plan: str | None = None
    version: int = 0
    activation: int = 0
    low_levels: Sequence[Decimal] = ()
    crossed: Sequence[CapWarning] = ()
    metadata: Mapping[str, Any] | None = None
