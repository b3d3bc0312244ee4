"""Operations: calls as (script, keys, arguments), and how their replies are read. No I/O.

Every amount here is in micro-credits and every time in milliseconds; ids and amounts have been checked by who calls.
"""

from typing import TypeVar

from ducto_redis.engine.administration import Administration
from ducto_redis.engine.conditions import encode_conditions
from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.operation import (
    Charge,
    Conditions,
    LeaseTerms,
    NewGrant,
    Operation,
    OperationKey,
    Page,
    PartitionRecord,
    Price,
    PricingState,
    Sweep,
)
from ducto_redis.engine.results import (
    read_accounts,
    read_activated,
    read_add,
    read_adjust,
    read_balance,
    read_deduct,
    read_description,
    read_extend,
    read_lease,
    read_leases,
    read_partition,
    read_pricing,
    read_published,
    read_refund,
    read_release,
    read_renew,
    read_reserve,
    read_settle,
    read_sweep,
    read_text,
)
from ducto_redis.results import (
    AccountDescription,
    AddResult,
    AdjustResult,
    Balance,
    DeductResult,
    ExtendResult,
    LeaseStatus,
    PricingVersion,
    RefundResult,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
)

R = TypeVar("R")


class Operations(Administration):
    """Makes the operations of one namespace."""

    def add_credits(
        self,
        account: str,
        grant: NewGrant,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AddResult]:
        """Credits come in.

        Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, Config (expired), InvalidAmount,
        JournalFull.
        """
        args = (
            account,
            grant.amount,
            key.text,
            key.kept_ms,
            key.fingerprint,
            journal_limit,
            cause,
            encode_conditions(conditions),
            grant.type,
            grant.expires_ms,
            grant.priority,
        )
        return self._change("add_credits", account, key, args, read_add)

    def adjust_credits(
        self,
        account: str,
        amount: int,
        key: OperationKey,
        *,
        force: bool,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AdjustResult]:
        """A correction by hand. Errors: those of add_credits, InsufficientCredits."""
        args = (
            account,
            amount,
            int(force),
            key.text,
            key.kept_ms,
            key.fingerprint,
            journal_limit,
            cause,
            encode_conditions(conditions),
        )
        return self._change("adjust_credits", account, key, args, read_adjust)

    def refund(
        self,
        account: str,
        charge: Charge,
        amount: int | None,
        key: OperationKey,
        *,
        expired_to_balance: bool,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[RefundResult]:
        """Give a charge back. Errors: IdempotencyConflict, RecoveryNeeded, Refund, InvalidAmount, JournalFull."""
        args = (
            account,
            charge.transaction_id,
            charge.amount,
            charge.details,
            charge.time_ms,
            "" if amount is None else amount,
            int(expired_to_balance),
            key.text,
            key.kept_ms,
            key.fingerprint,
            journal_limit,
            cause,
        )
        return self._change("refund", account, key, args, read_refund)

    def deduct(
        self,
        account: str,
        price: Price,
        key: OperationKey,
        *,
        floor: int,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[DeductResult]:
        """Charge in one step.

        Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, AccountFrozen, MemberNotFound,
        CapReached, InsufficientCredits, JournalFull.
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
                encode_conditions(conditions),
            ),
            read_deduct,
            account=account,
            operation_key=key.for_callers,
        )

    def reserve(
        self,
        account: str,
        lease_id: str,
        price: Price,
        terms: LeaseTerms,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
        dry_run: bool = False,
    ) -> Operation[ReserveResult]:
        """Open a lease.

        Errors: RecoveryNeeded, IdempotencyConflict, LeaseClosed, StalePricing, TermsNeeded, AccountFrozen,
        MemberNotFound, ConcurrencyLimit, CapReached, InsufficientCredits, InvalidAmount, JournalFull; with a parent
        also those of renew, of the parent, RepriceLease, Config (too deep).
        """
        keys = self.namespace.account(account)
        all_keys = (*keys.keys, keys.closed(lease_id))
        if conditions.parent:
            all_keys += (keys.closed(conditions.parent),)
        return Operation(
            self.scripts["reserve"],
            keys.partition,
            all_keys,
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
                encode_conditions(conditions),
                int(dry_run),
            ),
            read_reserve,
            account=account,
            operation_key=lease_id,
            lease_id=lease_id,
        )

    def settle(
        self, account: str, lease_id: str, price: Price, *, conditions: Conditions, fingerprint: str, cause: bytes
    ) -> Operation[SettleResult]:
        """Close a lease and charge.

        Errors: IdempotencyConflict, LeaseClosed, RecoveryNeeded, LeaseNotFound, RepriceLease.
        """
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["settle"],
            keys.partition,
            (*keys.keys, keys.closed(lease_id)),
            (account, lease_id, price.amount, price.version, fingerprint, cause, encode_conditions(conditions)),
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
        self,
        account: str,
        lease_id: str,
        price: Price,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[ExtendResult]:
        """Let a lease hold more.

        Errors: those of renew, RepriceLease, TermsNeeded, AccountFrozen, MemberNotFound, CapReached,
        InsufficientCredits, InvalidAmount, JournalFull.
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
                encode_conditions(conditions),
            ),
            read_extend,
            account=account,
            operation_key=key.for_callers,
            lease_id=lease_id,
        )

    def get_balance(self, account: str, *, conditions: Conditions) -> Operation[Balance]:
        """What an account has. Errors: RecoveryNeeded, StalePricing, TermsNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["get_balance"],
            keys.partition,
            keys.keys,
            (account, encode_conditions(conditions)),
            read_balance,
            account=account,
        )

    def describe(self, account: str, *, conditions: Conditions) -> Operation[AccountDescription]:
        """All that an account is. Errors: RecoveryNeeded, StalePricing, TermsNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["describe"],
            keys.partition,
            keys.keys,
            (account, encode_conditions(conditions)),
            read_description,
            account=account,
        )

    def read_entry(self, partition: int, entry_id: str) -> Operation[JournalEntry | None]:
        """An entry of a partition's journal, or None."""
        return Operation(
            self.scripts["read_entry"],
            partition,
            (self.namespace.journal(partition),),
            (entry_id,),
            lambda operation, reply: decode_entry(partition, entry_id, reply[0]) if reply else None,
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

    def find_lease(self, account: str, lease_id: str) -> Operation[LeaseStatus | None]:
        """What became of a lease, or None where there is none of that id. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["find_lease"],
            keys.partition,
            (*keys.keys, keys.closed(lease_id)),
            (account, lease_id),
            read_lease,
            account=account,
            lease_id=lease_id,
        )

    def sweep(self, account: str, *, dry_run: bool = False) -> Operation[Sweep]:
        """Apply what has fallen due on an account. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        return Operation(
            self.scripts["sweep"], keys.partition, keys.keys, (account, int(dry_run)), read_sweep, account=account
        )

    def due_accounts(self, partition: int, limit: int, skip: int = 0) -> Operation[list[str]]:
        """The accounts of a partition on which something has fallen due."""
        return Operation(
            self.scripts["due_accounts"], partition, (self.namespace.due(partition),), (limit, skip), read_accounts
        )

    def signal(self, account: str, event: bytes, kept: int, *, unheard: bool) -> Operation[bool]:
        """Tell that something was refused to an account. The result is whether somebody listens."""
        partition = self.namespace.partition_of(account)
        return Operation(
            self.scripts["signal"],
            partition,
            (self.namespace.signals(partition), self.namespace.listening(partition)),
            (event, kept, int(unheard)),
            lambda _, reply: bool(reply),
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
