"""Calls to the engine: what they cost, under which conditions, and what to do when the engine asks.

The engine knows which plan an account has, this side what that plan means and costs. So every call says which plan and
document it was made under; where they are not the account's, the engine changes nothing and asks, and the call is made
again. No caller ever sees that.
"""

from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import TypeVar

from ducto_redis.engine.operation import PLAIN, Conditions, Price
from ducto_redis.errors import (
    ExpressionError,
    FeatureNotEntitledError,
    InvalidAmountError,
    InvalidUsageError,
    RepriceLease,
    StalePricing,
    StoreError,
    StoreUnavailableError,
    TermsNeeded,
    UnpricedModelError,
)
from ducto_redis.manager.arguments import ORDINARY, Request
from ducto_redis.manager.limits import Limits, features_of, has_feature
from ducto_redis.manager.plan_terms import terms_of
from ducto_redis.manager.pricing_book import Pricing, PricingBook
from ducto_redis.manager.team_lookup import UNKNOWN, explained
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import AccountDescription
from ducto_redis.store.contract import CreditStore

T = TypeVar("T")

PRICING_ERRORS = (ExpressionError, InvalidAmountError, InvalidUsageError, UnpricedModelError)
"""What says that usage has no price."""

# How often a call is made again: documents and plans can change in quick succession, but not for ever.
_TIMES = 20
_ACCOUNTS_KEPT = 50_000
_ASKED_TOO_OFTEN = "the pricing document or the account's plan changed each time that the call was made; try again"
# The version that no document has: the engine answers with the lease's own.
_WHICH_VERSION = Price(0, version=-1)


class AccountBook:
    """The plans of the accounts that the engine asked about, which only saves a question. Threads may share it.

    Args:
        limit: how many accounts it keeps; of more, those that it learned of first are forgotten.
    """

    def __init__(self, limit: int = _ACCOUNTS_KEPT) -> None:
        self._limit = limit
        self._plans: dict[str, str] = {}
        self._lock = Lock()

    def plan_of(self, account: str) -> str | None:
        """Return the account's plan, "" for none; None if the engine never asked about the account."""
        return self._plans.get(account)

    def learn(self, account: str, plan: str) -> None:
        """Keep the plan that the engine named."""
        with self._lock:
            if account not in self._plans and len(self._plans) >= self._limit:
                del self._plans[next(iter(self._plans))]
            self._plans[account] = plan


class Repricer:
    """Makes calls under the conditions of their accounts.

    Args:
        store: the engine.
        pricing: the documents.
        limits: the manager's own.
        low_levels: micro-credits; a charge that takes a balance to one or below says so.
        check_open: raises where the manager was closed meanwhile.
    """

    def __init__(
        self,
        store: CreditStore,
        pricing: PricingBook,
        limits: Limits,
        low_levels: tuple[int, ...],
        check_open: Callable[[], None],
    ) -> None:
        self._store = store
        self._pricing = pricing
        self._limits = limits
        self._low_levels = low_levels
        self._check_open = check_open
        self._accounts = AccountBook()

    async def priced(
        self,
        account: str,
        usages: Sequence[UsageMetrics],
        amount: int,
        request: Request,
        key: str,
        attempt: Callable[[Price, int, Conditions], Awaitable[T]],
    ) -> T:
        """Price under the account's plan, and attempt. Inside another lease that has prices of its own, at those.

        Args:
            account: who pays.
            usages: what is to be priced; where there are none, `amount` is the price.
            amount: micro-credits.
            request: what else the caller asks for.
            key: what it is safe to repeat the call with, for errors.
            attempt: the call, with price, floor and conditions.

        Raises:
            PRICING_ERRORS, PricingNotLoadedError, FeatureNotEntitledError, StoreError, and what the attempt raises.
        """
        asked: TermsNeeded | None = None
        parent: RepriceLease | None = None
        try:
            for _ in range(_TIMES):
                pricing = await (self._pricing.active() if usages else self._pricing.active_or_none())
                known = self._accounts.plan_of(account)
                plan_id = _guess(pricing) if known is None else known
                plan = pricing.plan(plan_id) if plan_id and pricing is not None else None
                floor = self._limits.floor(pricing, plan, request.operation_type, request.billing_mode)
                priced_by = pricing
                if pricing is None or not usages:
                    price = Price(amount)
                elif parent is not None and parent.version:
                    priced_by = await self._pricing.version(parent.version)
                    price = Price(priced_by.total_micro(usages, parent.plan), priced_by.version)
                else:
                    try:
                        price = Price(pricing.total_micro(usages, plan_id), pricing.version, pricing.activation)
                    except PRICING_ERRORS:
                        if not request.parent or parent is not None:
                            raise
                        price = _WHICH_VERSION
                conditions = PLAIN
                if known is not None or asked is not None or not self._plain(pricing, request):
                    priced = () if price is _WHICH_VERSION else usages
                    conditions = self._conditions(pricing, plan_id, asked, request, priced_by, priced, price.amount)
                feature = request.required_feature
                if feature is not None and not has_feature(plan, feature):
                    if await self._confirmed_plan(account) == plan_id:
                        raise FeatureNotEntitledError(
                            account, feature, plan=plan_id or None, features=features_of(plan)
                        )
                    continue
                self._check_open()
                try:
                    return await attempt(price, floor, conditions)
                except RepriceLease as reprice:
                    parent = reprice
                except StalePricing:
                    await self._pricing.refresh()
                except TermsNeeded as needed:
                    asked = self._learn(account, needed)
        except StoreUnavailableError as error:
            add_key(error, key)
            raise
        except UNKNOWN as refused:
            raise await explained(refused, self.describe) from None
        raise StoreError(_ASKED_TOO_OFTEN)

    async def price_micro(self, account: str, usages: Sequence[UsageMetrics]) -> int:
        """What usages cost an account, in micro-credits, by what this process knows of prices and of its plan.

        Raises:
            PRICING_ERRORS, PricingNotLoadedError
        """
        pricing = await self._pricing.known()
        plan_id = self._accounts.plan_of(account)
        return pricing.total_micro(usages, _guess(pricing) if plan_id is None else plan_id)

    async def conditioned(
        self,
        account: str,
        attempt: Callable[[Conditions], Awaitable[T]],
        *,
        plan: str | None = None,
        member: str = "",
    ) -> T:
        """Attempt what has no price.

        Args:
            account: whose conditions they are.
            attempt: the call.
            plan: that the call assigns, "" for none: the terms are those of this plan, and once it is done the account
                is known to have it.
            member: who is meant, of a team.

        Raises:
            what the attempt raises.
        """
        asked: TermsNeeded | None = None
        request = ORDINARY if not member else Request(member=member)
        for _ in range(_TIMES):
            pricing = await self._pricing.active_or_none()
            known = self._accounts.plan_of(account) if plan is None else plan
            conditions = PLAIN
            if known is not None or asked is not None or not self._plain(pricing, request):
                conditions = self._conditions(pricing, _guess(pricing) if known is None else known, asked, request)
            self._check_open()
            try:
                result = await attempt(conditions)
            except StalePricing:
                await self._pricing.refresh()
            except TermsNeeded as needed:
                asked = needed if plan is not None else self._learn(account, needed)
            else:
                if plan is not None:
                    self._accounts.learn(account, plan)
                return result
        raise StoreError(_ASKED_TOO_OFTEN)

    async def describe(self, account: str) -> AccountDescription:
        """All that the account is. Raises what `CreditStore.describe` raises, besides questions."""
        return await self.conditioned(account, lambda conditions: self._store.describe(account, conditions=conditions))

    async def priced_as_lease(
        self,
        account: str,
        usages: Sequence[UsageMetrics],
        amount: int,
        request: Request,
        key: str,
        attempt: Callable[[Price, Conditions], Awaitable[T]],
        *,
        beyond: Sequence[UsageMetrics] = (),
    ) -> T:
        """Price as a lease was priced when it opened, and attempt.

        Which document and plan that was only the engine knows; the active one and the account's plan are tried first.

        Args:
            account, usages, amount, request, key: as for `priced`.
            beyond: usages whose price is taken off.
            attempt: the call, with price and conditions; the floor is the lease's.

        Raises:
            those of `priced`, for what the lease's own document does not price.
        """
        asked: TermsNeeded | None = None
        lease: RepriceLease | None = None
        try:
            for _ in range(_TIMES):
                active = await (self._pricing.active() if usages else self._pricing.active_or_none())
                known = self._accounts.plan_of(account)
                own_plan = _guess(active) if known is None else known
                plain = known is None and asked is None and lease is None and self._plain(active, request)
                pricing, plan_id = active, own_plan
                if lease is not None:
                    plan_id = lease.plan
                    if lease.version:
                        pricing = await self._pricing.version(lease.version)
                if lease is None and usages and not (plain or request.charges):
                    # A larger hold names the account's plan, so the engine could not see that the lease has another.
                    price = _WHICH_VERSION
                else:
                    price = _price_of_lease(pricing, plan_id, usages, amount, beyond, guessed=lease is None)
                conditions = PLAIN
                if not plain:
                    named = plan_id if request.charges else own_plan
                    priced = () if price is _WHICH_VERSION else usages
                    conditions = self._conditions(active, named, asked, request, pricing, priced, price.amount)
                self._check_open()
                try:
                    return await attempt(price, conditions)
                except RepriceLease as reprice:
                    lease = reprice
                except StalePricing:
                    await self._pricing.refresh()
                except TermsNeeded as needed:
                    asked = self._learn(account, needed)
        except StoreUnavailableError as error:
            add_key(error, key)
            raise
        except UNKNOWN as refused:
            raise await explained(refused, self.describe) from None
        raise StoreError(_ASKED_TOO_OFTEN)

    def _plain(self, pricing: Pricing | None, request: Request) -> bool:
        """Whether a call for an account that nothing is known of needs no conditions."""
        return (pricing is None or pricing.opening is PLAIN) and not (
            request.member
            or request.parent
            or (request.charges and self._low_levels)
            or (request.opens_lease and self._limits.max_concurrent is not None)
        )

    def _conditions(
        self,
        active: Pricing | None,
        plan_id: str,
        asked: TermsNeeded | None,
        request: Request,
        pricing: Pricing | None = None,
        usages: Sequence[UsageMetrics] = (),
        total: int = 0,
    ) -> Conditions:
        """The conditions of a call.

        Args:
            active: the active pricing.
            plan_id: the plan that the call names.
            asked: what the engine asked for.
            request: what the caller asked for.
            pricing, usages, total: what was priced, by which document, and the price.
        """
        opening = PLAIN if active is None else active.opening
        max_concurrent = None
        if request.opens_lease:
            plan = None if active is None else active.plan(plan_id)
            max_concurrent = self._limits.concurrent(plan, request.operation_type)
        return Conditions(
            opens=opening.opens,
            bonus=opening.bonus,
            activation=0 if active is None else active.activation,
            plan=plan_id,
            terms=None if asked is None else terms_of(active, plan_id, asked),
            member=request.member,
            models=() if pricing is None or not usages else pricing.models(usages, plan_id, total),
            max_concurrent=max_concurrent,
            low_levels=self._low_levels if request.charges else (),
            skip_allowance=request.skip_allowance,
            parent=request.parent,
        )

    def _learn(self, account: str, needed: TermsNeeded) -> TermsNeeded:
        # A plan that is yet to be assigned is that of a new account, and every call guesses it.
        if needed.assigned_ms or not needed.plan:
            self._accounts.learn(account, needed.plan)
        return needed

    async def _confirmed_plan(self, account: str) -> str:
        """The account's plan, as the engine says: what this process knows may be old, and must refuse nothing."""
        plan = (await self.describe(account)).plan
        known = self._accounts.plan_of(account)
        if plan != (_guess(await self._pricing.active_or_none()) if known is None else known):
            self._accounts.learn(account, plan)
        return plan


def _guess(pricing: Pricing | None) -> str:
    """The plan of an account that nothing is known of: it may be new."""
    return "" if pricing is None else pricing.opening.plan


def _price_of_lease(
    pricing: Pricing | None,
    plan_id: str,
    usages: Sequence[UsageMetrics],
    amount: int,
    beyond: Sequence[UsageMetrics],
    *,
    guessed: bool,
) -> Price:
    if pricing is None or not usages:
        return Price(amount)
    try:
        total = pricing.total_micro(usages, plan_id)
        if beyond:
            total = max(0, total - pricing.total_micro(beyond, plan_id))
        return Price(total, pricing.version)
    except PRICING_ERRORS:
        if guessed:
            return _WHICH_VERSION  # the active document prices it no more; the lease's own may
        raise


def add_key(error: StoreUnavailableError, key: str) -> None:
    """Say under which key it is safe to ask again, also where it was the price that could not be had."""
    if error.operation_key is None:
        error.operation_key = key
