"""`request.state.meter`: the meter of one request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from ducto_redis.engine.ids import new_id
from ducto_redis.errors import (
    CreditError,
    LeaseClosedError,
    StoreError,
    StoreUnavailableError,
)
from ducto_redis.manager import AsyncCreditManager, AsyncMeter
from ducto_redis.manager.arguments import UsageOrAmount, encode_metadata, split
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.repricing import PRICING_ERRORS
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.background import BackgroundJob, leave_open
from ducto_redis.middleware.grace import Grace
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.money import to_micro
from ducto_redis.payer import Payer
from ducto_redis.results import ZERO, ReleaseResult, ReserveResult, SettleResult

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

    def __init__(
        self,
        manager: AsyncCreditManager,
        find_payer: FindPayer,
        grace: Grace | None,
        ttl: float,
        background_ttl: float = 3600,
    ) -> None:
        self._manager = manager
        self._find_payer = find_payer
        self._grace = grace
        self._ttl = ttl
        self._background_ttl = background_ttl
        self._goes_on: Charge | None = None
        self._lease_id = ""
        self._estimate: UsageOrAmount | None = None
        self._worst_case: UsageOrAmount | None = None
        self._payer: Payer | None = None
        self._meter: AsyncMeter | None = None
        self._unpaid_micro: int | None = None
        self._unpaid_recorded: list[UsageMetrics] = []
        self._unpaid_flags: list[str] = []
        self._operation_type = "default"
        self._flagged = False
        self._shared: tuple[str, Mapping[str, Any]] | None = None
        self._unpaid_steps_micro = 0
        self._ended = False
        self._closed = False
        self.on_settled: Callable[[SettleResult | ReleaseResult | None], None] | None = None
        """Called with what happened when it closed; None where the charge waits."""
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
    def held(self) -> Decimal:
        """Credits that are held for the request."""
        return ZERO if self._meter is None else self._meter.held

    @property
    def estimate(self) -> UsageOrAmount | None:
        """The usage or the credits that are held; None before it is open."""
        return self._estimate

    @property
    def flagged(self) -> bool:
        """Whether anything that was recorded is not as the answer reported it."""
        return self._flagged

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
        worst_case: UsageOrAmount | None = None,
    ) -> ReserveResult | None:
        """Hold what `estimate` costs, for the request's payer.

        Args:
            estimate: the most that the work may use, or credits.
            operation_type: what the work is called; by default what the payer says, else "default".
            metadata: what else the journal is to keep.
            worst_case: the most that the work may use, where less of it is held; it counts where the engine is away.

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
        self._worst_case = estimate if worst_case is None else worst_case
        try:
            payer = await self.find_payer()
            self._operation_type = operation_type or payer.operation_type or "default"
            lease = await self._open(payer, estimate, metadata, self._worst_case)
        except BaseException:
            self._estimate = None
            raise
        if self._ended:
            self._manager.settle_task(self.close_in_task())
            raise RuntimeError("the answer ended before its meter was open: await reserve() in the endpoint")
        return lease

    def share_lease(self, lease_id: str, metadata: Mapping[str, Any]) -> None:
        """Have `reserve` open the lease of this id, which other requests try to open as well.

        The metadata tells it from theirs. Without the engine nobody can say who comes first: such a request is never
        let pass unpaid.
        """
        self._shared = lease_id, metadata

    async def extend(self, estimate: UsageMetrics, *, beyond: UsageMetrics, key: str) -> None:
        """Hold what `estimate` costs more than `beyond`, which is held already; once for each key.

        Raises:
            CreditError: as `manager.extend`.
        """
        if self._meter is None:
            raise RuntimeError("nothing is held for this request that could be extended")
        if self._closed:
            raise LeaseClosedError(self._meter.account, self._lease_id, "settled")
        await self._meter.extend(estimate, beyond=beyond, key=key)
        self._estimate = estimate

    def pass_unpaid(self, micro: int) -> None:
        """The request goes on while the engine is away, and may use so many micro-credits more than are held."""
        if self._grace is not None:
            self._grace.take_anyway(micro)
            self._unpaid_steps_micro += micro

    def steps_are_held(self) -> None:
        """What the request was let pass with is held."""
        if self._grace is not None:
            self._grace.give_back(self._unpaid_steps_micro)
            self._unpaid_steps_micro = 0

    def record(self, usage: UsageMetrics, *flags: str) -> None:
        """Add usage to what is charged. Raises once the meter is closed, or where it was never opened."""
        self._flagged = self._flagged or bool(flags)
        if self._meter is not None:
            self._meter.record(usage, *flags)
        elif not self.unpaid:
            raise RuntimeError("nothing is held for this request: `await request.state.meter.reserve(...)` first")
        elif self._closed:
            raise RuntimeError("this request's meter is closed: its answer has ended")
        else:
            self._unpaid_recorded.append(usage)
            self._unpaid_flags.extend(flags)

    def leave_open(self, charge: Charge) -> None:
        """The work goes on after its answer: to close is to leave the hold to whoever sees the work finished."""
        self._goes_on = charge

    @property
    def left_open(self) -> bool:
        """Whether the work goes on after its answer."""
        return self._goes_on is not None

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
        if self._goes_on is not None:
            await self._leave_to_others(self._goes_on)
            return None
        if self._unpaid_micro is not None and not self._closed:
            self._charge_later(self._unpaid_micro)
        self._closed = True
        if self._meter is None:
            return None
        try:
            result = await self._meter.close_in_task()
        except PRICING_ERRORS as error:
            self.steps_are_held()
            return await self._charge_hold(self._meter, error)
        except CreditError:
            self.steps_are_held()
            raise
        if self._unpaid_steps_micro and self._grace is not None:
            if result is None:
                self._grace.charge_waits(self._unpaid_steps_micro)
            else:
                self._grace.give_back(self._unpaid_steps_micro)
            self._unpaid_steps_micro = 0
        if self.on_settled is not None:
            self.on_settled(result)
        return result

    async def remember(self, charge: Charge) -> None:
        """Remember work that may go on, while its answer still comes: this process may be killed before its end."""
        if self._meter is not None and not self._closed:
            await leave_open(self._manager, charge.later, self._work(charge), self._background_ttl)

    async def _leave_to_others(self, charge: Charge) -> None:
        if self._closed:
            return
        self._closed = True
        work = self._work(charge)
        if self._meter is not None:
            self._meter.leave_open()
        if self._unpaid_micro is not None and self._grace is not None:
            self._grace.give_back(self._unpaid_micro)
        self.steps_are_held()
        await leave_open(self._manager, charge.later, work, self._background_ttl)

    def _work(self, charge: Charge) -> BackgroundJob:
        assert self._payer is not None
        return BackgroundJob.of(
            self._payer,
            self._lease_id,
            self.held,
            operation_type=self._operation_type,
            estimate=self._estimate if isinstance(self._estimate, UsageMetrics) else charge.usage,
            counted_input_tokens=charge.usage.input_tokens,
            recorded=self.recorded,
            flags=("unpaid", *self._unpaid_flags) if self.unpaid else (),
            leased=self._meter is not None,
        )

    async def _open(
        self, payer: Payer, estimate: UsageOrAmount, metadata: Mapping[str, Any] | None, worst_case: UsageOrAmount
    ) -> ReserveResult | None:
        shared = self._shared
        self._lease_id, metadata = (new_id(), metadata) if shared is None else shared
        meter = self._manager.meter(
            payer.account,
            estimate,
            operation_type=self._operation_type,
            ttl=self._ttl,
            member=payer.member,
            required_feature=payer.required_feature,
            lease_id=self._lease_id,
            parent=payer.parent,
            metadata=metadata,
        )
        try:
            try:
                lease = await meter.open()
            except StoreUnavailableError:
                # What is inside a lease is never let pass: nobody could say later what that one had left for it.
                if shared is None and payer.parent is None and await self._pass_unpaid(worst_case):
                    return None
                raise
        except StoreUnavailableError:
            if shared is None:
                self._manager.release_later(payer.account, self._lease_id)
            else:
                self._manager.settle_task(self._give_up(payer.account, self._lease_id, shared))
            raise
        except asyncio.CancelledError:
            # The engine may have opened the lease all the same.
            self._manager.settle_task(self._give_up(payer.account, self._lease_id, shared))
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

    async def _give_up(self, account: str, lease_id: str, shared: tuple[str, Mapping[str, Any]] | None) -> None:
        """Release a lease that may have been opened; one that others may have opened only if it is this request's."""
        try:
            if shared is not None:
                lease = await self._manager.find_lease(account, lease_id)
                if lease is None or lease.metadata != encode_metadata(shared[1]).decode():
                    return
            await self._manager.release_or_later(account, lease_id)
        except CreditError as error:
            logger.info("lease %s of a request that was given up was not released: %s", lease_id, error)

    async def _charge_hold(self, meter: AsyncMeter, error: CreditError) -> SettleResult | ReleaseResult | None:
        # Work that was done and has no price must not be free: the hold is what its customer agreed to.
        lease = meter.lease
        assert lease is not None
        logger.error("lease %s is charged its whole hold, for its usage has no price: %s", lease.lease_id, error)
        charge = PendingCharge(lease.account, lease.lease_id, credits=f"{meter.held:f}", flags=("hold_charged",))
        try:
            return await self._manager.send_charge(charge)
        except StoreError:
            self._manager.charge_later(charge)
            return None
