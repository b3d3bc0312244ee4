"""Leases: hold credits while work runs, charge what it cost."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import structs

from ducto_redis.engine.operation import LeaseTerms, Price
from ducto_redis.errors import (
    ExpressionError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidUsageError,
    LeaseClosedError,
    LeaseNotFoundError,
    RepriceLease,
    StoreUnavailableError,
    UnpricedModelError,
)
from ducto_redis.manager.base import BillingMode, ManagerBase, add_key, total_micro
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.manager.requests import (
    CALL_KEPT_MS,
    KEY_KEPT_MS,
    UsageOrAmount,
    check_lease_id,
    check_operation_type,
    encode_metadata,
    fingerprint,
    journal_cause,
    new_id,
    operation_key,
    split,
    ttl_to_ms,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import to_signed_micro
from ducto_redis.results import (
    ExtendResult,
    Lease,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
    SweepResult,
)

T = TypeVar("T")

PRICING_ERRORS = (ExpressionError, InvalidAmountError, InvalidUsageError, UnpricedModelError)
"""What says that usage has no price."""

_log = logging.getLogger("ducto_redis.manager")


class Leases(ManagerBase):
    """The part of a manager that opens and closes leases."""

    async def reserve(
        self,
        account: str,
        usage_or_amount: UsageOrAmount,
        *,
        operation_type: str = "default",
        ttl: float | None = None,
        billing_mode: BillingMode | None = None,
        lease_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ReserveResult:
        """Hold credits while work runs.

        Args:
            account: who pays.
            usage_or_amount: the most that the work can consume, or credits.
            operation_type: what the work is, for people who list leases.
            ttl: seconds that the lease holds.
            billing_mode: `strict` or `overdraft`, instead of the manager's policy.
            lease_id: makes the call safe to repeat; made up where it is missing.
            metadata: stored with the lease; at most 1 KiB of JSON.

        Raises:
            InsufficientCreditsError, UnpricedModelError, PricingNotLoadedError, LeaseClosedError, JournalFullError,
            IdempotencyConflictError (the lease id was used for another request), RecoveryNeededError,
            StoreUnavailableError, InvalidAmountError, InvalidUsageError, InvalidIdError
        """
        await self._ready()
        if self.outbox.full:
            raise StoreUnavailableError(
                f"{len(self.outbox)} charges wait for the engine: nothing more is admitted", operation_key=lease_id
            )
        check_operation_type(operation_type)
        usages, amount = split(usage_or_amount)
        ttl_ms = ttl_to_ms(self.default_ttl_seconds if ttl is None else ttl)
        encoded_metadata = encode_metadata(metadata)
        cause = journal_cause(usages)
        passed = ""
        if lease_id is not None:
            check_lease_id(lease_id)
            passed = fingerprint("reserve", amount or usages, operation_type, ttl, billing_mode, metadata or None)
        lease = lease_id or new_id()

        async def attempt(price: Price, pricing: Pricing | None) -> ReserveResult:
            terms = LeaseTerms(
                floor=self._floor(billing_mode, pricing),
                ttl_ms=ttl_ms,
                on_expiry=self._on_lease_expiry,
                operation_type=operation_type,
                owner=self.owner,
                metadata=encoded_metadata,
                fingerprint=passed,
            )
            return await self.store.reserve(account, lease, price, terms, cause=cause)

        return await self._with_active_price(usages, amount, lease, attempt)

    async def settle(
        self,
        account: str,
        lease_id: str,
        usage_or_amount: UsageOrAmount,
        *,
        metadata: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> SettleResult:
        """Close a lease and charge what the work cost, at the prices that it was reserved under.

        The cost is paid from the lease's hold and from what is available above its floor, never from another lease's
        hold; the rest is the result's `shortfall`. A lease that has expired is charged all the same, as `late`.

        Args:
            account: who pays.
            lease_id: the lease.
            usage_or_amount: what was consumed, or credits (zero is allowed).
            metadata: journalled with the charge; at most 1 KiB of JSON.
            flags: what is unusual about the usage, journalled with it.

        Raises:
            LeaseNotFoundError, LeaseClosedError (released), IdempotencyConflictError (settled for something else),
            UnpricedModelError, RecoveryNeededError, StoreUnavailableError, InvalidAmountError, InvalidUsageError,
            InvalidIdError
        """
        await self._ready()
        check_lease_id(lease_id)
        usages, amount = split(usage_or_amount, zero=True)
        cause = journal_cause(usages, flags=flags, metadata=metadata)
        passed = fingerprint("settle", usages or amount)

        async def attempt(price: Price) -> SettleResult:
            return await self.store.settle(account, lease_id, price, fingerprint=passed, cause=cause)

        return await self._with_lease_price(account, lease_id, usages, amount, lease_id, attempt)

    async def release(self, account: str, lease_id: str) -> ReleaseResult:
        """Close a lease without a charge.

        Raises:
            LeaseNotFoundError, LeaseClosedError (settled), RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        return await self.store.release(account, check_lease_id(lease_id), cause=b"")

    async def renew(self, account: str, lease_id: str, *, ttl: float | None = None) -> RenewResult:
        """Let a lease hold for at least `ttl` seconds from now.

        Raises:
            LeaseNotFoundError, LeaseExpiredError, LeaseClosedError, RecoveryNeededError, StoreUnavailableError,
            InvalidIdError
        """
        await self._ready()
        ttl_ms = ttl_to_ms(self.default_ttl_seconds if ttl is None else ttl)
        key = operation_key(None, CALL_KEPT_MS)
        return await self.store.renew(account, check_lease_id(lease_id), key, ttl_ms=ttl_ms)

    async def extend(
        self, account: str, lease_id: str, usage_or_amount: UsageOrAmount, *, idempotency_key: str | None = None
    ) -> ExtendResult:
        """Let a lease hold that much more, at its own prices and under its own floor.

        Raises:
            InsufficientCreditsError, LeaseNotFoundError, LeaseExpiredError, LeaseClosedError, IdempotencyConflictError,
            UnpricedModelError, JournalFullError, RecoveryNeededError, StoreUnavailableError, InvalidAmountError,
            InvalidUsageError, InvalidIdError
        """
        await self._ready()
        check_lease_id(lease_id)
        usages, amount = split(usage_or_amount)
        cause = journal_cause(usages)
        key = operation_key(idempotency_key, KEY_KEPT_MS, "extend", lease_id, amount or usages)

        async def attempt(price: Price) -> ExtendResult:
            return await self.store.extend(account, lease_id, price, key, cause=cause)

        return await self._with_lease_price(account, lease_id, usages, amount, key.for_callers, attempt)

    async def list_leases(self, account: str) -> list[Lease]:
        """The account's open leases, oldest first.

        Raises:
            RecoveryNeededError, StoreUnavailableError, InvalidIdError
        """
        await self._ready()
        leases: dict[str, Lease] = {}
        cursor = 0
        while True:
            page = await self.store.list_leases(account, cursor=cursor)
            leases.update((lease.lease_id, lease) for lease in page.leases)
            cursor = page.cursor
            if not cursor:
                return sorted(leases.values(), key=lambda lease: (lease.created_at, lease.lease_id))

    async def sweep(self) -> SweepResult:
        """Apply what has fallen due on accounts that nobody touches. `ducto worker` does so all the time.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        accounts = leases_expired = 0
        for partition in self.store.partitions():
            swept = await self.store.sweep_partition(partition)
            while swept.accounts:
                accounts += swept.accounts
                leases_expired += swept.leases_expired
                swept = await self.store.sweep_partition(partition)
        return SweepResult(accounts=accounts, leases_expired=leases_expired)

    async def send_charge(self, charge: PendingCharge) -> SettleResult | ReleaseResult | None:
        """Do what waited in the outbox: settle a lease, or release one for which nothing was consumed.

        Where the lease could not be opened at its time, one that holds nothing is opened for it: so the account is
        charged what it can pay, and the rest is journalled as the shortfall.
        """
        await self._ready()
        if not charge.usage and not charge.credits:
            try:
                return await self.release(charge.account, charge.key)
            except LeaseNotFoundError:
                return None  # whether it had been opened was not known: it had not
        if not charge.lease:
            await self._open_empty(charge)
        return await self._settle_charge(charge)

    async def _settle_charge(self, charge: PendingCharge) -> SettleResult:
        """Settle a lease for a charge. Its hold, where it says one, is charged for usage that has no price."""
        try:
            return await self.settle(charge.account, charge.key, charge.usage or charge.credits, flags=charge.flags)
        except PRICING_ERRORS as error:
            if not charge.hold:
                raise
            _log.error("lease %s is charged its whole hold, for its usage has no price: %s", charge.key, error)
            return await self.settle(charge.account, charge.key, charge.hold, flags=(*charge.flags, "hold_charged"))

    async def _with_lease_price(
        self,
        account: str,
        lease_id: str,
        usages: Sequence[UsageMetrics],
        amount: int,
        key: str,
        attempt: Callable[[Price], Awaitable[T]],
    ) -> T:
        try:
            price = Price(amount) if not usages else await self._lease_price(account, lease_id, usages)
            self._check_open()
            try:
                return await attempt(price)
            except RepriceLease as asked:
                pricing = await self.pricing.version(asked.version)
            return await attempt(Price(total_micro(pricing, usages), pricing.version))
        except StoreUnavailableError as error:
            add_key(error, key)
            raise

    async def _lease_price(self, account: str, lease_id: str, usages: Sequence[UsageMetrics]) -> Price:
        pricing = await self.pricing.active()
        try:
            return Price(total_micro(pricing, usages), pricing.version)
        except PRICING_ERRORS:
            # The active document prices it no more; the lease's own may, and the engine says which that is only of a
            # call that has a price.
            leases = await self.list_leases(account)
            version = next((lease.version for lease in leases if lease.lease_id == lease_id), 0)
            if version in (0, pricing.version):
                raise
        pricing = await self.pricing.version(version)
        return Price(total_micro(pricing, usages), version)

    async def _open_empty(self, charge: PendingCharge) -> None:
        terms = LeaseTerms(
            floor=self._floor(None, await self.pricing.active_or_none()),
            ttl_ms=ttl_to_ms(self.default_ttl_seconds),
            on_expiry="release",
            operation_type=charge.operation_type,
            owner=self.owner,
            metadata=b"",
            fingerprint=fingerprint("later", charge.usage),
        )
        try:
            await self.store.reserve(charge.account, charge.key, Price(0), terms, cause=b"")
        except InsufficientCreditsError as short:
            # The account is below its floor already: it can pay nothing, and the charge is all shortfall.
            terms = structs.replace(terms, floor=to_signed_micro(short.available))
            await self.store.reserve(charge.account, charge.key, Price(0), terms, cause=b"")
        except IdempotencyConflictError:
            return  # it was opened at its time, and only the reply was lost
        except LeaseClosedError as closed:
            if closed.how == "released":
                raise
