"""Credits that come in, balances, prices, and charges in one step."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Unpack

from msgspec import structs

from ducto_redis.engine.ids import check_id
from ducto_redis.engine.operation import NewGrant
from ducto_redis.errors import ConfigError
from ducto_redis.manager.arguments import (
    GRANT_KEY_KEPT_MS,
    KEY_KEPT_MS,
    Usage,
    UsageOrAmount,
    check_billing_mode,
    check_feature,
    check_member,
    check_operation_type,
    check_priority,
    expiry_to_ms,
    journal_cause,
    operation_key,
    split,
)
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import tells_added, tells_deducted
from ducto_redis.manager.options import DeductOptions, Durability
from ducto_redis.manager.repricing import ANSWERED, Attempt
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount, from_micro, to_micro
from ducto_redis.pricing import CostBreakdown
from ducto_redis.pricing.plans import BillingMode
from ducto_redis.results import AccountDescription, AddResult, Balance, DeductResult, Grant

PURCHASE = "purchase"
"""The type of credits that were paid for."""

_LEDGER_SECONDS = 10.0


class Balances(ManagerBase):
    """The part of a manager that needs no lease."""

    @tells_added
    async def add_credits(
        self,
        account: str,
        amount: Amount,
        *,
        type: str = PURCHASE,
        expires_at: datetime | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        durability: Durability | None = None,
    ) -> AddResult:
        """Add credits to an account's balance.

        Those that expire, or have a priority of their own, are kept apart from the rest as a grant. Grants are spent by
        priority, then soonest expiry, then oldest; the rest of the balance has priority 50 and never expires. Credits
        that come in while the balance is below zero pay that debt first.

        Args:
            account: the account that gets them.
            amount: credits, above zero.
            type: their kind: purchase, bonus, adjustment...
            expires_at: the time at which the rest of them expires; one without a time zone is in UTC. None: never.
            priority: from 0, spent first; 50 by default.
            idempotency_key: the same key with the same request adds them once; remembered for 35 days.
            metadata: journalled with the change; at most 1 KiB of JSON.
            durability: `fast` returns once Redis has the credits; `ledger` once SQL has them too. Without it, a
                purchase waits for the ledger where there is one and a worker writes it.

        Raises:
            InvalidAmountError (also for more than 256 grants at a time), InvalidIdError, InvalidMetadataError,
            IdempotencyConflictError, JournalFullError, RecoveryNeededError, StoreUnavailableError
            ConfigError: for credits that have expired already, an invalid time or priority, and durability `ledger`
                without a ledger; nothing is added then.
            LedgerError: if the ledger did not get the credits in time; they were added, and asking again with the same
                key waits again.
        """
        await self._ready()
        if durability not in (None, "fast", "ledger"):
            raise ConfigError(f"durability is 'fast' or 'ledger', not {durability!r:.40}")
        if durability == "ledger" and not self._ledger_access.exists:
            raise ConfigError("durability 'ledger' needs a ledger: give the manager a ledger_url")
        micro = to_micro(amount)
        grant = NewGrant(micro, check_id(type, "a type of credits"), expiry_to_ms(expires_at), check_priority(priority))
        cause = journal_cause(type=type, metadata=metadata)
        key = operation_key(
            idempotency_key,
            GRANT_KEY_KEPT_MS,
            "add_credits",
            micro,
            type,
            metadata or None,
            expires_ms=grant.expires_ms or None,
            priority=priority,
        )
        waits = durability == "ledger" or (durability is None and type == PURCHASE and await self._ledger_is_fed())
        added = await self._conditioned(
            account, lambda conditions: self.store.add_credits(account, grant, key, conditions=conditions, cause=cause)
        )
        if waits:
            await self._in_thread(
                lambda: self._ledger_access.wait_for_transaction(added.transaction_id, _LEDGER_SECONDS)
            )
            added = structs.replace(added, durability="ledger")
        return added

    async def get_balance(self, account: str) -> Balance:
        """Return an account's balance, held and available credits, and the rest of its plan's allowance.

        An account that does not exist yet has what a new one begins with.

        Raises:
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return await self._conditioned(
            account, lambda conditions: self.store.get_balance(account, conditions=conditions)
        )

    async def get_available(self, account: str) -> Decimal:
        """Return the credits of an account that are neither spent nor held, without the allowance."""
        return (await self.get_balance(account)).available

    async def describe(self, account: str) -> AccountDescription:
        """Return the whole state of an account: balance, plan, allowance, grants, spend caps, team, and a freeze.

        Leases and credits that have expired count as expired; nothing is written.

        Raises:
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return await self._describe(account)

    async def list_grants(self, account: str) -> tuple[Grant, ...]:
        """Return the grants of an account's balance, in spending order. Raises the errors of `describe`."""
        return (await self.describe(account)).grants

    async def price(self, usage: Usage) -> Decimal:
        """Return the price of usage under the active pricing document, in credits. Nothing is held or charged.

        Raises:
            UnpricedModelError, PricingNotLoadedError, ExpressionError, InvalidUsageError
        """
        await self._ready()
        usages, amount = split(usage)
        return from_micro((await self.pricing.active()).total_micro(usages) if usages else amount)

    async def calculate(self, usage: UsageMetrics) -> CostBreakdown:
        """Return the price of usage under the active pricing document, part by part."""
        await self._ready()
        return (await self.pricing.active()).engine.calculate(usage)

    @tells_deducted
    async def deduct(
        self,
        account: str,
        usage_or_amount: UsageOrAmount,
        *,
        idempotency_key: str | None = None,
        operation_type: str = "default",
        member: str | None = None,
        required_feature: str | None = None,
        billing_mode: BillingMode | None = None,
        skip_allowance: bool = False,
        metadata: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> DeductResult:
        """Price and charge in one step, where no lease is needed.

        Args:
            account: the account that pays.
            usage_or_amount: the usage consumed, or credits.
            idempotency_key: the same key with the same request charges once; remembered for 24 hours.
            operation_type: the kind of work.
            member: the member of a team who spends.
            required_feature: a feature that the account's plan must have.
            billing_mode: `strict` or `overdraft`, instead of the account's plan or the manager's policy.
            skip_allowance: leaves the plan's allowance alone, so that the balance pays everything.
            metadata: journalled with the charge; at most 1 KiB of JSON.
            flags: marks of unusual usage, journalled with it.

        Raises:
            InsufficientCreditsError, CapReachedError, FeatureNotEntitledError, AccountFrozenError,
            TeamNotFoundError (a member is named, and the account has none), MemberNotFoundError, UnpricedModelError,
            PricingNotLoadedError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError, InvalidAmountError, InvalidUsageError, InvalidIdError, InvalidMetadataError
        """
        await self._ready()
        usages, amount = split(usage_or_amount)
        cause = journal_cause(usages, operation_type=operation_type, flags=flags, metadata=metadata)
        key = operation_key(
            idempotency_key,
            KEY_KEPT_MS,
            "deduct",
            amount or usages,
            operation_type,
            billing_mode,
            metadata or None,
            member=member,
            required_feature=required_feature,
            skip_allowance=skip_allowance,
        )
        attempt = Attempt(
            account,
            usages,
            amount,
            key.for_callers,
            operation_type=check_operation_type(operation_type),
            billing_mode=check_billing_mode(billing_mode),
            member=check_member(member),
            required_feature=check_feature(required_feature),
            skip_allowance=skip_allowance,
            charges=True,
        )
        while True:
            try:
                price, floor, conditions = await self._repricer.for_account(attempt)
                return await self.store.deduct(account, price, key, floor=floor, conditions=conditions, cause=cause)
            except ANSWERED as error:
                await self._repricer.answer(attempt, error)

    async def deduct_fixed(
        self, account: str, job: str, *, member: str | None = None, **options: Unpack[DeductOptions]
    ) -> DeductResult:
        """Charge a job that the pricing document gives a fixed price. Options and errors are those of `deduct`."""
        return await self.deduct(account, UsageMetrics(fixed_job=job), member=member, **options)

    async def _ledger_is_fed(self) -> bool:
        if not self._ledger_access.exists or not self.store.durable:
            return False
        return await self._in_thread(self._ledger_access.has_worker)
