"""One operation: what is sent, how its reply is read, and the values that calls and replies are made of.

Every amount here is in micro-credits and every time in milliseconds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from ducto_redis.engine.refusals import failure
from ducto_redis.engine.scripts import Script
from ducto_redis.results import Lease, PricingVersion

R = TypeVar("R")

DEFAULT_PRIORITY = 50
"""Of credits: those with a lower number are spent first."""

CALLERS_KEY = "key/"
"""What begins the operation key of a call that the caller gave an idempotency key."""


class OperationKey(Struct, frozen=True):
    """The identity of a call that may be repeated.

    Attributes:
        text: `key/<the caller's idempotency key>`, or `call/<random>` for a call without one.
        kept_ms: how long the first result is remembered.
        fingerprint: of what the caller passed; empty where only the call itself can repeat the key.
    """

    text: str
    kept_ms: int
    fingerprint: str = ""

    @property
    def for_callers(self) -> str:
        """The idempotency key that repeats the call."""
        return self.text.removeprefix(CALLERS_KEY)


class Price(Struct, frozen=True):
    """An amount, and the pricing document that it was computed under (version and activation 0: none)."""

    amount: int
    version: int = 0
    activation: int = 0


class Bounds(Struct, frozen=True):
    """The bounds of a period or a window, in milliseconds; the end is not in it."""

    start_ms: int
    end_ms: int


class CapRule(Struct, frozen=True):
    """A spend cap: what it counts, for how long, and what passing it does.

    Attributes:
        scope: `account`, `member/<id>` or `model/<name>`; in a plan also `members`, each of them.
        window: minute, hour, day, week, month or total.
        limit: micro-credits.
        action: deny, warn or notify.
        rolling: whether the window ends now instead of following the calendar.
        time_zone: where the calendar is read.
    """

    scope: str
    window: str
    limit: int
    action: str = "deny"
    rolling: bool = False
    time_zone: str = "UTC"


class Terms(Struct, frozen=True):
    """The meaning of an account's plan at a time: sent where the engine asks for it.

    Attributes:
        plan: its id, empty for none.
        activation: of the document that says so.
        time_zone: the plan's.
        allowance: micro-credits per period.
        rollover: micro-credits that an unused allowance may add to the next one.
        period: the running period; None where there is no allowance.
        caps: the plan's own spend caps.
        bounds: of windows, by `day@Europe/Berlin`.
    """

    plan: str
    activation: int = 0
    time_zone: str = "UTC"
    allowance: int = 0
    rollover: int = 0
    period: Bounds | None = None
    caps: tuple[CapRule, ...] = ()
    bounds: tuple[tuple[str, Bounds], ...] = ()


class Conditions(Struct, frozen=True):
    """The conditions of a call, besides its price. All empty for a plain account.

    Attributes:
        opens: whether the document opens new accounts with a bonus or a plan.
        bonus: micro-credits that a new account begins with.
        activation: of the document that says so, 0 for one that was not published.
        plan: the account's plan, as the caller knows it.
        terms: what that plan means now; only where the engine asked.
        member: who spends, of a team.
        models: what each model's part of the price is, in micro-credits.
        max_concurrent: how many leases of the operation type may be open; None for any number.
        low_levels: micro-credits below which the balance is reported as low.
        skip_allowance: whether the allowance is left alone.
        parent: the lease that a new one is opened inside of; empty for none.
    """

    opens: bool = False
    bonus: int = 0
    activation: int = 0
    plan: str = ""
    terms: Terms | None = None
    member: str = ""
    models: tuple[tuple[str, int], ...] = ()
    max_concurrent: int | None = None
    low_levels: tuple[int, ...] = ()
    skip_allowance: bool = False
    parent: str = ""


PLAIN = Conditions()
"""The conditions of a plain account."""


class NewGrant(Struct, frozen=True):
    """Credits that come in. `expires_ms` 0: never. Without expiry and at the default priority they join the pool."""

    amount: int
    type: str
    expires_ms: int = 0
    priority: int = DEFAULT_PRIORITY


class Charge(Struct, frozen=True):
    """A charge that may be refunded, as its journal entry says it.

    Attributes:
        transaction_id: names it.
        amount: micro-credits that were charged, whoever paid for them.
        details: of the entry, as text.
        time_ms: when it happened.
    """

    transaction_id: str
    amount: int
    details: str
    time_ms: int


class LeaseTerms(Struct, frozen=True):
    """The terms of a new lease, besides its price.

    Attributes:
        floor: how low the account's available credits may go.
        ttl_ms: how long it holds.
        on_expiry: `release` or `charge`.
        operation_type, owner: who holds it and for what, for people who list leases.
        metadata: JSON, or empty.
        fingerprint: of what the caller passed; empty for a lease id that was made for the call.
    """

    floor: int
    ttl_ms: int
    on_expiry: str
    operation_type: str
    owner: str
    metadata: bytes
    fingerprint: str


class Page(Struct, frozen=True):
    """Some of an account's leases, and the cursor of the next page (0: there is none)."""

    leases: list[Lease]
    cursor: int


class Sweep(Struct, frozen=True):
    """The outcome of a sweep of one account: leases and grants that expired, micro-credits that went."""

    leases: int
    grants: int
    credits: int
    more: bool


class PricingState(Struct, frozen=True):
    """The active pricing document, and the one that was asked for."""

    active: int
    activation: int
    latest: int
    asked: PricingVersion


class PartitionRecord(Struct, frozen=True):
    """A partition's own record, `meta`. `groups` are the registered consumer groups."""

    namespace_id: str
    state: str
    epoch: int
    partitions: int
    groups: tuple[str, ...]


class Operation(Struct, Generic[R], eq=False, gc=False):
    """One atomic step against the engine: a script, its keys, its arguments, and how to read its reply.

    Attributes:
        script, partition, keys, args: what is run, and where.
        read: returns the result in a reply, or raises its error.
        account, operation_key, lease_id: what it is about, for errors; `operation_key` is what the caller can repeat
            the call with: an idempotency key, or a lease id.
        sweep: the operation that applies what has fallen due on the account; None where the script does it itself.
    """

    script: Script
    partition: int
    keys: tuple[bytes, ...]
    args: tuple[str | bytes | int, ...]
    read: "Callable[[Operation[R], Any], R]"
    account: str = ""
    operation_key: str | None = None
    lease_id: str = ""
    sweep: "Operation[Any] | None" = None

    def result(self, reply: Any) -> R:
        """Return the result in the reply, or raise its error. MoreIsDue asks for `sweep`, then the same again."""
        return self.read(self, reply)

    def parts(self, reply: bytes) -> list[bytes]:
        """Return the parts of a reply that is one string. Raises the error of a refusal."""
        parts = reply.split(b"\t")
        if parts[0] != b"ok" and parts[0] != b"replayed":
            raise self.failure(parts)
        return parts

    def failure(self, parts: Sequence[bytes]) -> Exception:
        """Return the error of a refusal."""
        return failure(parts, account=self.account, operation_key=self.operation_key or "", lease_id=self.lease_id)
