"""What operations return.

Credits are Decimals with six places, times are aware datetimes in UTC, and a name means the same in every result:

- `transaction_id` names partition, epoch and journal entry of the change.
- `amount` is what the operation was about; charges are positive.
- `balance_after` and `available` are the account's after the change; `available` is the balance without what open
  leases hold.
- `replayed` is True where the operation had been done before and its first answer is given again.
"""

from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


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


class DeductResult(Change, frozen=True, kw_only=True):
    """Credits that were charged in one step."""


class LeaseChange(Change, frozen=True, kw_only=True):
    """A change that a lease made."""

    lease_id: str


class ReserveResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that was opened. `amount` is what it holds, `version` the document that it was priced under (0: none)."""

    expires_at: datetime
    version: int


class SettleResult(LeaseChange, frozen=True, kw_only=True):
    """A lease that was settled.

    Attributes:
        amount: credits that were charged.
        shortfall: the part of the actual cost that neither the hold nor what was available could pay.
        late: True where the lease had expired, so that it no longer held anything.
    """

    shortfall: Decimal
    late: bool


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
    """What billed work returned, and its charge; None where the engine is away and gets the charge later."""

    result: T
    charge: SettleResult | None


class Balance(Struct, frozen=True, kw_only=True):
    """What an account has. `seq` counts the changes that led to it; 0 is an account that nothing ever happened to."""

    account: str
    balance: Decimal
    held: Decimal
    available: Decimal
    seq: int


class Lease(Struct, frozen=True, kw_only=True):
    """An open lease, as `list_leases` shows it. `age_seconds` and `expires_at` follow the server's clock."""

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


class SweepResult(Struct, frozen=True, kw_only=True):
    """What a sweep did: accounts that it visited, leases that it expired."""

    accounts: int
    leases_expired: int


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
