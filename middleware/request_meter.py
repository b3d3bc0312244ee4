"""`request.state.meter`: the meter of one request."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from starlette.types import Scope

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
from ducto_redis.middleware.payer import Account, payer_of, payer_of_account
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.money import to_micro
from ducto_redis.payer import Payer
from ducto_redis.results import ZERO, ReleaseResult, ReserveResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")


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
        account: Account,
        scope: Scope,
        grace: Grace | None,
        ttl: float,
        background_ttl: float,
        payer: Payer | None = None,
    ) -> None:
        self.payer = payer
        """The payer of the request; None before `find_payer`."""
        self.opened = False
        """Whether it has been opened; it stays so after it closed."""
        self.estimate: UsageOrAmount | None = None
        """The usage or the credits that are held; None before it is open."""
        self.flagged = False
        """Whether anything that was recorded is not as the answer reported it."""
        self.left_open = False
        """Whether the work goes on after its answer."""
        self.ended = False
        """Whether the application is done with the request: a hold that nobody would close can't be opened any more."""
        self.on_settled: Callable[[SettleResult | ReleaseResult | None], None] | None = None
        """Called with what happened when it closed; None where the charge waits."""
        self._manager = manager
        self._account = account
        self._scope: Scope | None = scope
        self._grace = grace
        self._ttl = ttl
        self._background_ttl = background_ttl
        self._goes_on: Charge | None = None
        self._lease_id = ""
        self._meter: AsyncMeter | None = None
        self._unpaid_micro: int | None = None
        self._unpaid_recorded: tuple[UsageMetrics, ...] = ()
        self._unpaid_flags: tuple[str, ...] = ()
        self._operation_type = "default"
        self._shared: tuple[str, Mapping[str, Any]] | None = None
        self._unpaid_steps_micro = 0
        self._closed = False
        self._closing: asyncio.Task[SettleResult | ReleaseResult | None] | None = None

    async def find_payer(self) -> Payer:
        """Return who pays for the request, which is asked once.

        Raises:
            NoAccountError: where nobody pays.
            ConfigError: where `account` returns something else.
        """
        if self.payer is None:
            assert self._scope is not None
            found = self._account(self._scope)
            if not isinstance(found, str | Payer) and inspect.isawaitable(found):
                found = await found
            self.payer = payer_of_account(found) if isinstance(found, str) else payer_of(found)
            self._scope = None  # the scope has the meter: of a circle only the garbage collector would free the memory
        return self.payer

    @property
    def unpaid(self) -> bool:
        """True where the request was let pass while the engine was away, to be charged later."""
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
    def recorded(self) -> tuple[UsageMetrics, ...]:
        """The usage recorded so far."""
        return self._unpaid_recorded if self._meter is None else self._meter.recorded

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
        if self.ended:
            raise RuntimeError("the answer has ended: nothing more can be held for this request")
        if self.estimate is not None:
            raise RuntimeError("this request's meter is open already: record() adds to what it charges")
        self.estimate = estimate
        lease: ReserveResult | None = None
        try:
            payer = self.payer or await self.find_payer()
            self._operation_type = operation_type or payer.operation_type or "default"
            self._lease_id, metadata = (new_id(), metadata) if self._shared is None else self._shared
            meter = AsyncMeter(
                self._manager,
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
                lease = await meter.open()
            except (StoreUnavailableError, asyncio.CancelledError) as error:
                await self._go_on_unpaid(payer, error, estimate if worst_case is None else worst_case)
            else:
                self._meter = meter
        except BaseException:
            self.estimate = None
            raise
        self.opened = True
        if lease is not None and self._grace is not None and lease.version:
            self._grace.pricing_version = lease.version
        if self.ended:
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
        self.estimate = estimate

    def pass_unpaid(self, micro: int) -> None:
        """Let the request go on while the engine is away, with so many micro-credits more than are held."""
        if self._grace is not None:
            self._grace.take_anyway(micro)
            self._unpaid_steps_micro += micro

    def steps_are_held(self) -> None:
        """Give back the grace of the request: all of it is held."""
        if self._grace is not None:
            self._grace.give_back(self._unpaid_steps_micro)
            self._unpaid_steps_micro = 0

    def record(self, usage: UsageMetrics, *flags: str) -> None:
        """Add usage to what is charged. Raises once the meter is closed, or where it was never opened."""
        if flags:
            self.flagged = True
        if self._meter is not None:
            self._meter.record(usage, *flags)
        elif not self.unpaid:
            raise RuntimeError("nothing is held for this request: `await request.state.meter.reserve(...)` first")
        elif self._closed:
            raise RuntimeError("this request's meter is closed: its answer has ended")
        else:
            self._unpaid_recorded += (usage,)
            self._unpaid_flags += flags

    def leave_open(self, charge: Charge) -> None:
        """Have the meter leave the hold, when it closes, to the call that sees the work finished."""
        self._goes_on = charge
        self.left_open = True

    async def close(self) -> SettleResult | ReleaseResult | None:
        """Charge what was recorded; release the hold where nothing was. The middleware does it when the answer ends.

        Returns:
            What happened, or None where the engine is away and the charge waits in the manager's queue.
        """
        if self._closing is None:
            self._closing = self._manager.settle_task(self._close())
        return await asyncio.shield(self._closing)

    def close_in_task(self) -> Awaitable[SettleResult | ReleaseResult | None]:
        """Close it, for a caller that runs in a task of the manager already, which outlives the request."""
        return self._close() if self._closing is None else asyncio.shield(self._closing)

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
        assert self.payer is not None
        return BackgroundJob.of(
            self.payer,
            self._lease_id,
            self.held,
            operation_type=self._operation_type,
            estimate=self.estimate if isinstance(self.estimate, UsageMetrics) else charge.usage,
            counted_input_tokens=charge.usage.input_tokens,
            recorded=self.recorded,
            flags=("unpaid", *self._unpaid_flags) if self.unpaid else (),
            leased=self._meter is not None,
        )

    async def _go_on_unpaid(self, payer: Payer, refused: BaseException, worst_case: UsageOrAmount) -> None:
        """Let the request pass though its lease was not opened, or raise why it was not and give the lease up."""
        shared = self._shared
        try:
            # A request inside a lease is never let pass: nobody could say later what that lease had left for it.
            may_pass = isinstance(refused, StoreUnavailableError) and shared is None and payer.parent is None
            if not (may_pass and await self._pass_unpaid(worst_case)):
                raise refused
        except (StoreUnavailableError, asyncio.CancelledError) as error:
            if shared is None and isinstance(error, StoreUnavailableError):
                self._manager.release_later(payer.account, self._lease_id)
            else:  # the engine may have opened the lease all the same
                self._manager.settle_task(self._give_up(payer.account, self._lease_id, shared))
            raise

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
        assert self.payer is not None
        assert self._grace is not None
        if not self._unpaid_recorded:
            self._grace.give_back(unpaid_micro)
            # The engine may have opened the lease before it went away.
            self._manager.release_later(self.payer.account, self._lease_id)
            return
        self._grace.charge_waits(unpaid_micro)
        self._manager.deduct_later(
            self.payer.account,
            self._unpaid_recorded,
            self._lease_id,
            operation_type=self._operation_type,
            member=self.payer.member,
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
