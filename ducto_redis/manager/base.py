"""The base of all parts of a manager: settings, opening and closing.

Every coroutine of a manager awaits the store, or `_in_thread`, and nothing else. Over a store that blocks, none of them
suspends, so that everything is written once for event loops and for threads.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ducto_redis.engine.ids import NAME_BYTES, check_id
from ducto_redis.engine.operation import Conditions
from ducto_redis.errors import (
    ConfigError,
    RecoveryNeededError,
    StoreError,
)
from ducto_redis.events.handlers import EventHandler
from ducto_redis.events.types import EventType
from ducto_redis.manager.arguments import check_max_concurrent, floor_to_micro, ttl_to_ms
from ducto_redis.manager.events import Events
from ducto_redis.manager.ledger_access import LedgerAccess
from ducto_redis.manager.limits import Limits
from ducto_redis.manager.options import OnLeaseExpiry, Policy, RefundExpired
from ducto_redis.manager.outbox import Outbox
from ducto_redis.manager.pricing_book import PricingBook
from ducto_redis.manager.repricing import Repricer
from ducto_redis.manager.team_lookup import UNKNOWN, explained
from ducto_redis.money import Amount, to_micro
from ducto_redis.pricing import PricingEngine
from ducto_redis.pricing.plans import BillingMode
from ducto_redis.results import AccountDescription, Lease
from ducto_redis.store.contract import CreditStore, NamespaceState

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger  # an extra: the rest works without it

T = TypeVar("T")

_log = logging.getLogger("ducto_redis.manager")

_MODES: dict[str, BillingMode] = {"strict_prepaid": "strict", "overdraft": "overdraft"}


class ManagerBase(Events):
    """Prices, holds and charges.

    Args:
        store: the store of the accounts.
        engine: prices everything; without it, the document that is active in the store does.
        ledger: the SQL ledger, for the methods that read it.
        policy: `strict_prepaid`, where no account goes below the document's `min_balance`, or `overdraft`. The plan of
            an account may say otherwise, and so may a call.
        overdraft_floor: credits, zero or below, to which accounts may go in overdraft if their plan does not say;
            zero by default.
        max_concurrent: the number of leases of one operation type that an account may have open if its plan does not
            say; any number by default.
        low_balance_thresholds: levels in credits. A charge that takes a balance to one or below reports it, once until
            credits come in.
        on_low_balance: called with each such event, see `on`.
        refund_expired: the place for refunded credits whose grant has expired meanwhile: `balance` or `nowhere`.
        default_ttl_seconds: seconds that a lease holds unless the call says otherwise.
        on_lease_expiry: `release` releases a lease that nobody closed in time; `charge` charges its hold.
        owner: the name of this process in lists of leases; host and process id by default.
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
        max_concurrent: int | None = None,
        low_balance_thresholds: Sequence[Amount] | None = None,
        on_low_balance: EventHandler | None = None,
        refund_expired: RefundExpired = "balance",
        default_ttl_seconds: float = 600,
        on_lease_expiry: OnLeaseExpiry = "release",
        owner: str | None = None,
        outbox_limit: int = 10_000,
    ) -> None:
        super().__init__()
        if policy not in _MODES:
            raise ConfigError(f"policy is 'strict_prepaid' or 'overdraft', not {policy!r:.40}")
        if on_lease_expiry not in ("release", "charge"):
            raise ConfigError(f"on_lease_expiry is 'release' or 'charge', not {on_lease_expiry!r:.40}")
        if refund_expired not in ("balance", "nowhere"):
            raise ConfigError(f"refund_expired is 'balance' or 'nowhere', not {refund_expired!r:.40}")
        self._default_ttl_ms = ttl_to_ms(default_ttl_seconds)
        self.store = store
        self.ledger = ledger
        self.pricing = PricingBook(store, engine)
        self.outbox = Outbox(outbox_limit)
        self.default_ttl_seconds = default_ttl_seconds
        self.owner = check_id(owner or f"{socket.gethostname()}:{os.getpid()}", "an owner", NAME_BYTES)
        limits = Limits(
            _MODES[policy],
            0 if overdraft_floor is None else floor_to_micro(overdraft_floor),
            check_max_concurrent(max_concurrent),
        )
        levels = {to_micro(level, zero=True) for level in low_balance_thresholds or ()}
        self._repricer = Repricer(store, self.pricing, limits, tuple(sorted(levels, reverse=True)), self._check_open)
        if on_low_balance is not None:
            self.on(EventType.LOW_BALANCE, on_low_balance)
        self._expired_refunds_to_balance = refund_expired == "balance"
        self._on_lease_expiry = on_lease_expiry
        self._ledger_access = LedgerAccess(store, ledger)
        self._usable = False  # opened, and not closed
        self._closed = False

    @property
    def closed(self) -> bool:
        """True once it is closed, for good."""
        return self._closed

    async def open(self) -> None:
        """Connect, and create the namespace if this is its first use. Every other method does so if necessary.

        Raises:
            RecoveryNeededError: if the ledger knows the namespace and Redis does not: Redis lost its data.
            PartitionMismatchError, StoreUnavailableError
        """
        self._check_open()
        if self._usable:
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
        self._usable = True

    async def _ready(self) -> None:
        if not self._usable:
            await self.open()

    def _check_open(self) -> None:
        # Checked again after each wait: a closed link that is used would connect anew.
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

    async def _conditioned(
        self,
        account: str,
        attempt: Callable[[Conditions], Awaitable[T]],
        *,
        plan: str | None = None,
        member: str = "",
    ) -> T:
        try:
            return await self._repricer.conditioned(account, attempt, plan=plan, member=member)
        except UNKNOWN as refused:
            raise await explained(refused, self._describe) from None

    async def _describe(self, account: str) -> AccountDescription:
        return await self._repricer.describe(account)

    async def _open_leases(self, account: str) -> list[Lease]:
        """Return the account's open leases, in no order. They may change meanwhile: each is listed once."""
        leases: dict[str, Lease] = {}
        cursor = 0
        while True:
            page = await self.store.list_leases(account, cursor=cursor)
            leases.update((lease.lease_id, lease) for lease in page.leases)
            cursor = page.cursor
            if not cursor:
                return list(leases.values())
