"""Credits that come in, what an account has, and charges in one step."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import structs

from ducto_redis.engine.ids import check_id
from ducto_redis.engine.operation import Price
from ducto_redis.errors import ConfigError
from ducto_redis.manager.base import BillingMode, Durability, ManagerBase
from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.manager.requests import (
    GRANT_KEY_KEPT_MS,
    KEY_KEPT_MS,
    Usage,
    UsageOrAmount,
    check_operation_type,
    journal_cause,
    operation_key,
    split,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount, from_micro, to_micro, to_signed_micro
from ducto_redis.pricing import CostBreakdown
from ducto_redis.results import AddResult, Balance, DeductResult

PURCHASE = "purchase"
"""The type of credits that were paid for."""

_LEDGER_SECONDS = 10.0


class Balances(ManagerBase):
    """The part of a manager that needs no lease."""

    async def add_credits(
        self,
        account: str,
        amount: Amount,
        *,
        type: str = PURCHASE,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        durability: Durability | None = None,
    ) -> AddResult:
        """Add credits to an account's balance.

        Args:
            account: who gets them.
            amount: credits, above zero.
            type: what they are: purchase, bonus, adjustment...
            idempotency_key: the same key with the same request adds them once; remembered for 35 days.
            metadata: journalled with the change; at most 1 KiB of JSON.
            durability: `fast` returns once Redis has the credits; `ledger` once SQL has them too. Without it, a
                purchase waits for the ledger where there is one and a worker writes it.

        Raises:
            InvalidAmountError, InvalidIdError, InvalidMetadataError, IdempotencyConflictError, JournalFullError,
            RecoveryNeededError, StoreUnavailableError
            ConfigError: for durability `ledger` without a ledger; nothing is added then.
            LedgerError: if the ledger did not get the credits in time; they were added, and asking again with the same
                key waits again.
        """
        await self._ready()
        if durability not in (None, "fast", "ledger"):
            raise ConfigError(f"durability is 'fast' or 'ledger', not {durability!r:.40}")
        if durability == "ledger" and not self._ledger_access.exists:
            raise ConfigError("durability 'ledger' needs a ledger: give the manager a ledger_url")
        micro = to_micro(amount)
        check_id(type, "a type of credits")
        cause = journal_cause(type=type, metadata=metadata)
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "add_credits", micro, type, metadata or None)
        waits = durability == "ledger" or (durability is None and type == PURCHASE and await self._ledger_is_fed())
        added = await self.store.add_credits(account, micro, key, cause=cause)
        if waits:
            await self._in_thread(
                lambda: self._ledger_access.wait_for_transaction(added.transaction_id, _LEDGER_SECONDS)
            )
            added = structs.replace(added, durability="ledger")
        return added

    async def get_balance(self, account: str) -> Balance:
        """What an account has: balance, held, available. An unknown account has nothing.

        Raises:
            InvalidIdError, InvalidMetadataError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return await self.store.get_balance(account)

    async def get_available(self, account: str) -> Decimal:
        """The credits of an account that are neither spent nor held."""
        return (await self.get_balance(account)).available

    async def can_afford(
        self, account: str, usage_or_amount: UsageOrAmount, *, billing_mode: BillingMode | None = None
    ) -> bool:
        """Whether a reserve of it would be admitted now. Nothing is held.

        Raises:
            UnpricedModelError, PricingNotLoadedError, InvalidAmountError, InvalidUsageError, InvalidIdError
        """
        await self._ready()
        price, pricing = await self._price(*split(usage_or_amount))
        balance = await self.store.get_balance(account)
        return to_signed_micro(balance.available) - price.amount >= self._floor(billing_mode, pricing)

    async def price(self, usage: Usage) -> Decimal:
        """What usage costs under the active pricing document, in credits. Nothing is held or charged.

        Raises:
            UnpricedModelError, PricingNotLoadedError, ExpressionError, InvalidUsageError
        """
        await self._ready()
        price, _ = await self._price(*split(usage))
        return from_micro(price.amount)

    async def calculate(self, usage: UsageMetrics) -> CostBreakdown:
        """What usage costs under the active pricing document, part by part."""
        await self._ready()
        return (await self.pricing.active()).engine.calculate(usage)

    async def deduct(
        self,
        account: str,
        usage_or_amount: UsageOrAmount,
        *,
        idempotency_key: str | None = None,
        operation_type: str = "default",
        billing_mode: BillingMode | None = None,
        metadata: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> DeductResult:
        """Price and charge in one step, where no lease is needed.

        Args:
            account: who pays.
            usage_or_amount: what was consumed, or credits.
            idempotency_key: the same key with the same request charges once; remembered for 24 hours.
            operation_type: what the work was.
            billing_mode: `strict` or `overdraft`, instead of the manager's policy.
            metadata: journalled with the charge; at most 1 KiB of JSON.
            flags: what is unusual about the usage, journalled with it.

        Raises:
            InsufficientCreditsError, UnpricedModelError, PricingNotLoadedError, IdempotencyConflictError,
            JournalFullError, RecoveryNeededError, StoreUnavailableError, InvalidAmountError, InvalidUsageError,
            InvalidIdError, InvalidMetadataError
        """
        await self._ready()
        check_operation_type(operation_type)
        usages, amount = split(usage_or_amount)
        cause = journal_cause(usages, operation_type=operation_type, flags=flags, metadata=metadata)
        key = operation_key(
            idempotency_key, KEY_KEPT_MS, "deduct", amount or usages, operation_type, billing_mode, metadata or None
        )

        async def attempt(price: Price, pricing: Pricing | None) -> DeductResult:
            return await self.store.deduct(account, price, key, floor=self._floor(billing_mode, pricing), cause=cause)

        return await self._with_active_price(usages, amount, key.for_callers, attempt)

    async def deduct_fixed(
        self,
        account: str,
        job: str,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> DeductResult:
        """Charge a job that the pricing document gives a fixed price. Raises what `deduct` raises."""
        return await self.deduct(
            account, UsageMetrics(fixed_job=job), idempotency_key=idempotency_key, metadata=metadata
        )

    async def _ledger_is_fed(self) -> bool:
        if not self._ledger_access.exists or not self.store.durable:
            return False
        return await self._in_thread(self._ledger_access.has_worker)
