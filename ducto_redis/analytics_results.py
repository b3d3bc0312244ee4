"""Results of analytics.

Credits are Decimals with six places, times aware datetimes in UTC. What was spent has the same parts in every answer,
see `Spend`, so that any grouping adds up to the same total.
"""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from msgspec import Struct

UsageGroup: TypeAlias = Literal["account", "model", "member", "day", "hour"]
"""What usage is grouped by."""


class Spend(Struct, frozen=True, kw_only=True):
    """Spending.

    Attributes:
        charges: how many charges there were.
        charged: credits that were charged, whoever paid for them: the balance or the plan's allowance.
        allowance: the part of them that allowances paid.
        refunded: credits of charges that were given back, counted where they were given back.
        net: charged without refunded.
        shortfall: credits that work cost and that could not be charged; not a part of `charged`.
    """

    charges: int
    charged: Decimal
    allowance: Decimal
    refunded: Decimal
    net: Decimal
    shortfall: Decimal


class UserSpend(Spend, frozen=True, kw_only=True):
    """Spending of one account."""

    account: str


class ModelSpend(Spend, frozen=True, kw_only=True):
    """Spending on one model; None is for charges of no model, or of several at once."""

    model: str | None


class MemberSpend(Spend, frozen=True, kw_only=True):
    """Spending of one member of a team; None is for charges without a member."""

    member: str | None


class DaySpend(Spend, frozen=True, kw_only=True):
    """Spending on one day of the time zone asked for."""

    day: date


class AggregateStats(Spend, frozen=True, kw_only=True):
    """All that moved.

    Attributes:
        accounts: how many were charged.
        average_day: `charged` by the days, in UTC, that had any charge.
        top_account, top_model: whoever, and whatever, was charged most; None where nothing was.
        added: credits that came in, by type: purchase, bonus, ...
        adjusted: corrections by hand, added up with their signs.
        expired: credits of grants that expired.
        lost: the part of `refunded` that could not be returned: its grant had expired, its allowance's period was over.
    """

    accounts: int
    average_day: Decimal
    top_account: str | None
    top_model: str | None
    added: Mapping[str, Decimal]
    adjusted: Decimal
    expired: Decimal
    lost: Decimal


class Transaction(Struct, frozen=True, kw_only=True):
    """One change to an account.

    Attributes:
        at: when it happened, by the server's clock.
        operation: `deduct`, `settle`, `add_credits`, ...
        amount: what the operation was about.
        charged: what it charged, whoever paid; below zero where less than a lease's expiry had charged.
        allowance: the part of that that the allowance paid; of a refund, what went back to the allowance.
        shortfall: the part of the cost that could not be charged.
        model, operation_type, member: what it was for.
        type: of credits that came in or expired.
        refund_of: the transaction that was refunded.
        version: the pricing document, 0 for none.
        metadata: the caller's own.
    """

    transaction_id: str
    account: str
    at: datetime
    operation: str
    amount: Decimal
    balance_change: Decimal
    balance_after: Decimal
    charged: Decimal
    allowance: Decimal
    shortfall: Decimal
    operation_type: str
    model: str | None
    member: str | None
    type: str | None
    refund_of: str | None
    version: int
    metadata: Mapping[str, Any] | None


class TransactionPage(Struct, frozen=True, kw_only=True):
    """Some of an account's transactions, newest first, and where to go on; None where there is no more."""

    transactions: tuple[Transaction, ...]
    cursor: str | None


class Usage(Struct, frozen=True, kw_only=True):
    """Consumption of a measure.

    Attributes:
        of: the account, model or member (None for none), the day, or the hour's start.
        quantity: how much; of a document's own measures with six places.
    """

    measure: str
    of: str | date | datetime | None
    quantity: int | Decimal


class Anomaly(Struct, frozen=True, kw_only=True):
    """An account's hour far above what is usual for it.

    Attributes:
        hour: its start.
        charged: credits of that hour.
        usual: credits that are usual in an hour of this account.
        spread: how far its hours usually are from that.
        score: how many spreads the hour is above what is usual.
    """

    account: str
    hour: datetime
    charged: Decimal
    usual: Decimal
    spread: Decimal
    score: float
