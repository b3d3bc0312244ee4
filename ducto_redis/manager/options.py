"""Options of managers and of their methods, each described once.

`reserve` and `deduct` list theirs themselves; the methods that pass them on take them as `**options`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict, cast

from ducto_redis.events.handlers import EventHandler
from ducto_redis.manager.arguments import UsageOrAmount
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount
from ducto_redis.payer import Payer
from ducto_redis.pricing import PricingEngine
from ducto_redis.pricing.plans import BillingMode

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger  # an extra: what needs no ledger works without it

Policy: TypeAlias = Literal["strict_prepaid", "overdraft"]
OnLeaseExpiry: TypeAlias = Literal["release", "charge"]
Durability: TypeAlias = Literal["fast", "ledger"]
RefundExpired: TypeAlias = Literal["balance", "nowhere"]
OnError: TypeAlias = Literal["charge", "release"]
WhenCharged: TypeAlias = Literal["raise", "run"]


class SharedOptions(TypedDict, total=False):
    """Settings of a manager, see `ManagerBase`."""

    policy: Policy
    overdraft_floor: Amount | None
    max_concurrent: int | None
    low_balance_thresholds: Sequence[Amount] | None
    on_low_balance: EventHandler | None
    refund_expired: RefundExpired
    default_ttl_seconds: float
    on_lease_expiry: OnLeaseExpiry
    owner: str | None
    outbox_limit: int


class ManagerOptions(SharedOptions, total=False):
    """Settings of a manager that is made from URLs."""

    engine: PricingEngine | None


class CoreOptions(SharedOptions, total=False):
    """Settings of a manager that is given a store and an engine."""

    ledger: "Ledger | None"


class StoreOptions(TypedDict, total=False):
    """Settings of the store that a manager makes from a URL.

    Attributes:
        namespace: the beginning of every key; `ducto` by default.
        partitions: the number of shares of the accounts; fixed when the namespace is created.
        timeout_seconds: how long an operation may take before StoreUnavailableError.
        journal_limit: entries in a partition's journal above which nothing new is admitted.
    """

    namespace: str
    partitions: int
    timeout_seconds: float
    journal_limit: int


class UrlOptions(StoreOptions, ManagerOptions, total=False):
    """Settings of a manager and of the store that it makes from a URL."""


class ReserveOptions(TypedDict, total=False):
    """Options of a hold, as `reserve` describes them."""

    operation_type: str
    member: str | None
    required_feature: str | None
    billing_mode: BillingMode | None
    parent: str | None


class MeterOptions(ReserveOptions, total=False):
    """Options of a hold that stays open while work runs, as `reserve` describes them.

    Attributes:
        ttl: seconds; a meter renews its lease at half of them for as long as the work runs.
        lease_id, metadata: as for `reserve`.
    """

    ttl: float
    lease_id: str | None
    metadata: Mapping[str, Any] | None


class ChargeOptions(TypedDict, total=False):
    """Options of a charge, as `deduct` describes them."""

    idempotency_key: str | None
    operation_type: str
    required_feature: str | None
    billing_mode: BillingMode | None
    metadata: Mapping[str, Any] | None
    flags: Sequence[str]


class DeductOptions(ChargeOptions, total=False):
    """Options of a charge to one account, as `deduct` describes them."""

    skip_allowance: bool


class MeteredOptions(TypedDict, total=False):
    """Options of `@manager.metered(...)`.

    Attributes:
        account: the account that pays: an id, a Payer, or a function of the arguments that returns one.
        estimate: the most that a call can consume, or credits; or a function of the arguments.
        usage_of: a function of the result; the usage that it returns is recorded beside what the function records.
        lease_id: a function of the arguments that returns the id of the job.
        operation_type: as for `reserve`, where the Payer does not say.
        ttl: seconds; the lease is renewed at half of them for as long as the function runs.
        on_error: `charge` charges a call that raises what it recorded; `release` charges it nothing, so that the job
            can be begun again under its id.
        when_charged: `raise` raises LeaseClosedError for a job that was charged before; `run` runs it again, and does
            not charge it again.
    """

    account: Required[str | Payer | Callable[..., str | Payer]]
    estimate: Required[UsageOrAmount | Callable[..., UsageOrAmount]]
    usage_of: Callable[[Any], UsageMetrics] | None
    lease_id: Callable[..., str] | None
    operation_type: str
    ttl: float
    on_error: OnError
    when_charged: WhenCharged


def divide(options: UrlOptions) -> tuple[StoreOptions, ManagerOptions]:
    """Return the options of the store, and those of the manager."""
    store = {name: value for name, value in options.items() if name in StoreOptions.__annotations__}
    manager = {name: value for name, value in options.items() if name not in store}
    return cast("StoreOptions", store), cast("ManagerOptions", manager)
