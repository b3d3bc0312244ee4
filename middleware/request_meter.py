"""`request.state.meter`: the meter of one request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from ducto_redis.errors import (
    CreditError,
    StoreError,
    StoreUnavailableError,
)
from ducto_redis.manager import AsyncCreditManager, AsyncMeter
from ducto_redis.manager.calls import PRICING_ERRORS
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.requests import UsageOrAmount, new_id, split
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.grace import Grace
from ducto_redis.money import to_micro
from ducto_redis.payer import Payer
from ducto_redis.results import ReleaseResult, ReserveResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

FindPayer: TypeAlias = Callable[[], Awaitable[Payer]]


class RequestMeter:
    """The meter of one request, at `request.state.meter`.

    In a metered route it is open: what the endpoint records itself, such as calls of tools, is charged beside what the
    answer reports. In any other route the endpoint opens it, and what it records is charged when its answer ends:

        async def render(request: Request) -> Response:
            meter = request.state.meter
            await meter.reserve(UsageMetrics(model="render", measures={"gpu_seconds": 30}))
            seconds = await run()
            meter.record(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
            return JSONResponse(...)

    Without anything recorded the hold is released.
    """

    def __init__(self, manager: AsyncCreditManager, find_payer: FindPayer, grace: Grace | None, ttl: float) -> None:
        self._manager = manager
        self._find_payer = find_payer
        self._grace = grace
        self._ttl = ttl
        self._lease_id = ""
        self._estimate: UsageOrAmount | None = None
        self._payer: Payer | None = None
        self._meter: AsyncMeter | None = None
        self._unpaid_micro: int | None = None
        self._unpaid_recorded: list[UsageMetrics] = []
        self._unpaid_flags: list[str] = []
        self._operation_type = "default"
        self._ended = False
        self._closed = False
        self._closing: asyncio.Task[SettleResult | ReleaseResult | None] | None = None

    async def find_payer(self) -> Payer:
        """Return who pays for the request; it is asked once. Raises NoAccountError where nobody does."""
        if self._payer is None:
            self._payer = await self._find_payer()
        return self._payer

    @property
    def opened(self) -> bool:
        """Whether it has been opened; it stays so after it closed."""
        return self._meter is not None or self.unpaid

    @property
    def unpaid(self) -> bool:
        """Whether the request was let pass while the engine was away, to be charged later."""
        return self._unpaid_micro is not None

    @property
    def lease(self) -> ReserveResult | None:
        """The hold, or None where none is open, or the request was let pass unpaid."""
        return None if self._meter is None else self._meter.lease

    @property
    def recorded(self) -> tuple[UsageMetrics, ...]:
        """What has been recorded so far."""
        return tuple(self._unpaid_recorded) if self._meter is None else tuple(self._meter.recorded)

    async def reserve(
        self,
        estimate: UsageOrAmount,
        *,
        operation_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ReserveResult | None:
        """Hold what `estimate` costs, for the request's payer.

        Args:
            estimate: the most that the work may use, or credits.
            operation_type: what the work is called; by default what the payer says, else "default".
            metadata: what else the journal is to keep.

        Returns:
            The lease, or None where the engine is away and the request was let pass.

        Raises:
            CreditError: as `manager.reserve`. One that the endpoint lets through becomes the answer.
            NoAccountError: where nobody pays for the request.
        """
        if self._ended:
            raise RuntimeError("the answer has ended: nothing more can be held for this request")
        if self._estimate is not None:
            raise RuntimeError("this request's meter is open already: record() adds to what it charges")
        self._estimate = estimate
        try:
            payer = await self.find_payer()
            self._operation_type = operation_type or payer.operation_type or "default"
            lease = await self._open(payer, estimate, metadata)
        except BaseException:
            self._estimate = None
            raise
        if self._ended:
            self._manager.settle_task(self.close_in_task())
            raise RuntimeError("the answer ended before its meter was open: await reserve() in the endpoint")
        return lease

    def record(self, usage: UsageMetrics, *flags: str) -> None:
        """Add usage to what is charged. Raises once the meter is closed, or where it was never opened."""
        if self._meter is not None:
            self._meter.record(usage, *flags)
        elif not self.unpaid:
            raise RuntimeError("nothing is held for this request: `await request.state.meter.reserve(...)` first")
        elif self._closed:
            raise RuntimeError("this request's meter is closed: its answer has ended")
        else:
            self._unpaid_recorded.append(usage)
            self._unpaid_flags.extend(flags)

    def record_estimate(self, *flags: str) -> None:
        """Record the worst case, where what was used can't be known."""
        if isinstance(self._estimate, UsageMetrics):
            self.record(self._estimate, *flags)

    def end(self) -> None:
        """The application is done with the request: a hold that nobody would close can't be opened any more."""
        self._ended = True

    async def close(self) -> SettleResult | ReleaseResult | None:
        """Charge what was recorded; release the hold where nothing was. The middleware does it when the answer ends.

        Returns:
            What happened, or None where the engine is away and the charge waits in the manager's queue.
        """
        if self._closing is None:
            self._closing = self._manager.settle_task(self._close())
        return await asyncio.shield(self._closing)

    async def close_in_task(self) -> SettleResult | ReleaseResult | None:
        """`close` for a caller that runs in a task of the manager already, which no cancellation of a request stops."""
        return await (self._close() if self._closing is None else asyncio.shield(self._closing))

    async def _close(self) -> SettleResult | ReleaseResult | None:
        if self._unpaid_micro is not None and not self._closed:
            self._charge_later(self._unpaid_micro)
        self._closed = True
        if self._meter is None:
            return None
        try:
            return await self._meter.close_in_task()
        except PRICING_ERRORS as error:
            return await self._charge_hold(self._meter, error)

    async def _open(
        self, payer: Payer, estimate: UsageOrAmount, metadata: Mapping[str, Any] | None
    ) -> ReserveResult | None:
        self._lease_id = new_id()
        meter = self._manager.meter(
            payer.account,
            estimate,
            operation_type=self._operation_type,
            ttl=self._ttl,
            member=payer.member,
            required_feature=payer.required_feature,
            lease_id=self._lease_id,
            metadata=metadata,
        )
        try:
            try:
                lease = await meter.open()
            except StoreUnavailableError:
                if await self._pass_unpaid(estimate):
                    return None
                raise
        except StoreUnavailableError:
            self._manager.release_later(payer.account, self._lease_id)
            raise
        except asyncio.CancelledError:
            # The engine may have opened the lease all the same.
            self._manager.settle_task(self._give_up(payer.account))
            raise
        self._meter = meter
        if self._grace is not None and lease.version:
            self._grace.pricing_version = lease.version
        return lease

    async def _pass_unpaid(self, estimate: UsageOrAmount) -> bool:
        grace = self._grace
        if grace is None:
            return False
        if isinstance(estimate, int | str | Decimal):
            worst = to_micro(estimate)
        else:
            # The manager keeps the documents that it has priced by: this asks no engine, unless it knows none.
            book, version = self._manager.pricing, grace.pricing_version
            pricing = await (book.version(version) if version else book.known())
            worst = pricing.total_micro(split(estimate)[0])
        if not grace.take(worst):
            return False
        self._unpaid_micro = worst
        logger.warning("the engine is away: request %s is let pass and charged later", self._lease_id)
        return True

    def _charge_later(self, unpaid_micro: int) -> None:
        assert self._payer is not None
        assert self._grace is not None
        if not self._unpaid_recorded:
            self._grace.give_back(unpaid_micro)
            # The engine may have opened the lease before it went away.
            self._manager.release_later(self._payer.account, self._lease_id)
            return
        self._grace.charge_waits(unpaid_micro)
        self._manager.deduct_later(
            self._payer.account,
            self._unpaid_recorded,
            self._lease_id,
            operation_type=self._operation_type,
            member=self._payer.member,
            flags=("unpaid", *self._unpaid_flags),
        )

    async def _give_up(self, account: str) -> None:
        try:
            await self._manager.release_or_later(account, self._lease_id)
        except CreditError as error:
            logger.info("lease %s of a cancelled request was not released: %s", self._lease_id, error)

    async def _charge_hold(self, meter: AsyncMeter, error: CreditError) -> SettleResult | ReleaseResult | None:
        # Work that was done and has no price must not be free: the hold is what its customer agreed to.
        lease = meter.lease
        assert lease is not None
        logger.error("lease %s is charged its whole hold, for its usage has no price: %s", lease.lease_id, error)
        charge = PendingCharge(lease.account, lease.lease_id, credits=f"{lease.amount:f}", flags=("hold_charged",))
        try:
            return await self._manager.send_charge(charge)
        except StoreError:
            self._manager.charge_later(charge)
            return None
