"""What managers do, written once for event loops and for threads.

Every coroutine here awaits the store, or `_in_thread`, and nothing else: over a store that blocks, none suspends.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from ducto_redis.engine.entry import Cause, encode_cause
from ducto_redis.engine.ids import NAME_BYTES, check_id
from ducto_redis.engine.operations import LeaseTerms, Price
from ducto_redis.errors import (
    ConfigError,
    LeaseClosedError,
    RecoveryNeededError,
    RepriceLease,
    StalePricing,
    StoreError,
    StoreUnavailableError,
)
from ducto_redis.manager.ledger_access import LedgerAccess
from ducto_redis.manager.outbox import Outbox, PendingCharge
from ducto_redis.manager.pricing_book import Pricing, PricingBook
from ducto_redis.manager.requests import (
    CALL_KEPT_MS,
    GRANT_KEY_KEPT_MS,
    KEY_KEPT_MS,
    Usage,
    UsageOrAmount,
    check_lease_id,
    check_operation_type,
    encode_metadata,
    fingerprint,
    floor_to_micro,
    new_id,
    operation_key,
    split,
    ttl_to_ms,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount, from_micro, to_micro, to_signed_micro
from ducto_redis.pricing import CostBreakdown, PricingDocument, PricingEngine
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
    SweepResult,
)
from ducto_redis.store.contract import CreditStore, NamespaceState

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger  # an extra: what needs no ledger works without it

T = TypeVar("T")

Policy: TypeAlias = Literal["strict_prepaid", "overdraft"]
BillingMode: TypeAlias = Literal["strict", "overdraft"]
OnLeaseExpiry: TypeAlias = Literal["release", "charge"]

_MODES: dict[str, BillingMode] = {"strict_prepaid": "strict", "overdraft": "overdraft"}
# How often a call is priced again before it is given up: documents can be activated in quick succession, not for ever.
_ASKED_AGAIN = 5


class ManagerCore:
    """Prices, holds and charges.

    Args:
        store: where the accounts are.
        engine: prices by this document alone; without it, by the one that is active in the store.
        ledger: the SQL ledger, for what needs it.
        policy: `strict_prepaid`, where no account goes below the document's `min_balance`, or `overdraft`.
        overdraft_floor: credits, zero or below, to which accounts may go in overdraft.
        default_ttl_seconds: how long a lease holds unless the call says otherwise.
        on_lease_expiry: what becomes of a lease that nobody closed: `release` it, or `charge` its hold.
        owner: who opens leases, for people who list them; host and process by default.
        outbox_limit: charges that may wait for an engine that cannot be reached.

    Raises:
        ConfigError: if a setting is wrong.
    """

    def __init__(
        self,
        store: CreditStore,
        engine: PricingEngine | None = None,
        *,
        ledger: "Ledger | None" = None,
        policy: Policy = "strict_prepaid",
        overdraft_floor: Amount | None = None,
        default_ttl_seconds: float = 600,
        on_lease_expiry: OnLeaseExpiry = "release",
        owner: str | None = None,
        outbox_limit: int = 10_000,
    ) -> None:
        if policy not in _MODES:
            raise ConfigError(f"policy is 'strict_prepaid' or 'overdraft', not {policy!r:.40}")
        if on_lease_expiry not in ("release", "charge"):
            raise ConfigError(f"on_lease_expiry is 'release' or 'charge', not {on_lease_expiry!r:.40}")
        if policy == "overdraft" and overdraft_floor is None:
            raise ConfigError("policy 'overdraft' needs an overdraft_floor")
        ttl_to_ms(default_ttl_seconds)
        self.store = store
        self.ledger = ledger
        self.pricing = PricingBook(store, engine)
        self.outbox = Outbox(outbox_limit)
        self.default_ttl_seconds = default_ttl_seconds
        self.owner = check_id(owner or f"{socket.gethostname()}:{os.getpid()}", "an owner", NAME_BYTES)
        self._mode = _MODES[policy]
        self._overdraft_floor = None if overdraft_floor is None else floor_to_micro(overdraft_floor)
        self._on_lease_expiry = on_lease_expiry
        self._ledger_access = LedgerAccess(store, ledger)
        self._opened = False
        self._closed = False

    async def open(self) -> None:
        """Connect, and create the namespace if this is its first use; every other method does so when it must.

        Raises:
            RecoveryNeededError: if the ledger knows the namespace and Redis does not: it lost its memory.
            PartitionMismatchError, StoreUnavailableError
        """
        if self._closed:
            raise StoreError("the manager is closed; make a new one")
        if self._opened:
            return
        if await self.store.read_namespace() is NamespaceState.MISSING:
            await self._check_ledger_is_empty()
            await self.store.create_namespace()
        await self._in_thread(self._ledger_access.start)
        self._opened = True

    async def close(self) -> None:
        """Send what waits in the outbox, give up what cannot be sent, and let go of connections."""
        if self._closed:
            return
        if self._opened and not await self.outbox.flush(self.send_charge):
            self.outbox.give_up_all("the manager was closed while the engine was away")
        self._closed = True
        await self._in_thread(self._ledger_access.stop)
        await self.store.close()

    async def add_credits(
        self,
        account: str,
        amount: Amount,
        *,
        type: str = "purchase",
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AddResult:
        """Add credits to an account's balance.

        Args:
            account: who gets them.
            amount: credits, above zero.
            type: what they are: purchase, bonus, adjustment...
            idempotency_key: the same key with the same request adds them once; remembered for 35 days.
            metadata: journalled with the change; at most 1 KiB of JSON.

        Raises:
            InvalidAmountError, InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError
        """
        await self._ready()
        micro = to_micro(amount)
        check_id(type, "a type of credits")
        encode_metadata(metadata)
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "add_credits", micro, type, metadata)
        return await self.store.add_credits(
            account, micro, key, cause=encode_cause(Cause(type=type, metadata=metadata or None))
        )

    async def get_balance(self, account: str) -> Balance:
        """What an account has: balance, held, available. An unknown account has nothing.

        Raises:
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
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
        price, pricing = await self._price(usage_or_amount)
        balance = await self.store.get_balance(account)
        return to_signed_micro(balance.available) - price.amount >= self._floor(billing_mode, pricing)

    async def price(self, usage: Usage) -> Decimal:
        """What usage costs under the active pricing document, in credits. Nothing is held or charged.

        Raises:
            UnpricedModelError, PricingNotLoadedError, ExpressionError, InvalidUsageError
        """
        await self._ready()
        price, _ = await self._price(usage)
        return from_micro(price.amount)

    async def calculate(self, usage: UsageMetrics) -> CostBreakdown:
        """What usage costs under the active pricing document, part by part."""
        await self._ready()
        return (await self.pricing.active()).engine.calculate(usage)

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
        passed = ""
        if lease_id is not None:
            check_lease_id(lease_id)
            passed = fingerprint("reserve", amount or usages, operation_type, ttl_ms, billing_mode, metadata)
        cause = encode_cause(Cause(usage=_as_cause(usages)))
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

        return await self._with_active_price(usage_or_amount, attempt)

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
        encode_metadata(metadata)
        passed = fingerprint("settle", usages or amount)
        cause = encode_cause(Cause(usage=_as_cause(usages), flags=flags, metadata=metadata or None))

        async def attempt(price: Price, _: Pricing | None) -> SettleResult:
            return await self.store.settle(account, lease_id, price, fingerprint=passed, cause=cause)

        return await self._with_lease_price(usages, amount, attempt)

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
        key = operation_key(idempotency_key, KEY_KEPT_MS, "extend", lease_id, amount or usages)
        cause = encode_cause(Cause(usage=_as_cause(usages)))

        async def attempt(price: Price, _: Pricing | None) -> ExtendResult:
            return await self.store.extend(account, lease_id, price, key, cause=cause)

        return await self._with_lease_price(usages, amount, attempt)

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
            InvalidIdError
        """
        await self._ready()
        check_operation_type(operation_type)
        usages, amount = split(usage_or_amount)
        encode_metadata(metadata)
        key = operation_key(
            idempotency_key, KEY_KEPT_MS, "deduct", amount or usages, operation_type, billing_mode, metadata
        )
        cause = encode_cause(
            Cause(
                usage=_as_cause(usages),
                operation_type=None if operation_type == "default" else operation_type,
                flags=flags,
                metadata=metadata or None,
            )
        )

        async def attempt(price: Price, pricing: Pricing | None) -> DeductResult:
            return await self.store.deduct(account, price, key, floor=self._floor(billing_mode, pricing), cause=cause)

        return await self._with_active_price(usage_or_amount, attempt)

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

    async def publish_pricing(
        self, document: Mapping[str, Any] | PricingDocument, *, idempotency_key: str | None = None
    ) -> PricingVersion:
        """Store a pricing document as the next version and activate it.

        Args:
            document: a mapping, or a PricingDocument that was read from JSON, YAML or a file.
            idempotency_key: the same key with the same document publishes once.

        Raises:
            ConfigError, ExpressionError: if the document is wrong; nothing is stored then.
            IdempotencyConflictError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        checked = document if isinstance(document, PricingDocument) else PricingDocument.from_dict(document)
        text = checked.to_json()
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "publish_pricing", text)
        published = await self.store.publish_pricing(text, key, cause=b"")
        await self.pricing.refresh()
        return published

    async def load_pricing(self) -> PricingVersion:
        """Ask for the active pricing document now; otherwise it is asked for by itself, at most once a second.

        Raises:
            PricingNotLoadedError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        await self.pricing.refresh()
        return await self.get_pricing()

    async def pricing_history(self) -> list[PricingVersion]:
        """All published versions, newest first, without their documents."""
        await self._ready()
        state = await self.store.read_pricing()
        history = []
        for version in range(state.latest, 0, -1):
            history.append((await self.store.read_pricing(version, known=version)).asked)
        return history

    async def get_pricing(self, version: int | None = None) -> PricingVersion:
        """A published version with its document; the active one by default.

        Raises:
            PricingNotLoadedError, ConfigError (no such version), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return (await self.store.read_pricing(_check_version(version))).asked

    async def activate_pricing(self, version: int) -> PricingVersion:
        """Make a published version the active one.

        Raises:
            ConfigError (no such version), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        activated = await self.store.activate_pricing(_check_version(version), cause=b"")
        await self.pricing.refresh()
        return activated

    async def send_charge(self, charge: PendingCharge) -> SettleResult:
        """Charge what waited in the outbox: settle its lease, or one that holds nothing and is opened for it.

        So the account is charged what it can pay, and the rest is journalled as the shortfall.
        """
        await self._ready()
        if not charge.lease:
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
            except LeaseClosedError as closed:
                if closed.how == "released":
                    raise
        return await self.settle(charge.account, charge.key, charge.usage, flags=charge.flags)

    def charge_later(self, charge: PendingCharge) -> None:
        """Put a charge into the outbox, which sends it once the engine is back."""
        self.outbox.put(charge)

    async def wait_for_ledger(self, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the ledger holds everything that was journalled before this call.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer than `timeout_seconds`.
        """
        await self._ready()
        await self._in_thread(lambda: self._ledger_access.wait(timeout_seconds))

    async def _ready(self) -> None:
        if not self._opened or self._closed:
            await self.open()

    async def _check_ledger_is_empty(self) -> None:
        ledger = self.ledger
        if ledger is None:
            return
        namespace = self.store.namespace.name
        if not await self._in_thread(lambda: ledger.is_empty(namespace)):
            raise RecoveryNeededError(
                f"the ledger knows namespace {namespace!r} and Redis does not: it was emptied. Restore its data (AOF,"
                " RDB or a replica), then try again"
            )

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return function()

    def _floor(self, billing_mode: BillingMode | None, pricing: Pricing | None) -> int:
        mode = self._mode if billing_mode is None else billing_mode
        if mode == "strict":
            return 0 if pricing is None else pricing.engine.min_balance_micro
        if mode != "overdraft":
            raise ConfigError(f"billing_mode is 'strict' or 'overdraft', not {billing_mode!r:.40}")
        if self._overdraft_floor is None:
            raise ConfigError("billing_mode 'overdraft' needs the manager's overdraft_floor")
        return self._overdraft_floor

    async def _price(self, usage_or_amount: UsageOrAmount) -> tuple[Price, Pricing | None]:
        usages, amount = split(usage_or_amount)
        if not usages:
            return Price(amount), await self.pricing.active_or_none()
        pricing = await self.pricing.active()
        return Price(_total(pricing, usages), pricing.version, pricing.activation), pricing

    async def _with_active_price(
        self, usage_or_amount: UsageOrAmount, attempt: Callable[[Price, Pricing | None], Awaitable[T]]
    ) -> T:
        for _ in range(_ASKED_AGAIN):
            price, pricing = await self._price(usage_or_amount)
            try:
                return await attempt(price, pricing)
            except StalePricing:
                await self.pricing.refresh()
        raise StoreError("the pricing document was activated anew each time that the call was priced; try again")

    async def _with_lease_price(
        self, usages: Sequence[UsageMetrics], amount: int, attempt: Callable[[Price, Pricing | None], Awaitable[T]]
    ) -> T:
        if not usages:
            return await attempt(Price(amount), None)
        pricing = await self.pricing.active()
        try:
            return await attempt(Price(_total(pricing, usages), pricing.version), pricing)
        except RepriceLease as asked:
            pricing = await self.pricing.version(asked.version)
        return await attempt(Price(_total(pricing, usages), pricing.version), pricing)


def _total(pricing: Pricing, usages: Sequence[UsageMetrics]) -> int:
    if len(usages) == 1:
        return pricing.engine.total_micro(usages[0])
    return pricing.engine.total_micro_of(usages)


def _as_cause(usages: Sequence[UsageMetrics]) -> UsageMetrics | list[UsageMetrics] | None:
    if not usages:
        return None
    return usages[0] if len(usages) == 1 else list(usages)


def _check_version(version: int | None) -> int:
    if version is None:
        return 0
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"a version of the pricing document is a number from 1, not {version!r:.40}")
    return version


__all__ = ["BillingMode", "ManagerCore", "OnLeaseExpiry", "Policy"]
