"""The blocking face of the manager, for threads."""

from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack
from weakref import ref

from ducto_redis.driving import drive
from ducto_redis.engine.keys import DEFAULT_PARTITIONS
from ducto_redis.engine.link import DEFAULT_TIMEOUT_SECONDS
from ducto_redis.errors import ConfigError
from ducto_redis.manager.background import Background, Planned
from ducto_redis.manager.base import BillingMode, CoreOptions, ManagerOptions
from ducto_redis.manager.core import ManagerCore, charge_for
from ducto_redis.manager.ledger_access import ledger_for
from ducto_redis.manager.meter import DEFAULT_TTL_SECONDS, Meter
from ducto_redis.manager.outbox import PendingCharge, PendingWork
from ducto_redis.manager.requests import UsageOrAmount
from ducto_redis.pricing import PricingEngine
from ducto_redis.results import BilledResult
from ducto_redis.store.contract import CreditStore
from ducto_redis.store.script_store import DEFAULT_JOURNAL_LIMIT
from ducto_redis.store.urls import store_from_url

T = TypeVar("T")
P = ParamSpec("P")

_OUTBOX_WAIT_SECONDS = 0.5


def _blocking(
    method: Callable[Concatenate[ManagerCore, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[CreditManager, P], T]":
    def call(self: "CreditManager", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return drive(method(self.core, *args, **kwargs))

    call.__name__ = method.__name__
    call.__qualname__ = f"CreditManager.{method.__name__}"
    call.__doc__ = method.__doc__
    return call


class CreditManager:
    """Prices, holds and charges, for threads, which may share one. A forked child makes its own connections.

    Takes what `AsyncCreditManager` takes; its methods are the same, without `await`.

    >>> with CreditManager.from_url("memory://") as manager:
    ...     _ = manager.add_credits("u1", 100)
    ...     manager.deduct("u1", "0.5").balance_after
    Decimal('99.500000')
    """

    def __init__(self, store: CreditStore, engine: PricingEngine | None = None, **options: Unpack[CoreOptions]) -> None:
        if not store.blocking:
            raise ConfigError("this store needs an event loop: use AsyncCreditManager, or make it with blocking=True")
        self.core = _Core(self, store, engine, **options)
        self._background = Background("ducto-redis-manager")
        self._flush: Planned | None = None

    @classmethod
    def from_url(
        cls,
        redis_url: str,
        ledger_url: str | None = None,
        *,
        namespace: str = "ducto",
        partitions: int = DEFAULT_PARTITIONS,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        journal_limit: int = DEFAULT_JOURNAL_LIMIT,
        **options: Unpack[ManagerOptions],
    ) -> "CreditManager":
        """A manager on the store that a URL names; the arguments are those of `AsyncCreditManager.from_url`."""
        store = store_from_url(
            redis_url,
            namespace=namespace,
            partitions=partitions,
            blocking=True,
            timeout_seconds=timeout_seconds,
            journal_limit=journal_limit,
        )
        return cls(store, ledger=ledger_for(redis_url, ledger_url), **options)

    open = _blocking(ManagerCore.open)
    add_credits = _blocking(ManagerCore.add_credits)
    get_balance = _blocking(ManagerCore.get_balance)
    get_available = _blocking(ManagerCore.get_available)
    can_afford = _blocking(ManagerCore.can_afford)
    price = _blocking(ManagerCore.price)
    calculate = _blocking(ManagerCore.calculate)
    reserve = _blocking(ManagerCore.reserve)
    settle = _blocking(ManagerCore.settle)
    release = _blocking(ManagerCore.release)
    renew = _blocking(ManagerCore.renew)
    extend = _blocking(ManagerCore.extend)
    list_leases = _blocking(ManagerCore.list_leases)
    deduct = _blocking(ManagerCore.deduct)
    deduct_fixed = _blocking(ManagerCore.deduct_fixed)
    sweep = _blocking(ManagerCore.sweep)
    publish_pricing = _blocking(ManagerCore.publish_pricing)
    load_pricing = _blocking(ManagerCore.load_pricing)
    pricing_history = _blocking(ManagerCore.pricing_history)
    get_pricing = _blocking(ManagerCore.get_pricing)
    activate_pricing = _blocking(ManagerCore.activate_pricing)
    wait_for_ledger = _blocking(ManagerCore.wait_for_ledger)

    @property
    def store(self) -> CreditStore:
        """Where the accounts are."""
        return self.core.store

    @property
    def pending(self) -> PendingWork:
        """What is still to be done."""
        return PendingWork(outbox=len(self.core.outbox))

    def close(self) -> None:
        """Send what waits in the outbox, and let go of connections."""
        self._background.stop()
        drive(self.core.close())

    def __enter__(self) -> "CreditManager":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def meter(
        self,
        account: str,
        estimate: UsageOrAmount,
        *,
        operation_type: str = "default",
        ttl: float = DEFAULT_TTL_SECONDS,
        lease_id: str | None = None,
        billing_mode: BillingMode | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Meter:
        """A context manager that holds the estimate and charges what was recorded in it, after an exception too.

        Args:
            account: who pays.
            estimate: the most that the work can consume, or credits.
            operation_type, lease_id, billing_mode, metadata: as for `reserve`.
            ttl: seconds; the lease is renewed at half of them for as long as the work runs.
        """
        return Meter(
            self,
            account,
            estimate,
            operation_type=operation_type,
            ttl=ttl,
            lease_id=lease_id,
            billing_mode=billing_mode,
            metadata=metadata,
        )

    def run_billed(
        self,
        account: str,
        estimate: UsageOrAmount,
        do_work: Callable[[], tuple[T, UsageOrAmount]],
        *,
        operation_type: str = "default",
        lease_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> BilledResult[T]:
        """Hold the estimate, do the work, charge what it says that it consumed. Work that raises is not charged.

        An engine that goes away meanwhile spoils no result: it is returned, and charged once the engine is back.

        Args:
            account: who pays.
            estimate: the most that the work can consume, or credits.
            do_work: returns its result, and what it consumed (usage, or credits).
            operation_type, lease_id, metadata: as for `reserve`.

        Raises:
            what `reserve` and the work raise, and what `settle` raises besides StoreError.
        """
        lease = self.reserve(account, estimate, operation_type=operation_type, lease_id=lease_id, metadata=metadata)
        try:
            result, consumed = do_work()
        except BaseException:
            drive(self.core.release_or_later(account, lease.lease_id))
            raise
        return BilledResult(result, drive(self.core.settle_or_later(charge_for(account, lease.lease_id, consumed))))

    def later(self, seconds: float, function: Callable[[], None]) -> Planned:
        """Call `function` in the manager's own thread after that many seconds."""
        return self._background.later(seconds, function)

    def flush_later(self) -> None:
        """Send what waits in the outbox, again and again, until all of it is sent."""
        if self._flush is None or self._flush.function is None:
            self._flush = self._background.later(_OUTBOX_WAIT_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None  # what is put from here on may come too late for this flush
        try:
            drive(self.core.outbox.flush(self.core.send_charge))
        finally:
            if len(self.core.outbox):
                self.flush_later()


class _Core(ManagerCore):
    def __init__(
        self,
        outer: CreditManager,
        store: CreditStore,
        engine: PricingEngine | None,
        **options: Unpack[CoreOptions],
    ) -> None:
        super().__init__(store, engine, **options)
        self._outer = ref(outer)

    def charge_later(self, charge: PendingCharge) -> None:
        super().charge_later(charge)
        outer = self._outer()
        if len(self.outbox) and outer is not None:
            outer.flush_later()
