"""Leases: hold credits while work runs, and charge its cost."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from ducto_redis.engine.ids import check_id, new_id
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
        """Hold credits while work runs: from the plan's allowance first, then from the balance.

        With a `parent` they are held out of that lease's hold, and the charge never exceeds what the parent has left: a
        budget for the work inside it. Credits that are not spent go back there. The parent's floor and prices apply,
        and its member if none is named.

        Args:
            account: the account that pays.
            usage_or_amount: the most that the work can consume, or credits.
            operation_type: the kind of work, for lists of leases; the account's plan, or the manager, may limit the
                number of leases of one type.
            ttl: seconds that the lease holds.
            member: the member of a team who spends.
            required_feature: a feature that the account's plan must have.
            billing_mode: `strict` or `overdraft`, instead of the account's plan or the manager's policy.
            lease_id: makes the call safe to repeat; without it, the lease gets a new id.
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
        """Open a lease, or, in a dry run, raise the error that would refuse it. Raises the errors of `reserve`.

        Args:
            attempt: the account, the price and the caller's wishes.
            lease_id: the new lease.
            ttl_ms: milliseconds that it holds.
            metadata: JSON, or empty.
            passed: the fingerprint of the caller's arguments; empty for a lease id that was made for this call.
            cause: the cause, for the journal.
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
        """Return the price of usage for an account, in micro-credits, without asking the engine.

        It is the price under the plan that this process knows.

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
        """Close a lease and charge the cost of the work, at the prices that it was reserved under.

        The cost is paid from the allowance, the lease's hold and the credits available above its floor, never from
        another lease's hold; the rest is the result's `shortfall`. A lease that has expired is still charged, as
        `late`.

        Args:
            account: the account that pays.
            lease_id: the lease.
            usage_or_amount: the usage consumed, or credits (zero is allowed).
            skip_allowance: leaves the plan's allowance alone, so that the balance pays everything.
            metadata: journalled with the charge; at most 1 KiB of JSON.
            flags: marks of unusual usage, journalled with it.

        Raises:
            LeaseNotFoundError, LeaseClosedError (released), IdempotencyConflictError (settled for something else),
            UnpricedModelError, RecoveryNeededError, StoreUnavailableError, InvalidAmountError, InvalidUsageError,
            InvalidIdError
        """
        if not self._usable:
            await self.open()
        check_id(lease_id, "a lease id")
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
        """Extend a lease to at least `ttl` seconds from now.

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
        """Add to the hold of a lease, at its own prices and under its own floor.

        Args:
            account: the account that pays.
            lease_id: the lease.
            usage_or_amount: the additional usage, or credits.
            beyond: the usage that the lease holds credits for already, if `usage_or_amount` is the whole usage of one
                model: the difference of their prices is held in addition. It differs from the price of the additional
                usage if a formula has tiers, or charges for each request.
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
            raise InvalidUsageError("with `beyond`, usage_or_amount must be one usage of the same model")
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
        """Return the account's open leases, oldest first.

        Raises:
            RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        leases = await self._open_leases(account)
        return sorted(leases, key=lambda lease: (lease.created_at, lease.lease_id))

    async def find_lease(self, account: str, lease_id: str) -> LeaseStatus | None:
        """Return the state of a lease (open, expired, settled or released), with the transaction that closed it.

        Returns:
            None if there is no lease of that id, or it was closed more than 24 hours ago.

        Raises:
            RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        return await self.store.find_lease(account, check_lease_id(lease_id))

    @tells_swept
    async def sweep(self) -> SweepResult:
        """Expire the leases and credits of accounts that nobody uses. `ducto worker` does so all the time.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """
        return await self._sweep(dry_run=False)

    @tells_swept
    async def sweep_expired_credits(self, *, dry_run: bool = False) -> SweepResult:
        """Take away expired credits of all accounts, and expire the leases that are due.

        Credits under the hold of a lease stay until it closes. The sweep takes small steps, may be interrupted and
        repeated, and may run in several processes at once: everything expires once.

        Args:
            dry_run: changes nothing, and returns what a sweep would do.

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
