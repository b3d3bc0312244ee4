"""The blocking face of the manager, for threads."""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload
from weakref import ref

from ducto_redis.deprecation import renamed_method
from ducto_redis.errors import ConfigError
from ducto_redis.events.handlers import EventHandler, Handlers
from ducto_redis.manager.arguments import UsageOrAmount
from ducto_redis.manager.background import Background, Planned
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.decorating import MeteredWork
from ducto_redis.manager.deferred import charge_for
from ducto_redis.manager.events import EventCounts
from ducto_redis.manager.ledger_access import ledger_for
from ducto_redis.manager.meter import Meter
from ducto_redis.manager.options import CoreOptions, MeteredOptions, MeterOptions, UrlOptions, divide
from ducto_redis.manager.outbox import PendingCharge, PendingWork
from ducto_redis.manager.values import keep_by_old_name
from ducto_redis.pricing import PricingEngine
from ducto_redis.results import BilledResult
from ducto_redis.run_sync import run_sync
from ducto_redis.store.contract import CreditStore
from ducto_redis.store.urls import store_from_url

T = TypeVar("T")
P = ParamSpec("P")
H = TypeVar("H", bound=EventHandler)

_OUTBOX_WAIT_SECONDS = 0.5


def _blocking(
    method: Callable[Concatenate[ManagerCore, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[CreditManager, P], T]":
    def call(self: "CreditManager", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run_sync(method(self.core, *args, **kwargs))

    call.__name__ = method.__name__
    call.__qualname__ = f"CreditManager.{method.__name__}"
    call.__doc__ = method.__doc__
    return call


class CreditManager:
    """Prices, holds and charges, for threads, which may share one. A forked child makes its own connections.

    Its arguments and methods are those of `AsyncCreditManager`, without `await`.

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
    def from_url(cls, redis_url: str, ledger_url: str | None = None, **options: Unpack[UrlOptions]) -> "CreditManager":
        """Return a manager on the store that a URL names. Nothing is connected yet.

        Args:
            redis_url: redis://, rediss://, unix://, embedded:///path or memory://.
            ledger_url: sqlite:///path or postgresql://...; memory:// and embedded:// have a ledger without it.
            options: settings of the store (namespace, partitions, timeout_seconds, journal_limit; see `StoreOptions`)
                and of the manager (see `ManagerBase`).

        Raises:
            ConfigError: if a URL or a setting is wrong, or an extra is not installed.
        """
        of_store, of_manager = divide(options)
        store = store_from_url(redis_url, blocking=True, **of_store)
        return cls(store, ledger=ledger_for(redis_url, ledger_url), **of_manager)

    open = _blocking(ManagerCore.open)
    add_credits = _blocking(ManagerCore.add_credits)
    get_balance = _blocking(ManagerCore.get_balance)
    get_available = _blocking(ManagerCore.get_available)
    describe = _blocking(ManagerCore.describe)
    list_grants = _blocking(ManagerCore.list_grants)
    can_afford = _blocking(ManagerCore.can_afford)
    check_affordable = _blocking(ManagerCore.check_affordable)
    price_micro = _blocking(ManagerCore.price_micro)
    price = _blocking(ManagerCore.price)
    calculate = _blocking(ManagerCore.calculate)
    reserve = _blocking(ManagerCore.reserve)
    settle = _blocking(ManagerCore.settle)
    release = _blocking(ManagerCore.release)
    renew = _blocking(ManagerCore.renew)
    extend = _blocking(ManagerCore.extend)
    list_leases = _blocking(ManagerCore.list_leases)
    find_lease = _blocking(ManagerCore.find_lease)
    deduct = _blocking(ManagerCore.deduct)
    deduct_fixed = _blocking(ManagerCore.deduct_fixed)
    sweep = _blocking(ManagerCore.sweep)
    sweep_expired_credits = _blocking(ManagerCore.sweep_expired_credits)
    set_user_plan = _blocking(ManagerCore.set_user_plan)
    unset_user_plan = _blocking(ManagerCore.unset_user_plan)
    get_user_plan = _blocking(ManagerCore.get_user_plan)
    check_allowance = _blocking(ManagerCore.check_allowance)
    check_feature = _blocking(ManagerCore.check_feature)
    set_spend_cap = _blocking(ManagerCore.set_spend_cap)
    remove_spend_cap = _blocking(ManagerCore.remove_spend_cap)
    check_spend_cap = _blocking(ManagerCore.check_spend_cap)
    raise_spend_cap = _blocking(ManagerCore.raise_spend_cap)
    clear_spend_cap = _blocking(ManagerCore.clear_spend_cap)
    create_team = _blocking(ManagerCore.create_team)
    get_team = _blocking(ManagerCore.get_team)
    add_team_member = _blocking(ManagerCore.add_team_member)
    set_team_role = _blocking(ManagerCore.set_team_role)
    remove_team_member = _blocking(ManagerCore.remove_team_member)
    deduct_team = _blocking(ManagerCore.deduct_team)
    deduct_personal_then_team = _blocking(ManagerCore.deduct_personal_then_team)
    refund_credits = _blocking(ManagerCore.refund_credits)
    adjust_credits = _blocking(ManagerCore.adjust_credits)
    freeze = _blocking(ManagerCore.freeze)
    unfreeze = _blocking(ManagerCore.unfreeze)
    publish_pricing = _blocking(ManagerCore.publish_pricing)
    load_pricing = _blocking(ManagerCore.load_pricing)
    pricing_history = _blocking(ManagerCore.pricing_history)
    get_pricing = _blocking(ManagerCore.get_pricing)
    activate_pricing = _blocking(ManagerCore.activate_pricing)
    spend_by_user = _blocking(ManagerCore.spend_by_user)
    top_users = _blocking(ManagerCore.top_users)
    spend_by_model = _blocking(ManagerCore.spend_by_model)
    spend_by_member = _blocking(ManagerCore.spend_by_member)
    daily_spend = _blocking(ManagerCore.daily_spend)
    aggregate_stats = _blocking(ManagerCore.aggregate_stats)
    list_user_transactions = _blocking(ManagerCore.list_user_transactions)
    usage = _blocking(ManagerCore.usage)
    anomalies = _blocking(ManagerCore.anomalies)
    put_value = _blocking(ManagerCore.put_value)
    get_value = _blocking(ManagerCore.get_value)
    keep = keep_by_old_name
    kept = renamed_method("kept", "get_value")
    wait_for_ledger = _blocking(ManagerCore.wait_for_ledger)
    explain = _blocking(ManagerCore.explain)
    explain_balance = _blocking(ManagerCore.explain_balance)
    replay_pricing = _blocking(ManagerCore.replay_pricing)

    @property
    def store(self) -> CreditStore:
        """The store of the accounts."""
        return self.core.store

    @property
    def handlers(self) -> Handlers:
        """The handlers of this process."""
        return self.core.handlers

    @property
    def event_counts(self) -> EventCounts:
        """The counts of events that were told, dropped or failed."""
        return self.core.event_counts

    @property
    def signals(self) -> bool | None:
        """The rule for telling refusals to other processes: None, while one listens; True, always; False, never."""
        return self.core.signals

    @signals.setter
    def signals(self, signals: bool | None) -> None:
        self.core.signals = signals

    @overload
    def on(self, event_type: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event_type: str, handler: H) -> H: ...
    def on(self, event_type: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Register a handler of the events of a type that this manager brings about; see `AsyncCreditManager.on`.

        The handler is a plain function: there is no event loop to run a coroutine.
        """
        return self.core.on(event_type) if handler is None else self.core.on(event_type, handler)

    def off(self, event_type: str, handler: EventHandler) -> bool:
        """Unregister a handler. Return True if it was registered."""
        return self.core.off(event_type, handler)

    @property
    def pending(self) -> PendingWork:
        """The work that is still to be done."""
        return PendingWork(outbox=len(self.core.outbox))

    def close(self) -> None:
        """Send the charges that wait in the outbox, and close the connections."""
        self._background.stop()
        run_sync(self.core.close())

    def __enter__(self) -> "CreditManager":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def meter(self, account: str, estimate: UsageOrAmount, **options: Unpack[MeterOptions]) -> Meter:
        """Return a context manager that holds the estimate and charges the usage recorded, even after an exception.

        Args:
            account: the account that pays.
            estimate: the most that the work can consume, or credits.
            options: as for `reserve`. The lease is renewed at half of `ttl`, 120 seconds by default, for as long as the
                work runs.
        """
        return Meter(self, account, estimate, **options)

    def metered(self, **options: Unpack[MeteredOptions]) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator for functions that hold credits while they run and charge their usage.

        A function records its usage with `current_meter().record(...)`, or `usage_of` reads it from its result. With a
        `lease_id`, which names the job by its arguments, a job that is begun more than once, as by a queue that
        delivers twice, is charged once.

            @manager.metered(account=lambda user, pages: user, estimate=lambda user, pages: Decimal(2) * pages)
            def render(user, pages): ...

        Args:
            options: `account` and `estimate`, and others; `MeteredOptions` describes them.

        Raises:
            ConfigError: if an option is wrong, or the function is of another kind.
        """
        work = MeteredWork(**options)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            return work.decorate(self, function)

        return decorate

    def run_billed(
        self,
        account: str,
        estimate: UsageOrAmount,
        do_work: Callable[[], tuple[T, UsageOrAmount]],
        **options: Unpack[MeterOptions],
    ) -> BilledResult[T]:
        """Hold the estimate, do the work, and charge the usage that it returns. Work that raises is not charged.

        If the engine goes away meanwhile, the result is still returned; it is charged once the engine is back.

        Args:
            account: the account that pays.
            estimate: the most that the work can consume, or credits.
            do_work: returns its result, and the usage that it consumed, or credits.
            options: as for `reserve`.

        Raises:
            the errors of `reserve` and of the work, and those of `settle` besides StoreError.
        """
        lease = self.reserve(account, estimate, **options)
        try:
            result, consumed = do_work()
        except BaseException:
            run_sync(self.core.release_or_later(account, lease.lease_id))
            raise
        return BilledResult(result, run_sync(self.core.settle_or_later(charge_for(account, lease.lease_id, consumed))))

    def later(self, seconds: float, function: Callable[[], None], *, before_stop: bool = False) -> Planned:
        """Call `function` in the manager's own thread after that many seconds."""
        return self._background.later(seconds, function, before_stop=before_stop)

    def flush_later(self) -> None:
        """Send the charges that wait in the outbox, again and again, until all are sent."""
        if self._flush is None or self._flush.function is None:
            self._flush = self._background.later(_OUTBOX_WAIT_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None  # a charge that comes from here on may be too late for this flush
        try:
            run_sync(self.core.outbox.flush(self.core.send_charge))
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

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        outer = self._outer()
        if outer is not None:
            outer.later(0, lambda: run_sync(work()), before_stop=True)
