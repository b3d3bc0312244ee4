"""Leases: hold credits while work runs, charge what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from ducto_redis.engine.ids import new_id
from ducto_redis.engine.operation import LeaseTerms
from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    InvalidUsageError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    StoreUnavailableError,
    TeamNotFoundError,
)
from ducto_redis.manager.arguments import (
    CALL_KEPT_MS,
    KEY_KEPT_MS,
    UsageOrAmount,
    check_billing_mode,
    check_feature,
    check_lease_id,
    check_member,
    check_operation_type,
    encode_metadata,
    fingerprint,
    journal_cause,
    operation_key,
    split,
    ttl_to_ms,
)
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import (
    tells_extended,
    tells_released,
    tells_renewed,
    tells_reserved,
    tells_settled,
    tells_swept,
)
from ducto_redis.manager.options import ReserveOptions
from ducto_redis.manager.repricing import ANSWERED, Attempt
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing.plans import BillingMode
from ducto_redis.results import (
    ZERO,
    ExtendResult,
    Lease,
    LeaseStatus,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
    SweepResult,
)

_REFUSALS = (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    TeamNotFoundError,
)


class Leases(ManagerBase):
    """The part of a manager that opens and closes leases."""

    @tells_reserved
    async def reserve(
        self,
        account: str,
        usage_or_amount: UsageOrAmount,
        *,
        operation_type: str = "default",
        ttl: float | None = None,
        member: str | None = None,
        required_feature: str | None = None,
        billing_mode: BillingMode | None = None,
        lease_id: str | None = None,
        parent: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ReserveResult:
        """Hold credits while work runs: of the plan's allowance first, then of the balance.

        With a `parent` it is held out of what that lease holds, and never charged more than that one has left: a budget
        for what runs inside of it. What is not spent goes back there. The parent's floor and prices apply, and its
        member where none is named.

        Args:
            account: who pays.
            usage_or_amount: the most that the work can consume, or credits.
            operation_type: what the work is, for people who list leases; the account's plan, or the manager, may limit
                how many of one type run at a time.
            ttl: seconds that the lease holds.
            member: who spends, of a team.
            required_feature: that the account's plan must have.
            billing_mode: `strict` or `overdraft`, instead of what the account's plan or the manager's policy says.
            lease_id: makes the call safe to repeat; made up where it is missing.
            parent: the id of an open lease of the account, to hold inside of it.
            metadata: stored with the lease; at most 1 KiB of JSON.

        Raises:
            InsufficientCreditsError, CapReachedError, ConcurrencyLimitError, FeatureNotEntitledError,
            AccountFrozenError, TeamNotFoundError (a member is named, and the account has none), MemberNotFoundError,
            UnpricedModelError, PricingNotLoadedError, LeaseClosedError, JournalFullError,
            IdempotencyConflictError (the lease id was used for another request), RecoveryNeededError,
            StoreUnavailableError, InvalidAmountError, InvalidUsageError, InvalidIdError; with a `parent` also
            LeaseNotFoundError, LeaseExpiredError and LeaseClosedError, whose `lease_id` is the parent's, and
            ConfigError (more than 16 leases deep)
        """
        if not self._usable:
            await self.open()
        if self.outbox.full:
            raise StoreUnavailableError(
                f"{len(self.outbox)} charges wait for the engine: nothing more is admitted", operation_key=lease_id
            )
        attempt = _attempt_to_hold(
            account, usage_or_amount, operation_type, member, required_feature, billing_mode, parent
        )
        ttl_ms = self._default_ttl_ms if ttl is None else ttl_to_ms(ttl)
        encoded_metadata = b"" if metadata is None else encode_metadata(metadata)
        cause = journal_cause(attempt.usages) if attempt.usages else b""
        if lease_id is None:
            return await self._hold(attempt, new_id(), ttl_ms, metadata=encoded_metadata, cause=cause)
        passed = fingerprint(
            "reserve",
            attempt.amount or attempt.usages,
            operation_type,
            ttl,
            billing_mode,
            metadata or None,
            member=member,
            required_feature=required_feature,
            parent=parent,
        )
        return await self._hold(
            attempt, check_lease_id(lease_id), ttl_ms, metadata=encoded_metadata, passed=passed, cause=cause
        )

    async def _hold(
        self,
        attempt: Attempt,
        lease_id: str,
        ttl_ms: int,
        *,
        metadata: bytes = b"",
        passed: str = "",
        cause: bytes = b"",
        dry_run: bool = False,
        on_expiry: str | None = None,
        floor: int | None = None,
    ) -> ReserveResult:
        """Open a lease, or, in a dry run, raise what it would be refused with. Raises what `reserve` raises.

        Args:
            attempt: the account, the price and the caller's wishes.
            lease_id: the new lease.
            ttl_ms: milliseconds that it holds.
            metadata: JSON, or empty.
            passed: the fingerprint of what the caller passed; empty for a lease id that was made for this call.
            cause: what the journal keeps.
            dry_run: writes nothing.
            on_expiry: `release` or `charge`, instead of the manager's.
            floor: micro-credits, instead of the account's.
        """
        attempt.key = lease_id
        while True:
            try:
                price, own_floor, conditions = await self._repricer.for_account(attempt)
                terms = LeaseTerms(
                    own_floor if floor is None else floor,
                    ttl_ms,
                    on_expiry or self._on_lease_expiry,
                    attempt.operation_type,
                    self.owner,
                    metadata,
                    passed,
                )
                return await self.store.reserve(
                    attempt.account, lease_id, price, terms, conditions=conditions, cause=cause, dry_run=dry_run
                )
            except ANSWERED as error:
                await self._repricer.answer(attempt, error)

    async def can_afford(self, account: str, usage_or_amount: UsageOrAmount, **options: Unpack[ReserveOptions]) -> bool:
        """Return whether `reserve` would admit this hold now, by balance, allowance, spend caps, limits and plan.

        Nothing is held, and nothing is written.

        Args:
            account: the account that would pay.
            usage_or_amount: the most that the work can consume, or credits.
            options: as for `reserve`: operation_type, member, required_feature, billing_mode, parent.

        Raises:
            UnpricedModelError, PricingNotLoadedError, JournalFullError, RecoveryNeededError, StoreUnavailableError,
            InvalidAmountError, InvalidUsageError, InvalidIdError
        """
        try:
            await self.check_affordable(account, usage_or_amount, **options)
        except _REFUSALS:
            return False
        return True

    async def check_affordable(
        self, account: str, usage_or_amount: UsageOrAmount, **options: Unpack[ReserveOptions]
    ) -> None:
        """Raise the error with which `reserve` would refuse this hold now. Otherwise as `can_afford`."""
        await self._ready()
        attempt = _attempt_to_hold(account, usage_or_amount, **options)
        await self._hold(attempt, new_id(), self._default_ttl_ms, dry_run=True)

    async def price_micro(self, account: str, usage: UsageMetrics) -> int:
        """What usage costs an account, in micro-credits, by what this process knows of its plan: no engine is asked.

        Raises:
            UnpricedModelError, PricingNotLoadedError, ExpressionError, InvalidAmountError, InvalidUsageError
        """
        return await self._repricer.price_micro(account, (usage,))

    @tells_settled
    async def settle(
        self,
        account: str,
        lease_id: str,
        usage_or_amount: UsageOrAmount,
        *,
        skip_allowance: bool = False,
        metadata: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> SettleResult:
        """Close a lease and charge what the work cost, at the prices that it was reserved under.

        The cost is paid from the allowance, the lease's hold and what is available above its floor, never from another
        lease's hold; the rest is the result's `shortfall`. A lease that has expired is charged all the same, as `late`.

        Args:
            account: who pays.
            lease_id: the lease.
            usage_or_amount: what was consumed, or credits (zero is allowed).
            skip_allowance: whether the plan's allowance is left alone, so that the balance pays all of it.
            metadata: journalled with the charge; at most 1 KiB of JSON.
            flags: what is unusual about the usage, journalled with it.

        Raises:
            LeaseNotFoundError, LeaseClosedError (released), IdempotencyConflictError (settled for something else),
            UnpricedModelError, RecoveryNeededError, StoreUnavailableError, InvalidAmountError, InvalidUsageError,
            InvalidIdError
        """
        if not self._usable:
            await self.open()
        check_lease_id(lease_id)
        usages, amount = split(usage_or_amount, zero=True)
        cause = journal_cause(usages, flags=flags, metadata=metadata)
        passed = fingerprint("settle", usages or amount, skip_allowance=skip_allowance)
        attempt = Attempt(account, usages, amount, lease_id, skip_allowance=skip_allowance, charges=True)
        while True:
            try:
                price, conditions = await self._repricer.for_lease(attempt)
                return await self.store.settle(
                    account, lease_id, price, conditions=conditions, fingerprint=passed, cause=cause
                )
            except ANSWERED as error:
                await self._repricer.answer(attempt, error)

    @tells_released
    async def release(self, account: str, lease_id: str) -> ReleaseResult:
        """Close a lease without a charge.

        Raises:
            LeaseNotFoundError, LeaseClosedError (settled), RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        return await self.store.release(account, check_lease_id(lease_id), cause=b"")

    @tells_renewed
    async def renew(self, account: str, lease_id: str, *, ttl: float | None = None) -> RenewResult:
        """Let a lease hold for at least `ttl` seconds from now.

        Raises:
            LeaseNotFoundError, LeaseExpiredError, LeaseClosedError, RecoveryNeededError, StoreUnavailableError,
            InvalidIdError
        """
        await self._ready()
        ttl_ms = self._default_ttl_ms if ttl is None else ttl_to_ms(ttl)
        key = operation_key(None, CALL_KEPT_MS)
        return await self.store.renew(account, check_lease_id(lease_id), key, ttl_ms=ttl_ms)

    @tells_extended
    async def extend(
        self,
        account: str,
        lease_id: str,
        usage_or_amount: UsageOrAmount,
        *,
        beyond: UsageMetrics | None = None,
        idempotency_key: str | None = None,
    ) -> ExtendResult:
        """Let a lease hold that much more, at its own prices and under its own floor.

        Args:
            account: who pays.
            lease_id: the lease.
            usage_or_amount: what may be consumed in addition, or credits.
            beyond: what the lease holds already, where `usage_or_amount` is all that one model may consume: it holds
                the difference of their prices in addition. That is more, or less, than a price of the rest by itself
                where a formula has tiers, or charges for each request.
            idempotency_key: makes the call safe to repeat.

        Raises:
            InsufficientCreditsError, CapReachedError, AccountFrozenError, LeaseNotFoundError, LeaseExpiredError,
            LeaseClosedError, IdempotencyConflictError, UnpricedModelError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError, InvalidAmountError, InvalidUsageError, InvalidIdError
        """
        await self._ready()
        check_lease_id(lease_id)
        usages, amount = split(usage_or_amount)
        held = () if beyond is None else (beyond,)
        if held and [usage.model for usage in usages] != [usage.model for usage in held]:
            raise InvalidUsageError("what is held beyond another usage is one usage of the same model")
        cause = journal_cause(usages)
        key = operation_key(idempotency_key, KEY_KEPT_MS, "extend", lease_id, amount or usages, beyond=beyond)
        attempt = Attempt(account, usages, amount, key.for_callers, beyond=held)
        while True:
            try:
                price, conditions = await self._repricer.for_lease(attempt)
                return await self.store.extend(account, lease_id, price, key, conditions=conditions, cause=cause)
            except ANSWERED as error:
                await self._repricer.answer(attempt, error)

    async def list_leases(self, account: str) -> list[Lease]:
        """The account's open leases, oldest first.

        Raises:
            RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        leases = await self._open_leases(account)
        return sorted(leases, key=lambda lease: (lease.created_at, lease.lease_id))

    async def find_lease(self, account: str, lease_id: str) -> LeaseStatus | None:
        """What became of a lease: whether it is open, has expired, was settled or released, and by which transaction.

        Returns:
            None where there is none of that id, or it was closed more than 24 hours ago.

        Raises:
            RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        return await self.store.find_lease(account, check_lease_id(lease_id))

    @tells_swept
    async def sweep(self) -> SweepResult:
        """Apply what has fallen due on accounts that nobody touches. `ducto worker` does so all the time.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """
        return await self._sweep(dry_run=False)

    @tells_swept
    async def sweep_expired_credits(self, *, dry_run: bool = False) -> SweepResult:
        """Take away the credits that have expired, of all accounts, whatever else has fallen due with them.

        Credits that leases rest on stay until those close. It goes in small steps, may be interrupted and run again,
        and may run in several processes at once: what has expired goes once.

        Args:
            dry_run: only say what would be done.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """
        return await self._sweep(dry_run=dry_run)

    async def _sweep(self, *, dry_run: bool) -> SweepResult:
        await self._ready()
        total = SweepResult(accounts=0, leases_expired=0, grants_expired=0, credits_expired=ZERO)
        for partition in self.store.partitions():
            skip = 0
            swept = await self.store.sweep_partition(partition, dry_run=dry_run)
            while swept.accounts:
                total = SweepResult(
                    accounts=total.accounts + swept.accounts,
                    leases_expired=total.leases_expired + swept.leases_expired,
                    grants_expired=total.grants_expired + swept.grants_expired,
                    credits_expired=total.credits_expired + swept.credits_expired,
                )
                skip += swept.accounts if dry_run else 0
                swept = await self.store.sweep_partition(partition, dry_run=dry_run, skip=skip)
        return total


def _attempt_to_hold(
    account: str,
    usage_or_amount: UsageOrAmount,
    operation_type: str = "default",
    member: str | None = None,
    required_feature: str | None = None,
    billing_mode: BillingMode | None = None,
    parent: str | None = None,
) -> Attempt:
    usages, amount = split(usage_or_amount)
    return Attempt(
        account,
        usages,
        amount,
        operation_type=operation_type if operation_type == "default" else check_operation_type(operation_type),
        billing_mode=None if billing_mode is None else check_billing_mode(billing_mode),
        member="" if member is None else check_member(member),
        required_feature=None if required_feature is None else check_feature(required_feature),
        parent="" if parent is None else check_lease_id(parent),
        opens_lease=True,
    )
