"""Meters: hold the worst case of some work, add up its usage, and charge that at the end.

`MeterCore` holds the coroutines, `AsyncMeter` and `Meter` are its faces for event loops and for threads.
"""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import Any, Protocol, Unpack

from ducto_redis.engine.ids import new_id
from ducto_redis.errors import CreditError, StoreError, StoreUnavailableError
from ducto_redis.manager.arguments import UsageOrAmount, check_lease_id
from ducto_redis.manager.background import Planned
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.options import MeterOptions
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.tasks import TaskManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import ZERO, ReleaseResult, ReserveResult, SettleResult
from ducto_redis.run_sync import run_sync

DEFAULT_TTL_SECONDS = 120.0


class MeterCore:
    """One piece of metered work.

    Usage without a price raises when the meter closes; with `charges_hold` its whole hold is charged instead, for
    callers whose work is done and who have nobody to tell.

    Attributes:
        account: the account that pays.
        lease_id: the lease that holds the credits.
        lease: the result of `open`; None before.
        result: the result of `close`; None before, and if the charge waits for the engine.
    """

    def __init__(
        self,
        manager: ManagerCore,
        account: str,
        estimate: UsageOrAmount,
        *,
        charges_hold: bool = False,
        **options: Unpack[MeterOptions],
    ) -> None:
        lease_id = options.get("lease_id")
        self.account = account
        self.lease_id = new_id() if lease_id is None else check_lease_id(lease_id)
        self.lease: ReserveResult | None = None
        self.result: SettleResult | ReleaseResult | None = None
        self.ttl = options.setdefault("ttl", DEFAULT_TTL_SECONDS)
        self._core = manager
        self._estimate = estimate
        self._options = options
        self._may_be_asked_again = lease_id is not None
        self._charges_hold = charges_hold
        self._usages: list[UsageMetrics] = []
        self._flags: list[str] = []
        self._closed = False
        self._extended: Decimal | None = None

    @property
    def held(self) -> Decimal:
        """Credits that the lease holds; zero before it is open."""
        if self._extended is not None:
            return self._extended
        return ZERO if self.lease is None else self.lease.amount

    @property
    def recorded(self) -> tuple[UsageMetrics, ...]:
        """The usage recorded so far."""
        return tuple(self._usages)

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        return self._closed

    def record(self, usage: UsageMetrics, *flags: str) -> None:
        """Add usage to the charge.

        Args:
            usage: the usage.
            flags: marks of unusual usage, journalled with the charge.

        Raises:
            StoreError: if the meter is not open.
        """
        if self._closed:
            raise StoreError(f"the meter of lease {self.lease_id!r} is closed: it records nothing more")
        if self.lease is None:
            raise StoreError(f"the meter of lease {self.lease_id!r} is not open yet: open it first")
        self._usages.append(usage)
        self._flags.extend(flags)

    def forget(self) -> None:
        """Drop the usage recorded so far: without any other, the meter charges nothing when it closes."""
        self._usages.clear()
        self._flags.clear()

    async def open_core(self) -> ReserveResult:
        """Reserve the estimate, once. Raises StoreError if the meter is closed."""
        if self._closed:
            raise StoreError(f"the meter of lease {self.lease_id!r} is closed: make a new one")
        if self.lease is not None:
            return self.lease
        try:
            self._options["lease_id"] = self.lease_id
            lease = await self._core.reserve(self.account, self._estimate, **self._options)
        except StoreUnavailableError:
            if not self._may_be_asked_again:
                self._core.release_later(self.account, self.lease_id)
            raise
        if self._closed:
            await self._core.release_or_later(self.account, self.lease_id)
            raise StoreError(f"the meter of lease {self.lease_id!r} was closed while it opened")
        self.lease = lease
        return lease

    async def extend_core(self, estimate: UsageMetrics, *, beyond: UsageMetrics, key: str | None = None) -> None:
        """Add the difference between the prices of `estimate` and `beyond` to the hold.

        Args:
            estimate: the whole usage that the work may have.
            beyond: the part that is held already.
            key: makes it one extension, however often it is called.

        Raises:
            the errors of `manager.extend`.
        """
        result = await self._core.extend(self.account, self.lease_id, estimate, beyond=beyond, idempotency_key=key)
        self._extended = result.amount

    async def close_core(self) -> SettleResult | ReleaseResult | None:
        """Settle the usage recorded, or release the lease if there is none. An engine that is away is charged later."""
        if self._closed:
            return self.result
        self._closed = True
        if self.lease is None:
            return None
        if not self._usages:
            self.result = await self._core.release_or_later(self.account, self.lease_id)
        else:
            charge = PendingCharge(
                self.account,
                self.lease_id,
                tuple(self._usages),
                flags=tuple(self._flags),
                hold=f"{self.held:f}" if self._charges_hold else "",
            )
            self.result = await self._core.settle_or_later(charge, hold=self.held)
        return self.result

    async def renew_core(self) -> float | None:
        """Renew the lease. Return the seconds until the next renewal, None for never."""
        if self._closed or self._core.closed:
            return None
        try:
            await self._core.renew(self.account, self.lease_id, ttl=self.ttl)
        except StoreError:
            return self.ttl / 10  # early enough, should the engine be back soon
        except CreditError:
            return None
        return self.ttl / 2


class AsyncMeter(MeterCore):
    """A meter for event loops.

    >>> async def answer(manager: "AsyncCreditManager") -> None:
    ...     async with manager.meter("u1", estimate=UsageMetrics(model="gpt-4o", output_tokens=500)) as meter:
    ...         meter.record(UsageMetrics(model="gpt-4o", input_tokens=20, output_tokens=180))
    """

    _core: TaskManager
    _renews_in = 0.0
    _closing: "asyncio.Task[SettleResult | ReleaseResult | None] | None" = None

    async def open(self) -> ReserveResult:
        """Reserve the estimate; the lease is renewed until the meter closes. Raises the errors of `reserve`."""
        if self.lease is not None:
            return await self.open_core()
        try:
            lease = await self.open_core()
        except asyncio.CancelledError:
            if not self._may_be_asked_again:  # the engine may have opened the lease all the same
                self._core.settle_task(self._core.release_if_opened(self.account, self.lease_id))
            raise
        self._renew_in(self.ttl / 2)
        return lease

    async def close(self) -> SettleResult | ReleaseResult | None:
        """Settle the usage recorded, or release the lease if there is none.

        Returns:
            The result, or None if the engine is away and the charge waits.

        Raises:
            CreditError: the errors of `settle` and `release`, besides StoreUnavailableError.
        """
        self._core.renewals.discard(self, self._renews_in)
        if self._closing is None:
            self._closing = self._core.settle_task(self.close_core())
        # A cancelled caller must not take the charge with it.
        return await asyncio.shield(self._closing)

    def leave_open(self) -> None:
        """Close the meter and leave its lease open, for another to settle or release once the work ends."""
        self._core.renewals.discard(self, self._renews_in)
        self._closed = True

    async def close_in_task(self) -> SettleResult | ReleaseResult | None:
        """Do what `close` does, for a caller that runs in a task of the manager already."""
        if self._closing is not None:
            return await asyncio.shield(self._closing)
        self._core.renewals.discard(self, self._renews_in)
        return await self.close_core()

    async def extend(self, estimate: UsageMetrics, *, beyond: UsageMetrics, key: str | None = None) -> None:
        """Hold more while the work runs, see `extend_core`. Raises the errors of `manager.extend`."""
        await self.extend_core(estimate, beyond=beyond, key=key)

    async def __aenter__(self) -> "AsyncMeter":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _renew_in(self, seconds: float) -> None:
        self._renews_in = seconds
        self._core.renewals.add(self, seconds)

    async def renew(self) -> None:
        """Renew the lease, and plan the next renewal. The manager calls it when the lease is due."""
        seconds = await self.renew_core()
        if seconds is not None and not self._closed:
            self._renew_in(seconds)


class RunsLater(Protocol):
    """A manager for threads, as its meters need it."""

    @property
    def core(self) -> ManagerCore:
        """The coroutines that it runs."""

    def later(self, seconds: float, function: Callable[[], None]) -> Planned:
        """Call a function after that many seconds."""


class Meter(MeterCore):
    """A meter for threads.

    >>> def answer(manager: "CreditManager") -> None:
    ...     with manager.meter("u1", estimate=5) as meter:
    ...         meter.record(UsageMetrics(model="render", measures={"gpu_seconds": 3}))
    """

    def __init__(self, manager: RunsLater, account: str, estimate: UsageOrAmount, **options: Any) -> None:
        super().__init__(manager.core, account, estimate, **options)
        self._manager = manager
        self._renewal: Planned | None = None

    def open(self) -> ReserveResult:
        """Reserve the estimate; the lease is renewed until the meter closes. Raises the errors of `reserve`."""
        if self.lease is None:
            run_sync(self.open_core())
            self._renewal = self._manager.later(self.ttl / 2, self._renew)
        return run_sync(self.open_core())

    def close(self) -> SettleResult | ReleaseResult | None:
        """Settle the usage recorded, or release the lease if there is none.

        Returns:
            The result, or None if the engine is away and the charge waits.

        Raises:
            CreditError: the errors of `settle` and `release`, besides StoreUnavailableError.
        """
        if self._renewal is not None:
            self._renewal.cancel()
        return run_sync(self.close_core())

    def leave_open(self) -> None:
        """Close the meter and leave its lease open, for another to settle or release once the work ends."""
        if self._renewal is not None:
            self._renewal.cancel()
        self._closed = True

    def extend(self, estimate: UsageMetrics, *, beyond: UsageMetrics, key: str | None = None) -> None:
        """Hold more while the work runs, see `extend_core`. Raises the errors of `manager.extend`."""
        run_sync(self.extend_core(estimate, beyond=beyond, key=key))

    def __enter__(self) -> "Meter":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _renew(self) -> None:
        seconds = run_sync(self.renew_core())
        if seconds is not None and not self._closed:
            self._renewal = self._manager.later(seconds, self._renew)
