"""Operations: a call as (script, keys, arguments), and its reply as a result or an error. No I/O.

Every amount here is in micro-credits and every time in milliseconds; ids and amounts have been checked by who calls.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypedDict, TypeVar

from msgspec import Struct

from ducto_redis.engine.entry import LeaseRecord
from ducto_redis.engine.ids import KEY_BYTES, RESERVED_ACCOUNT, check_id
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.replies import failure
from ducto_redis.engine.scripts import Script, Scripts
from ducto_redis.money import from_micro
from ducto_redis.results import (
    AddResult,
    Balance,
    DeductResult,
    ExtendResult,
    Lease,
    PricingVersion,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
)

R = TypeVar("R")

GROUP_FIELD = "group/"
"""What begins the names of the fields of `meta` that register consumer groups."""


class OperationKey(Struct, frozen=True):
    """What makes a call the same when it is made again.

    Attributes:
        text: `key/<the caller's idempotency key>`, or `call/<random>` for a call without one.
        kept_ms: how long the first answer is remembered.
        fingerprint: of what the caller passed; empty where only the call itself can repeat the key.
    """

    text: str
    kept_ms: int
    fingerprint: str = ""


class Price(Struct, frozen=True):
    """An amount, and the pricing document that it was computed under (version and activation 0: none)."""

    amount: int
    version: int = 0
    activation: int = 0


class LeaseTerms(Struct, frozen=True):
    """What a lease is opened with, besides its price.

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
    """What a sweep of one account did."""

    expired: int
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


class Operation(Generic[R]):
    """One atomic step against the engine: a script, its keys, its arguments, and how to read its reply.

    `account`, `operation_key` and `lease_id` name what it is about, for errors.
    """

    __slots__ = ("account", "args", "keys", "lease_id", "operation_key", "partition", "read", "script")

    def __init__(
        self,
        script: Script,
        partition: int,
        keys: tuple[bytes, ...],
        args: tuple[str | bytes | int, ...],
        read: "Callable[[Operation[R], Any], R]",
        *,
        account: str = "",
        operation_key: str | None = None,
        lease_id: str = "",
    ) -> None:
        self.script = script
        self.partition = partition
        self.keys = keys
        self.args = args
        self.read = read
        self.account = account
        self.operation_key = operation_key
        self.lease_id = lease_id

    def result(self, reply: Any) -> R:
        """The result that the reply says, or the error, raised. MoreIsDue asks for the same operation again."""
        return self.read(self, reply)

    def parts(self, reply: bytes) -> list[bytes]:
        """The parts of a reply that is one string. Raises what a refusal means."""
        parts = reply.split(b"\t")
        if parts[0] != b"ok" and parts[0] != b"replayed":
            raise self.failure(parts)
        return parts

    def failure(self, parts: Sequence[bytes]) -> Exception:
        """The error that a refusal means."""
        return failure(parts, account=self.account, operation_key=self.operation_key or "", lease_id=self.lease_id)


class Operations:
    """Makes the operations of one namespace."""

    def __init__(self, namespace: Namespace, scripts: Scripts) -> None:
        self.namespace = namespace
        self.scripts = scripts

    def add_credits(
        self, account: str, amount: int, key: OperationKey, *, cause: bytes, journal_limit: int
    ) -> Operation[AddResult]:
        """Credits come in. Errors: IdempotencyConflict, RecoveryNeeded, InvalidAmount, JournalFull."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["add_credits"],
            keys.partition,
            (*keys.keys, keys.operation(key.text)),
            (account, amount, key.text, key.kept_ms, key.fingerprint, journal_limit, cause),
            _read_add,
            account=account,
            operation_key=key.text,
        )

    def deduct(
        self, account: str, price: Price, key: OperationKey, *, floor: int, cause: bytes, journal_limit: int
    ) -> Operation[DeductResult]:
        """Charge in one step.

        Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, InsufficientCredits, JournalFull.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["deduct"],
            keys.partition,
            (*keys.keys, keys.operation(key.text)),
            (
                account,
                price.amount,
                floor,
                price.version,
                price.activation,
                key.text,
                key.kept_ms,
                key.fingerprint,
                journal_limit,
                cause,
            ),
            _read_deduct,
            account=account,
            operation_key=key.text,
        )

    def reserve(
        self, account: str, lease_id: str, price: Price, terms: LeaseTerms, *, cause: bytes, journal_limit: int
    ) -> Operation[ReserveResult]:
        """Open a lease.

        Errors: RecoveryNeeded, IdempotencyConflict, LeaseClosed, StalePricing, InsufficientCredits, InvalidAmount,
        JournalFull.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["reserve"],
            keys.partition,
            (*keys.keys, keys.closed(lease_id)),
            (
                account,
                lease_id,
                price.amount,
                terms.floor,
                price.version,
                price.activation,
                terms.ttl_ms,
                terms.on_expiry,
                terms.fingerprint,
                terms.operation_type,
                terms.owner,
                terms.metadata,
                journal_limit,
                cause,
            ),
            _read_reserve,
            account=account,
            operation_key=lease_id,
            lease_id=lease_id,
        )

    def settle(
        self, account: str, lease_id: str, price: Price, *, fingerprint: str, cause: bytes
    ) -> Operation[SettleResult]:
        """Close a lease and charge.

        Errors: IdempotencyConflict, LeaseClosed, RecoveryNeeded, LeaseNotFound, RepriceLease.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["settle"],
            keys.partition,
            (*keys.keys, keys.closed(lease_id)),
            (account, lease_id, price.amount, price.version, fingerprint, cause),
            _read_settle,
            account=account,
            operation_key=lease_id,
            lease_id=lease_id,
        )

    def release(self, account: str, lease_id: str, *, cause: bytes) -> Operation[ReleaseResult]:
        """Close a lease without a charge. Errors: LeaseClosed, RecoveryNeeded, LeaseNotFound."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["release"],
            keys.partition,
            (*keys.keys, keys.closed(lease_id)),
            (account, lease_id, cause),
            _read_release,
            account=account,
            operation_key=lease_id,
            lease_id=lease_id,
        )

    def renew(self, account: str, lease_id: str, key: OperationKey, *, ttl_ms: int) -> Operation[RenewResult]:
        """Let a lease live longer.

        Errors: IdempotencyConflict, RecoveryNeeded, LeaseClosed, LeaseNotFound, LeaseExpired.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["renew"],
            keys.partition,
            (*keys.keys, keys.operation(key.text), keys.closed(lease_id)),
            (account, lease_id, ttl_ms, key.text, key.kept_ms, key.fingerprint),
            _read_renew,
            account=account,
            operation_key=key.text,
            lease_id=lease_id,
        )

    def extend(
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, cause: bytes, journal_limit: int
    ) -> Operation[ExtendResult]:
        """Let a lease hold more.

        Errors: those of renew, RepriceLease, InsufficientCredits, InvalidAmount, JournalFull.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["extend"],
            keys.partition,
            (*keys.keys, keys.operation(key.text), keys.closed(lease_id)),
            (
                account,
                lease_id,
                price.amount,
                price.version,
                key.text,
                key.kept_ms,
                key.fingerprint,
                journal_limit,
                cause,
            ),
            _read_extend,
            account=account,
            operation_key=key.text,
            lease_id=lease_id,
        )

    def get_balance(self, account: str) -> Operation[Balance]:
        """What an account has. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["get_balance"], keys.partition, keys.keys, (account,), _read_balance, account=account
        )

    def list_leases(self, account: str, *, cursor: int, count: int) -> Operation[Page]:
        """A page of an account's open leases. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["list_leases"],
            keys.partition,
            keys.keys,
            (account, cursor, count),
            _read_leases,
            account=account,
        )

    def sweep(self, account: str) -> Operation[Sweep]:
        """Apply what has fallen due on an account. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(self.scripts["sweep"], keys.partition, keys.keys, (account,), _read_sweep, account=account)

    def due_accounts(self, partition: int, limit: int) -> Operation[list[str]]:
        """The accounts of a partition on which something has fallen due."""
        return Operation(
            self.scripts["due_accounts"], partition, (self.namespace.due(partition),), (limit,), _read_accounts
        )

    def create_partition(self, partition: int, namespace_id: str, state: str) -> Operation[str]:
        """Write a partition's own record where there is none. The result is the namespace id that it holds."""
        return Operation(
            self.scripts["create_partition"],
            partition,
            (self.namespace.meta(partition),),
            (namespace_id, self.namespace.partitions, state),
            _read_text,
        )

    def read_partition(self, partition: int) -> Operation[PartitionRecord | None]:
        """A partition's own record, or None."""
        return Operation(
            self.scripts["read_partition"], partition, (self.namespace.meta(partition),), (), _read_partition
        )

    def publish_pricing(self, document: str, key: OperationKey, *, cause: bytes) -> Operation[PricingVersion]:
        """Store the next version of the pricing document and activate it.

        Errors: IdempotencyConflict, RecoveryNeeded.
        """
        keys = self.namespace.reserved
        return Operation(
            self.scripts["publish_pricing"],
            keys.partition,
            (*keys.keys, keys.operation(key.text)),
            (RESERVED_ACCOUNT, document, key.text, key.kept_ms, key.fingerprint, cause),
            _read_published,
            account=RESERVED_ACCOUNT,
            operation_key=key.text,
        )

    def activate_pricing(self, version: int, *, cause: bytes) -> Operation[PricingVersion]:
        """Activate a published version. Errors: RecoveryNeeded, Config (no such version)."""
        keys = self.namespace.reserved
        return Operation(
            self.scripts["activate_pricing"],
            keys.partition,
            keys.keys,
            (RESERVED_ACCOUNT, version, cause),
            _read_activated,
            account=RESERVED_ACCOUNT,
        )

    def read_pricing(self, version: int = 0, *, known: int = 0) -> Operation[PricingState]:
        """The active pricing document, or `version`; without its text where it is `known`.

        Errors: RecoveryNeeded, PricingNotLoaded, Config (no such version).
        """
        keys = self.namespace.reserved
        return Operation(
            self.scripts["read_pricing"],
            keys.partition,
            keys.keys,
            (RESERVED_ACCOUNT, version, known),
            _read_pricing,
            account=RESERVED_ACCOUNT,
        )


def check_lease_id(lease_id: str) -> str:
    """Return `lease_id`. Raises InvalidIdError where it is none."""
    return check_id(lease_id, "a lease id")


def check_idempotency_key(key: str) -> str:
    """Return `key`. Raises InvalidIdError where it is none."""
    return check_id(key, "an idempotency key", KEY_BYTES)


class _Change(TypedDict):
    transaction_id: str
    account: str
    amount: Decimal
    balance_after: Decimal
    available: Decimal
    replayed: bool


def _change(operation: Operation[Any], parts: Sequence[bytes]) -> _Change:
    balance, held = int(parts[3]), int(parts[4])
    return {
        "transaction_id": _transaction(operation, parts),
        "account": operation.account,
        "amount": from_micro(int(parts[5])),
        "balance_after": from_micro(balance),
        "available": from_micro(balance - held),
        "replayed": parts[0] == b"replayed",
    }


def _transaction(operation: Operation[Any], parts: Sequence[bytes]) -> str:
    return f"{operation.partition}-{parts[1].decode()}-{parts[2].decode()}"


def _time(milliseconds: bytes | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _read_add(operation: Operation[AddResult], reply: bytes) -> AddResult:
    return AddResult(**_change(operation, operation.parts(reply)))


def _read_deduct(operation: Operation[DeductResult], reply: bytes) -> DeductResult:
    return DeductResult(**_change(operation, operation.parts(reply)))


def _read_reserve(operation: Operation[ReserveResult], reply: bytes) -> ReserveResult:
    parts = operation.parts(reply)
    return ReserveResult(
        **_change(operation, parts),
        lease_id=operation.lease_id,
        expires_at=_time(parts[6]),
        version=int(parts[7]),
    )


def _read_settle(operation: Operation[SettleResult], reply: bytes) -> SettleResult:
    parts = operation.parts(reply)
    return SettleResult(
        **_change(operation, parts),
        lease_id=operation.lease_id,
        shortfall=from_micro(int(parts[6])),
        late=parts[7] == b"1",
    )


def _read_release(operation: Operation[ReleaseResult], reply: bytes) -> ReleaseResult:
    return ReleaseResult(**_change(operation, operation.parts(reply)), lease_id=operation.lease_id)


def _read_extend(operation: Operation[ExtendResult], reply: bytes) -> ExtendResult:
    return ExtendResult(**_change(operation, operation.parts(reply)), lease_id=operation.lease_id)


def _read_renew(operation: Operation[RenewResult], reply: bytes) -> RenewResult:
    parts = operation.parts(reply)
    return RenewResult(
        transaction_id=_transaction(operation, parts),
        account=operation.account,
        lease_id=operation.lease_id,
        expires_at=_time(parts[3]),
        replayed=parts[0] == b"replayed",
    )


def _read_balance(operation: Operation[Balance], reply: bytes) -> Balance:
    parts = operation.parts(reply)
    balance, held = int(parts[1]), int(parts[2])
    return Balance(
        account=operation.account,
        balance=from_micro(balance),
        held=from_micro(held),
        available=from_micro(balance - held),
        seq=int(parts[3]),
    )


def _read_leases(operation: Operation[Page], reply: list[bytes]) -> Page:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    now = int(reply[1])
    leases = []
    for lease_id, text in zip(reply[3::2], reply[4::2], strict=True):
        record = LeaseRecord.decode(text.decode())
        if record.state != "open" or record.expires_ms <= now:
            continue
        leases.append(
            Lease(
                lease_id=lease_id.decode(),
                account=operation.account,
                amount=from_micro(record.amount),
                operation_type=record.operation_type,
                owner=record.owner,
                created_at=_time(record.created_ms),
                expires_at=_time(record.expires_ms),
                age_seconds=(now - record.created_ms) / 1000,
                version=record.version,
                metadata=record.metadata,
            )
        )
    return Page(leases, int(reply[2]))


def _read_sweep(operation: Operation[Sweep], reply: bytes) -> Sweep:
    parts = operation.parts(reply)
    return Sweep(int(parts[1]), parts[2] == b"1")


def _read_accounts(_: Operation[list[str]], reply: list[bytes]) -> list[str]:
    return [account.decode() for account in reply]


def _read_text(_: Operation[str], reply: bytes) -> str:
    return reply.decode()


def _read_partition(_: Operation[PartitionRecord | None], reply: list[bytes]) -> PartitionRecord | None:
    if not reply:
        return None
    record = {name.decode(): value.decode() for name, value in zip(reply[::2], reply[1::2], strict=True)}
    return PartitionRecord(
        record["namespace_id"],
        record["state"],
        int(record["epoch"]),
        int(record["partitions"]),
        tuple(sorted(name.removeprefix(GROUP_FIELD) for name in record if name.startswith(GROUP_FIELD))),
    )


def _read_published(operation: Operation[PricingVersion], reply: bytes) -> PricingVersion:
    parts = operation.parts(reply)
    return PricingVersion(version=int(parts[3]), activation=int(parts[4]), active=True, published_at=_time(parts[5]))


def _read_activated(operation: Operation[PricingVersion], reply: bytes) -> PricingVersion:
    parts = operation.parts(reply)
    return PricingVersion(version=int(parts[1]), activation=int(parts[2]), active=True, published_at=_time(parts[3]))


def _read_pricing(operation: Operation[PricingState], reply: list[bytes]) -> PricingState:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    active, version = int(reply[1]), int(reply[4])
    asked = PricingVersion(
        version=version,
        activation=int(reply[5]),
        active=version == active,
        published_at=_time(reply[6]),
        document=reply[7].decode(),
    )
    return PricingState(active, int(reply[2]), int(reply[3]), asked)
