"""Operations: calls as (script, keys, arguments), and how their replies are read. No I/O.

Every amount here is in micro-credits and every time in milliseconds; ids and amounts have been checked by who calls.
"""

from ducto_redis.engine.answers import (
    read_accounts,
    read_activated,
    read_add,
    read_balance,
    read_deduct,
    read_extend,
    read_leases,
    read_partition,
    read_pricing,
    read_published,
    read_release,
    read_renew,
    read_reserve,
    read_settle,
    read_sweep,
    read_text,
)
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import (
    LeaseTerms,
    Operation,
    OperationKey,
    Page,
    PartitionRecord,
    Price,
    PricingState,
    Sweep,
)
from ducto_redis.engine.scripts import Scripts
from ducto_redis.results import (
    AddResult,
    Balance,
    DeductResult,
    ExtendResult,
    PricingVersion,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
)


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
            read_add,
            account=account,
            operation_key=key.for_callers,
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
            read_deduct,
            account=account,
            operation_key=key.for_callers,
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
            read_reserve,
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
            read_settle,
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
            read_release,
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
            read_renew,
            account=account,
            operation_key=key.for_callers,
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
            read_extend,
            account=account,
            operation_key=key.for_callers,
            lease_id=lease_id,
        )

    def get_balance(self, account: str) -> Operation[Balance]:
        """What an account has. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["get_balance"], keys.partition, keys.keys, (account,), read_balance, account=account
        )

    def list_leases(self, account: str, *, cursor: int, count: int) -> Operation[Page]:
        """A page of an account's open leases. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["list_leases"],
            keys.partition,
            keys.keys,
            (account, cursor, count),
            read_leases,
            account=account,
        )

    def sweep(self, account: str) -> Operation[Sweep]:
        """Apply what has fallen due on an account. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(self.scripts["sweep"], keys.partition, keys.keys, (account,), read_sweep, account=account)

    def due_accounts(self, partition: int, limit: int) -> Operation[list[str]]:
        """The accounts of a partition on which something has fallen due."""
        return Operation(
            self.scripts["due_accounts"], partition, (self.namespace.due(partition),), (limit,), read_accounts
        )

    def create_partition(self, partition: int, namespace_id: str, state: str) -> Operation[str]:
        """Write a partition's own record where there is none. The result is the namespace id that it holds."""
        return Operation(
            self.scripts["create_partition"],
            partition,
            (self.namespace.meta(partition),),
            (namespace_id, self.namespace.partitions, state),
            read_text,
        )

    def read_partition(self, partition: int) -> Operation[PartitionRecord | None]:
        """A partition's own record, or None."""
        return Operation(
            self.scripts["read_partition"], partition, (self.namespace.meta(partition),), (), read_partition
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
            read_published,
            account=RESERVED_ACCOUNT,
            operation_key=key.for_callers,
        )

    def activate_pricing(self, version: int, *, cause: bytes) -> Operation[PricingVersion]:
        """Activate a published version. Errors: RecoveryNeeded, Config (no such version)."""
        keys = self.namespace.reserved
        return Operation(
            self.scripts["activate_pricing"],
            keys.partition,
            keys.keys,
            (RESERVED_ACCOUNT, version, cause),
            read_activated,
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
            read_pricing,
            account=RESERVED_ACCOUNT,
        )
