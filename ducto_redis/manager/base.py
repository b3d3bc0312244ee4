"""What all that a manager does stands on: settings, opening and closing, prices, floors.

Every coroutine of a manager awaits the store, or `_in_thread`, and nothing else. Over a store that blocks, none of them
suspends, so that all is written once for event loops and for threads.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, TypeVar

from ducto_redis.engine.ids import NAME_BYTES, check_id
from ducto_redis.engine.operation import Price
from ducto_redis.errors import (
    ConfigError,
    RecoveryNeededError,
    StalePricing,
    StoreError,
    StoreUnavailableError,
)
from ducto_redis.manager.ledger_access import LedgerAccess
from ducto_redis.manager.outbox import Outbox
from ducto_redis.manager.pricing_book import Pricing, PricingBook
from ducto_redis.manager.requests import (
    floor_to_micro,
    ttl_to_ms,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount
from ducto_redis.pricing import PricingEngine
from ducto_redis.store.contract import CreditStore, NamespaceState

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger  # an extra: what needs no ledger works without it

T = TypeVar("T")

_log = logging.getLogger("ducto_redis.manager")

Policy: TypeAlias = Literal["strict_prepaid", "overdraft"]
BillingMode: TypeAlias = Literal["strict", "overdraft"]
OnLeaseExpiry: TypeAlias = Literal["release", "charge"]
Durability: TypeAlias = Literal["fast", "ledger"]

_MODES: dict[str, BillingMode] = {"strict_prepaid": "strict", "overdraft": "overdraft"}
# How often a call is priced again before it is given up: documents can be activated in quick succession, not for ever.
_ASKED_AGAIN = 5


class SharedOptions(TypedDict, total=False):
    """Settings of a manager, see `ManagerBase`."""

    policy: Policy
    overdraft_floor: Amount | None
    default_ttl_seconds: float
    on_lease_expiry: OnLeaseExpiry
    owner: str | None
    outbox_limit: int


class ManagerOptions(SharedOptions, total=False):
    """Settings of a manager that is made from URLs."""

    engine: PricingEngine | None


class CoreOptions(SharedOptions, total=False):
    """Settings of a manager that is given a store and an engine."""

    ledger: "Ledger | None"


class ManagerBase:
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

    @property
    def closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._closed

    async def open(self) -> None:
        """Connect, and create the namespace if this is its first use; every other method does so when it must.

        Raises:
            RecoveryNeededError: if the ledger knows the namespace and Redis does not: it lost its memory.
            PartitionMismatchError, StoreUnavailableError
        """
        self._check_open()
        if self._opened:
            return
        await self._in_thread(self._ledger_access.prepare)
        if await self.store.read_namespace() is NamespaceState.MISSING:
            await self._check_ledger_is_empty()
            await self.store.create_namespace()
            _log.info(
                "namespace %r was created, without any account%s",
                self.store.namespace.name,
                "" if self._ledger_access.exists else "; no ledger could tell whether it had been there before",
            )
        await self._in_thread(self._ledger_access.start)
        self._check_open()
        self._opened = True

    async def _ready(self) -> None:
        if not self._opened or self._closed:
            await self.open()

    def _check_open(self) -> None:
        # Again after each wait: a link that is used after it was closed would connect anew.
        if self._closed:
            raise StoreError("the manager is closed; make a new one")

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

    async def _price(self, usages: Sequence[UsageMetrics], amount: int) -> tuple[Price, Pricing | None]:
        if not usages:
            return Price(amount), await self.pricing.active_or_none()
        pricing = await self.pricing.active()
        return Price(total_micro(pricing, usages), pricing.version, pricing.activation), pricing

    async def _with_active_price(
        self,
        usages: Sequence[UsageMetrics],
        amount: int,
        key: str,
        attempt: Callable[[Price, Pricing | None], Awaitable[T]],
    ) -> T:
        try:
            for _ in range(_ASKED_AGAIN):
                price, pricing = await self._price(usages, amount)
                self._check_open()
                try:
                    return await attempt(price, pricing)
                except StalePricing:
                    await self.pricing.refresh()
        except StoreUnavailableError as error:
            add_key(error, key)
            raise
        raise StoreError("the pricing document was activated anew each time that the call was priced; try again")


def add_key(error: StoreUnavailableError, key: str) -> None:
    """Say under which key it is safe to ask again, also where it was the price that could not be had."""
    if error.operation_key is None:
        error.operation_key = key


def total_micro(pricing: Pricing, usages: Sequence[UsageMetrics]) -> int:
    """What usages cost together, in micro-credits."""
    if len(usages) == 1:
        return pricing.engine.total_micro(usages[0])
    return pricing.engine.total_micro_of(usages)
