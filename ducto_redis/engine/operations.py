"""Operations: calls as (script, keys, arguments), and how their replies are read. No I/O.

Each method is the one signature of an operation: a store's method of the same name is made of it. Every amount here is
in micro-credits and every time in milliseconds; ids and amounts have been checked by the caller.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from ducto_redis.engine.conditions import encode_conditions
from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import (
    PLAIN,
    CapRule,
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
    read_change,
    read_deduct,
    read_description,
    read_extend,
    read_kept,
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
    read_value,
)
from ducto_redis.engine.scripts import Scripts
from ducto_redis.results import (
    AccountChange,
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
Args = tuple[str | bytes | int, ...]
Read = Callable[[Operation[R], Any], R]

DEFAULT_JOURNAL_LIMIT = 1_000_000
"""Entries in a partition's journal above which nothing new is admitted."""

_SIGNALS_KEPT = 1000


class Operations:
    """The operations of one namespace.

    Args:
        namespace: the namespace whose keys they use.
        scripts: the scripts that they run.
        journal_limit: entries in a partition's journal above which nothing new is admitted.
    """

    def __init__(self, namespace: Namespace, scripts: Scripts, *, journal_limit: int = DEFAULT_JOURNAL_LIMIT) -> None:
        self.namespace = namespace
        self.scripts = scripts
        self._scripts = dict(scripts)
        self.journal_limit = journal_limit

    # Credits

    def add_credits(
        self, account: str, grant: NewGrant, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> Operation[AddResult]:
        """Add credits.

        Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, Config (expired), InvalidAmount,
        JournalFull.
        """
        what = (grant.type, grant.expires_ms, grant.priority)
        args = (account, grant.amount, *self._admitted(key, cause), encode_conditions(conditions), *what)
        return self._change("add_credits", account, key, args, read_add)

    def adjust_credits(
        self, account: str, amount: int, key: OperationKey, *, force: bool, conditions: Conditions, cause: bytes
    ) -> Operation[AdjustResult]:
        """Correct a balance by hand. Errors: those of add_credits, InsufficientCredits."""
        args = (account, amount, int(force), *self._admitted(key, cause), encode_conditions(conditions))
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
    ) -> Operation[RefundResult]:
        """Give a charge back. Errors: IdempotencyConflict, RecoveryNeeded, Refund, InvalidAmount, JournalFull."""
        of = (charge.transaction_id, charge.amount, charge.details, charge.time_ms)
        asked = ("" if amount is None else amount, int(expired_to_balance))
        return self._change("refund", account, key, (account, *of, *asked, *self._admitted(key, cause)), read_refund)

    def deduct(
        self, account: str, price: Price, key: OperationKey, *, floor: int, conditions: Conditions, cause: bytes
    ) -> Operation[DeductResult]:
        """Charge in one step.

        Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, AccountFrozen, MemberNotFound,
        CapReached, InsufficientCredits, JournalFull.
        """
        args = (
            account,
            price.amount,
            floor,
            price.version,
            price.activation,
            key.text,
            key.kept_ms,
            key.fingerprint,
            self.journal_limit,
            cause,
            encode_conditions(conditions),
        )
        return self._change("deduct", account, key, args, read_deduct)

    def get_balance(self, account: str, *, conditions: Conditions) -> Operation[Balance]:
        """Read the balance of an account. Errors: RecoveryNeeded, StalePricing, TermsNeeded."""
        return self._look("get_balance", account, (account, encode_conditions(conditions)), read_balance)

    def describe(self, account: str, *, conditions: Conditions) -> Operation[AccountDescription]:
        """Read all that an account is. Errors: RecoveryNeeded, StalePricing, TermsNeeded."""
        return self._look("describe", account, (account, encode_conditions(conditions)), read_description)

    def sweep(self, account: str, *, dry_run: bool = False) -> Operation[Sweep]:
        """Apply what has fallen due on an account. Errors: RecoveryNeeded."""
        return self._look("sweep", account, (account, int(dry_run)), read_sweep)

    # Leases

    def reserve(
        self,
        account: str,
        lease_id: str,
        price: Price,
        terms: LeaseTerms,
        *,
        conditions: Conditions,
        cause: bytes,
        dry_run: bool = False,
    ) -> Operation[ReserveResult]:
        """Open a lease.

        Errors: RecoveryNeeded, IdempotencyConflict, LeaseClosed, StalePricing, TermsNeeded, AccountFrozen,
        MemberNotFound, ConcurrencyLimit, CapReached, InsufficientCredits, InvalidAmount, JournalFull; with a parent
        also those of renew, of the parent, RepriceLease, Config (too deep).
        """
        keys = self.namespace.accounts[account]
        all_keys = (*keys.keys, keys.closed + lease_id.encode())
        if conditions.parent:
            all_keys += (keys.closed + conditions.parent.encode(),)
        args = (
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
            self.journal_limit,
            cause,
            "" if conditions is PLAIN else encode_conditions(conditions),
            int(dry_run),
        )
        script = self._scripts["reserve"]
        return Operation(script, keys.partition, all_keys, args, read_reserve, account, lease_id, lease_id)

    def settle(
        self, account: str, lease_id: str, price: Price, *, conditions: Conditions, fingerprint: str, cause: bytes
    ) -> Operation[SettleResult]:
        """Close a lease and charge.

        Errors: IdempotencyConflict, LeaseClosed, RecoveryNeeded, LeaseNotFound, RepriceLease.
        """
        encoded = "" if conditions is PLAIN else encode_conditions(conditions)
        args = (account, lease_id, price.amount, price.version, fingerprint, cause, encoded)
        return self._close("settle", account, lease_id, args, read_settle)

    def release(self, account: str, lease_id: str, *, cause: bytes) -> Operation[ReleaseResult]:
        """Close a lease without a charge. Errors: LeaseClosed, RecoveryNeeded, LeaseNotFound."""
        return self._close("release", account, lease_id, (account, lease_id, cause), read_release)

    def renew(self, account: str, lease_id: str, key: OperationKey, *, ttl_ms: int) -> Operation[RenewResult]:
        """Let a lease live longer.

        Errors: IdempotencyConflict, RecoveryNeeded, LeaseClosed, LeaseNotFound, LeaseExpired.
        """
        args = (account, lease_id, ttl_ms, key.text, key.kept_ms, key.fingerprint)
        return self._change("renew", account, key, args, read_renew, lease_id)

    def extend(
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> Operation[ExtendResult]:
        """Let a lease hold more.

        Errors: those of renew, RepriceLease, TermsNeeded, AccountFrozen, MemberNotFound, CapReached,
        InsufficientCredits, InvalidAmount, JournalFull.
        """
        more = (*self._admitted(key, cause), encode_conditions(conditions))
        args = (account, lease_id, price.amount, price.version, *more)
        return self._change("extend", account, key, args, read_extend, lease_id)

    def list_leases(self, account: str, *, cursor: int = 0, count: int = 100) -> Operation[Page]:
        """Read a page of an account's open leases. Errors: RecoveryNeeded."""
        return self._look("list_leases", account, (account, cursor, count), read_leases)

    def find_lease(self, account: str, lease_id: str) -> Operation[LeaseStatus | None]:
        """Read the state of a lease; the result is None where there is none of that id. Errors: RecoveryNeeded."""
        keys = self.namespace.account(account)
        all_keys = (*keys.keys, keys.closed + lease_id.encode())
        script = self._scripts["find_lease"]
        return Operation(script, keys.partition, all_keys, (account, lease_id), read_lease, account, None, lease_id)

    # Plans, spend caps, teams

    def set_plan(
        self, account: str, plan: str, time_zone: str, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> Operation[AccountChange]:
        """Assign a plan. Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, JournalFull."""
        args = (account, plan, time_zone, *self._admitted(key, cause), encode_conditions(conditions))
        return self._alter("set_plan", account, key, args)

    def set_cap(
        self, account: str, rule: CapRule, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> Operation[AccountChange]:
        """Set a spend cap. Errors: those of set_plan, MemberNotFound, InvalidAmount (too many of a scope)."""
        cap = (rule.scope, rule.window, int(rule.rolling), rule.action, rule.time_zone, rule.limit)
        args = (account, *cap, *self._admitted(key, cause), encode_conditions(conditions))
        return self._alter("set_cap", account, key, args)

    def remove_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, cause: bytes
    ) -> Operation[AccountChange]:
        """Remove a spend cap.

        Errors: IdempotencyConflict, RecoveryNeeded, CapNotFound, Config (a plan's), JournalFull.
        """
        args = (account, scope, cap_id, *self._admitted(key, cause))
        return self._alter("remove_cap", account, key, args)

    def raise_cap(
        self,
        account: str,
        scope: str,
        cap_id: str,
        limit: int,
        until_ms: int,
        key: OperationKey,
        *,
        conditions: Conditions = PLAIN,
        cause: bytes,
    ) -> Operation[AccountChange]:
        """Raise a spend cap for a time. Errors: those of clear_cap, Config (the time is over)."""
        more = (*self._admitted(key, cause), encode_conditions(conditions))
        return self._alter("raise_cap", account, key, (account, scope, cap_id, limit, until_ms, *more))

    def clear_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> Operation[AccountChange]:
        """Forget what was used of a spend cap. Errors: those of set_plan, CapNotFound."""
        args = (account, scope, cap_id, *self._admitted(key, cause), encode_conditions(conditions))
        return self._alter("clear_cap", account, key, args)

    def freeze(
        self, account: str, reason: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> Operation[AccountChange]:
        """Freeze an account, or, without a reason, let it spend again.

        Errors: IdempotencyConflict, RecoveryNeeded, TermsNeeded (of a new account).
        """
        args = (account, reason, key.text, key.kept_ms, key.fingerprint, cause, encode_conditions(conditions))
        return self._alter("freeze", account, key, args)

    def create_team(
        self, account: str, name: str, owner: str, key: OperationKey, *, cause: bytes
    ) -> Operation[AccountChange]:
        """Make an account a team. Errors: IdempotencyConflict, RecoveryNeeded, Config (it is one), JournalFull."""
        args = (account, name, owner, *self._admitted(key, cause))
        return self._alter("create_team", account, key, args)

    def set_member(
        self, account: str, member: str, role: str, key: OperationKey, *, cause: bytes
    ) -> Operation[AccountChange]:
        """Add a member, change a role, remove a member.

        Errors: IdempotencyConflict, RecoveryNeeded, TeamNotFound, MemberNotFound, Config (the last owner), JournalFull.
        """
        args = (account, member, role, *self._admitted(key, cause))
        return self._alter("set_member", account, key, args)

    # Pricing documents

    def publish_pricing(self, document: str, key: OperationKey, *, cause: bytes) -> Operation[PricingVersion]:
        """Store the next version of the pricing document and activate it.

        Errors: IdempotencyConflict, RecoveryNeeded.
        """
        keys = self.namespace.reserved
        args = (RESERVED_ACCOUNT, document, key.text, key.kept_ms, key.fingerprint, cause)
        return Operation(
            self._scripts["publish_pricing"],
            keys.partition,
            (*keys.keys, keys.operation(key.text)),
            args,
            read_published,
            RESERVED_ACCOUNT,
            key.for_callers,
        )

    def activate_pricing(self, version: int, *, cause: bytes) -> Operation[PricingVersion]:
        """Activate a published version. Errors: RecoveryNeeded, Config (no such version)."""
        keys, args = self.namespace.reserved, (RESERVED_ACCOUNT, version, cause)
        script = self._scripts["activate_pricing"]
        return Operation(script, keys.partition, keys.keys, args, read_activated, RESERVED_ACCOUNT)

    def read_pricing(self, version: int = 0, *, known: int = 0) -> Operation[PricingState]:
        """Read the active pricing document, or `version`; without its text where it is `known`.

        Errors: RecoveryNeeded, PricingNotLoaded, Config (no such version).
        """
        keys, args = self.namespace.reserved, (RESERVED_ACCOUNT, version, known)
        return Operation(self._scripts["read_pricing"], keys.partition, keys.keys, args, read_pricing, RESERVED_ACCOUNT)

    # Beside the accounts

    def keep_value(
        self, account: str | None, name: str, value: bytes, *, ttl_ms: int, replaces: bytes | None = None
    ) -> Operation[bytes]:
        """Keep a value beside an account, or, with None, beside none of them. The result is the value kept then.

        `replaces` is the value that it takes the place of, empty for none; None: any.
        """
        keys = self.namespace.reserved if account is None else self.namespace.account(account)
        condition = ("always", b"") if replaces is None else ("only_if", replaces)
        return Operation(
            self._scripts["keep_value"], keys.partition, (keys.value(name),), (value, ttl_ms, *condition), read_kept
        )

    def kept_value(self, account: str | None, name: str) -> Operation[bytes | None]:
        """Read a value that is kept beside an account; the result is None where there is none."""
        keys = self.namespace.reserved if account is None else self.namespace.account(account)
        return Operation(self._scripts["kept_value"], keys.partition, (keys.value(name),), (), read_value)

    def signal(self, account: str, event: bytes, *, unheard: bool = False) -> Operation[bool]:
        """Tell listeners that something was refused to an account. The result is whether somebody listens."""
        partition = self.namespace.partition_of(account)
        keys = (self.namespace.signals(partition), self.namespace.listening(partition))
        args = (event, _SIGNALS_KEPT, int(unheard))
        return Operation(self._scripts["signal"], partition, keys, args, lambda _, reply: bool(reply))

    # Partitions

    def create_partition(self, partition: int, namespace_id: str, state: str) -> Operation[str]:
        """Write a partition's own record where there is none. The result is the namespace id that it holds."""
        keys, args = (self.namespace.meta(partition),), (namespace_id, self.namespace.partitions, state)
        return Operation(self._scripts["create_partition"], partition, keys, args, read_text)

    def read_partition(self, partition: int) -> Operation[PartitionRecord | None]:
        """Read a partition's own record; the result is None where there is none."""
        keys = (self.namespace.meta(partition),)
        return Operation(self._scripts["read_partition"], partition, keys, (), read_partition)

    def due_accounts(self, partition: int, limit: int, skip: int = 0) -> Operation[list[str]]:
        """List the accounts of a partition on which something has fallen due."""
        keys = (self.namespace.due(partition),)
        return Operation(self._scripts["due_accounts"], partition, keys, (limit, skip), read_accounts)

    def read_entry(self, partition: int, entry_id: str) -> Operation[JournalEntry | None]:
        """Read an entry of a partition's journal; the result is None where the journal does not hold it."""
        return Operation(
            self._scripts["read_entry"],
            partition,
            (self.namespace.journal(partition),),
            (entry_id,),
            lambda operation, reply: decode_entry(partition, entry_id, reply[0]) if reply else None,
        )

    def _admitted(self, key: OperationKey, cause: bytes) -> Args:
        """Return the arguments of every change that a full journal refuses."""
        return key.text, key.kept_ms, key.fingerprint, self.journal_limit, cause

    def _alter(
        self, script: str, account: str, key: OperationKey, args: tuple[str | bytes | int, ...]
    ) -> Operation[AccountChange]:
        """Return the change of what an account is. Its script applies nothing that has fallen due: a sweep does."""
        operation = self._change(script, account, key, args, read_change)
        operation.sweep = self.sweep(account)
        return operation

    def _change(
        self, script: str, account: str, key: OperationKey, args: Args, read: Read[R], lease_id: str = ""
    ) -> Operation[R]:
        """Return an operation under an operation key; with a `lease_id`, on that lease."""
        keys = self.namespace.account(account)
        all_keys = (*keys.keys, keys.operation(key.text), *((keys.closed + lease_id.encode(),) if lease_id else ()))
        return Operation(
            self._scripts[script], keys.partition, all_keys, args, read, account, key.for_callers, lease_id
        )

    def _close(self, script: str, account: str, lease_id: str, args: Args, read: Read[R]) -> Operation[R]:
        """Return an operation that closes a lease, whose id is its key."""
        keys = self.namespace.accounts[account]
        all_keys = (*keys.keys, keys.closed + lease_id.encode())
        return Operation(self._scripts[script], keys.partition, all_keys, args, read, account, lease_id, lease_id)

    def _look(self, script: str, account: str, args: Args, read: Read[R]) -> Operation[R]:
        """Return an operation that needs no key: it reads, or may be made any number of times."""
        keys = self.namespace.account(account)
        return Operation(self._scripts[script], keys.partition, keys.keys, args, read, account)
