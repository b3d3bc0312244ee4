"""The manager of an event loop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, Unpack

from ducto_redis.events.handlers import EventHandler
from ducto_redis.events.types import CreditEvent
from ducto_redis.manager.arguments import Usage, UsageOrAmount
from ducto_redis.manager.decorating import MeteredWork
from ducto_redis.manager.deferred import charge_for
from ducto_redis.manager.events import HandlerQueue
from ducto_redis.manager.ledger_access import ledger_for
from ducto_redis.manager.meter import AsyncMeter
from ducto_redis.manager.options import MeteredOptions, MeterOptions, UrlOptions, divide
from ducto_redis.manager.outbox import PendingCharge, PendingWork
from ducto_redis.manager.tasks import TaskManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import BilledResult
from ducto_redis.store.urls import store_from_url

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("ducto_redis.manager")

_CLOSE_SECONDS = 10.0
_OUTBOX_FIRST_WAIT_SECONDS = 0.1
_OUTBOX_LONGEST_WAIT_SECONDS = 5.0


class AsyncCreditManager(TaskManager):
    """Prices, holds and charges, for event loops.

    >>> async def main() -> None:
    ...     async with AsyncCreditManager.from_url("memory://") as manager:
    ...         await manager.add_credits("u1", 100)
    ...         lease = await manager.reserve("u1", 10)
    ...         await manager.settle("u1", lease.lease_id, "7.5")
    """

    _runs_coroutines = True
    _flusher: asyncio.Task[None] | None = None
    _handling: asyncio.Task[None] | None = None

    @classmethod
    def from_url(
        cls, redis_url: str, ledger_url: str | None = None, **options: Unpack[UrlOptions]
    ) -> "AsyncCreditManager":
        """Return a manager on the store that a URL names. Nothing is connected yet, and no event loop is needed.

        Args:
            redis_url: redis://, rediss://, unix://, embedded:///path or memory://.
            ledger_url: sqlite:///path or postgresql://...; memory:// and embedded:// have a ledger without it.
            options: settings of the store (namespace, partitions, timeout_seconds, journal_limit; see `StoreOptions`)
                and of the manager (see `ManagerBase`).

        Raises:
            ConfigError: if a URL or a setting is wrong, or an extra is not installed.
        """
        of_store, of_manager = divide(options)
        store = store_from_url(redis_url, **of_store)
        return cls(store, ledger=ledger_for(redis_url, ledger_url), **of_manager)

    async def close(self) -> None:
        """Wait for settles and coroutine handlers, send the charges that wait, and close the connections.

        It waits ten seconds at most.
        """
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        finally:
            if self._flusher is not None:
                self._flusher.cancel()
            await super().close()
            self.event_counts.dropped += self._handler_queue.close()

    async def __aenter__(self) -> "AsyncCreditManager":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open and close with an ASGI application: `Starlette(lifespan=manager.lifespan)`."""
        async with self:
            yield

    def meter(self, account: str, estimate: UsageOrAmount, **options: Unpack[MeterOptions]) -> AsyncMeter:
        """Return a context manager that holds the estimate and charges the usage recorded, even after an exception.

        Args:
            account: the account that pays.
            estimate: the most that the work can consume, or credits.
            options: as for `reserve`. The lease is renewed at half of `ttl`, 120 seconds by default, for as long as the
                work runs.
        """
        return AsyncMeter(self, account, estimate, **options)

    def metered(
        self, **options: Unpack[MeteredOptions]
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Return a decorator for coroutine functions that hold credits while they run and charge their usage.

        A function records its usage with `current_meter().record(...)`, or `usage_of` reads it from its result. With a
        `lease_id`, which names the job by its arguments, a job that is begun more than once, as by a queue that
        delivers twice, is charged once.

            @manager.metered(account=lambda user, pages: user, estimate=lambda user, pages: Decimal(2) * pages)
            async def render(user, pages): ...

        Args:
            options: `account` and `estimate`, and others; `MeteredOptions` describes them.

        Raises:
            ConfigError: if an option is wrong, or the function is of another kind.
        """
        work = MeteredWork(**options)

        def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            return work.decorate_async(self, function)

        return decorate

    async def run_billed(
        self,
        account: str,
        estimate: UsageOrAmount,
        do_work: Callable[[], Awaitable[tuple[T, UsageOrAmount]]],
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
        lease = await self.reserve(account, estimate, **options)
        try:
            result, consumed = await do_work()
        except BaseException:
            await asyncio.shield(self.settle_task(self.release_or_later(account, lease.lease_id)))
            raise
        charge = charge_for(account, lease.lease_id, consumed)
        return BilledResult(result, await asyncio.shield(self.settle_task(self.settle_or_later(charge))))

    @property
    def pending(self) -> PendingWork:
        """The work that is still to be done."""
        return PendingWork(outbox=len(self.outbox), tasks=len(self._tasks))

    def charge_later(self, charge: PendingCharge) -> None:
        super().charge_later(charge)
        loop, flusher = asyncio.get_running_loop(), self._flusher
        if len(self.outbox) and (flusher is None or flusher.done() or flusher.get_loop() is not loop):
            self._flusher = loop.create_task(self._flush())

    def deduct_later(
        self,
        account: str,
        usage: Usage,
        key: str,
        *,
        operation_type: str = "default",
        member: str | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Charge usage for which nothing could be held once the engine is back. The key makes it one charge."""
        usages = (usage,) if isinstance(usage, UsageMetrics) else tuple(usage)
        self.charge_later(
            PendingCharge(
                account,
                key,
                usages,
                lease=False,
                operation_type=operation_type,
                member=member or "",
                flags=tuple(flags),
            )
        )

    @cached_property
    def _handler_queue(self) -> HandlerQueue:
        return HandlerQueue()

    def _await_later(self, handler: EventHandler, event: CreditEvent, result: Awaitable[None]) -> None:
        if not self._handler_queue.put(handler, event, result):
            self.event_counts.dropped += 1
        loop, handling = asyncio.get_running_loop(), self._handling
        if handling is None or handling.done() or handling.get_loop() is not loop:
            self._handling = self.settle_task(self._handler_queue.run(self._handler_failed))

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.settle_task(work())

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)

    async def _flush(self) -> None:
        wait = _OUTBOX_FIRST_WAIT_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, _OUTBOX_LONGEST_WAIT_SECONDS)
            try:
                if await self.outbox.flush(self.send_charge):
                    return
            except Exception:
                _log.exception("sending what waits in the outbox failed; it is tried again")
