"""Results of operations.

Credits are Decimals with six places, times are aware datetimes in UTC, and a name means the same in every result:

- `transaction_id` names partition, epoch and journal entry of the change.
- `amount` is what the operation was about; charges are positive.
- `balance_after` and `available` are the account's after the change; `available` is the balance without what open
  leases hold.
- `replayed` is True where the operation had been done before and its first answer is given again.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")

ZERO = Decimal("0.000000")


class CapWarning(Struct, frozen=True, kw_only=True):
    """A spend cap whose limit was passed and that lets it pass. `action` is warn or notify."""

    cap_id: str
    scope: str
    action: str


class Change(Struct, frozen=True, kw_only=True):
    """A change to an account's balance, or to what is held of it."""

    transaction_id: str
    account: str
    amount: Decimal
    balance_after: Decimal
    available: Decimal
    replayed: bool = False


class AddResult(Change, frozen=True, kw_only=True):
    """Credits that came in. `durability` says who has them: `fast`, Redis; `ledger`, SQL too."""

    durability: str = "fast"
    expires_at: datetime | None = None


class AdjustResult(Change, frozen=True, kw_only=True):
    """A correction by hand. `amount` is signed."""


class DeductResult(Change, frozen=True, kw_only=True):
    """Credits that were charged in one step.

    Attributes:
        allowance_consumed: the part of the amount that the plan's allowance paid.
        warnings: spend caps with action warn or notify whose limit it passed, for the first time in their window.
        low_levels: low-balance levels, in credits, that it took the balance below.
    """

    allowance_consumed: Decimal = ZERO
    warnings: tuple[CapWarning, ...] = ()
    low_levels: tuple[Decimal, ...] = ()


class PersonalOrTeamCharge(Struct, frozen=True, kw_only=True):
    """A charge that either a user or their team paid for, never both.

    Attributes:
        paid_by: `personal` or `team`.
        account: whose credits they were.
        charge: the charge.
    """

    paid_by: str
    account: str
    charge: DeductResult


class RefundResult(Change, frozen=True, kw_only=True):
    """A charge that was given back, or a part of it.

    Attributes:
        amount: credits that this refund is about.
        refund_of: the transaction of the charge.
        refunded: credits of the charge that all refunds together are about.
        allowance_restored: the part that went back to the running allowance.
        lost: the part that could not be returned: its grant had expired, or its allowance's period was over.
    """

    refund_of: str
    refunded: Decimal
    allowance_restored: Decimal = ZERO
    lost: Decimal = ZERO


class AccountChange(Struct, frozen=True, kw_only=True):
    """A change to an account that moved no credits. `replayed` is True where it was so already."""

    transaction_id: str
    account: str
    replayed: bool = False


class LeaseChange(Change, frozen=True, kw_only=True):
    """A change that a lease made."""

    lease_id: str


class ReserveResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that was opened. `amount` is what it holds, `version` the document that it was priced under (0: none).

    `allowance_consumed` is the part of the hold that rests on the plan's allowance, `warnings` as for a `DeductResult`.
    """

    expires_at: datetime
    version: int
    allowance_consumed: Decimal = ZERO
    warnings: tuple[CapWarning, ...] = ()


class SettleResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that was settled.

    Attributes:
        amount: credits that were charged.
        shortfall: the part of the actual cost that neither the hold nor what was available could pay.
        late: True where the lease had expired, so that it no longer held anything.
        allowance_consumed, warnings, low_levels: as for a `DeductResult`.
    """

    shortfall: Decimal
    late: bool
    allowance_consumed: Decimal = ZERO
    warnings: tuple[CapWarning, ...] = ()
    low_levels: tuple[Decimal, ...] = ()


class ReleaseResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that was released. `amount` is what it no longer holds."""


class ExtendResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that holds more. `amount` is all that it holds now."""


class RenewResult(Struct, frozen=True, kw_only=True):
    """A lease that lives longer."""

    transaction_id: str
    account: str
    lease_id: str
    expires_at: datetime
    replayed: bool = False


class BilledResult(Struct, Generic[T], frozen=True):
    """The return value of billed work, and its charge; None where the engine is away and gets the charge later."""

    result: T
    charge: SettleResult | None


class Balance(Struct, frozen=True, kw_only=True):
    """An account's balance. `seq` counts the changes that led to it; 0 is an account without any change yet.

    Attributes:
        balance: credits, without the allowance.
        held: the part of the balance that open leases hold.
        available: balance without what is held.
        allowance: what is left of the plan's allowance in the running period.
    """

    account: str
    balance: Decimal
    held: Decimal
    available: Decimal
    seq: int
    allowance: Decimal = ZERO


class Grant(Struct, frozen=True, kw_only=True):
    """Credits that came in together and are told apart from the rest: they expire, or have a priority of their own.

    `number` 0 is the pool: all credits without expiry at the default priority, together.
    """

    number: int
    type: str
    amount: Decimal
    remaining: Decimal
    priority: int
    expires_at: datetime | None
    added_at: datetime | None


class UserPlan(Struct, frozen=True, kw_only=True):
    """The plan of an account."""

    account: str
    plan: str
    name: str
    assigned_at: datetime
    time_zone: str
    features: Mapping[str, object]


class FeatureStatus(Struct, frozen=True, kw_only=True):
    """A feature of an account's plan. It is true where the account has it.

    Attributes:
        plan: the account's plan, or None.
        value: what the plan says of it: True, a number, a text...; None where it says nothing.
        present: whether the account has it. Every value but None and False counts, 0 and "" too.
    """

    account: str
    feature: str
    plan: str | None
    value: object
    present: bool

    def __bool__(self) -> bool:
        return self.present


class AllowanceStatus(Struct, frozen=True, kw_only=True):
    """An account's allowance in the running period. Without a plan, or a plan without one, all is zero and None.

    Attributes:
        limit: credits of the period: the plan's, and what was rolled over.
        used: credits that were spent of it.
        held: credits of it that open leases hold.
        remaining: limit without used and held.
        rolled_over: the part of the limit that came from the period before.
    """

    account: str
    plan: str | None
    limit: Decimal = ZERO
    used: Decimal = ZERO
    held: Decimal = ZERO
    remaining: Decimal = ZERO
    rolled_over: Decimal = ZERO
    period_start: datetime | None = None
    period_end: datetime | None = None


class CapStatus(Struct, frozen=True, kw_only=True):
    """A spend cap, and what it has counted.

    Attributes:
        cap_id: names it.
        scope: `account`, `member/<id>` or `model/<name>`.
        source: `own`, set for this account, or `plan`.
        limit: credits that may be spent in the window; the raised limit while it holds.
        used: credits that were spent in the window.
        held: credits that open leases may still spend.
        remaining: what can still be reserved, zero or above.
        window_start, window_end: None for a total; of a rolling window the end is None.
        raised_until: when a temporary raise ends, or None.
    """

    account: str
    cap_id: str
    scope: str
    source: str
    window: str
    rolling: bool
    action: str
    time_zone: str
    limit: Decimal
    used: Decimal
    held: Decimal
    remaining: Decimal
    window_start: datetime | None
    window_end: datetime | None
    raised_until: datetime | None = None


class TeamMember(Struct, frozen=True, kw_only=True):
    """A member of a team. `role` is owner, admin, member or removed; `spent`, all credits that they spent of it."""

    user: str
    role: str
    joined_at: datetime
    spent: Decimal
    caps: tuple[CapStatus, ...] = ()


class Team(Struct, frozen=True, kw_only=True):
    """A team: its pool, and its members. Those who were removed are listed apart."""

    team: str
    name: str
    balance: Decimal
    held: Decimal
    available: Decimal
    members: tuple[TeamMember, ...]
    removed: tuple[TeamMember, ...] = ()


class AccountDescription(Struct, frozen=True, kw_only=True):
    """All that an account is, at the server's time `now`."""

    account: str
    now: datetime
    balance: Balance
    frozen: str
    plan: str
    plan_assigned_at: datetime | None
    time_zone: str
    allowance: AllowanceStatus
    grants: tuple[Grant, ...]
    caps: tuple[CapStatus, ...]
    team: Team | None
    low_levels: tuple[Decimal, ...]


class Lease(Struct, frozen=True, kw_only=True):
    """An open lease, as `list_leases` shows it. `age_seconds` and `expires_at` follow the server's clock.

    `amount` is what it holds itself, without what leases inside of it hold. `parent` is the lease that it is inside of.
    """

    lease_id: str
    account: str
    amount: Decimal
    operation_type: str
    owner: str
    created_at: datetime
    expires_at: datetime
    age_seconds: float
    version: int
    metadata: str = ""
    parent: str | None = None


class LeaseStatus(Struct, frozen=True, kw_only=True):
    """The state of a lease.

    Attributes:
        state: `open`, `expired`, `settled` or `released`.
        amount: credits that it holds, or held until it expired; once it is settled, what was charged.
        transaction_id: of what opened it; once it is settled or released, of that.
        expires_at: when it expires, or did; None once it is settled or released.
        metadata: JSON that it was reserved with; empty for none, and once it is settled or released.
    """

    lease_id: str
    account: str
    state: str
    amount: Decimal
    transaction_id: str
    expires_at: datetime | None = None
    metadata: str = ""


class SweepResult(Struct, frozen=True, kw_only=True):
    """The outcome of a sweep, or of its dry run: accounts visited, leases and grants expired, credits gone."""

    accounts: int
    leases_expired: int
    grants_expired: int = 0
    credits_expired: Decimal = ZERO


class PricingVersion(Struct, frozen=True, kw_only=True):
    """One published pricing document.

    Attributes:
        version: from 1, in order of publication.
        activation: grows with every activation; calls priced under an older one are asked to price again.
        active: whether it is the active one.
        published_at: when it was published.
        document: its JSON text; empty in listings.
    """

    version: int
    activation: int
    active: bool
    published_at: datetime
    document: str = ""
