"""Prices and conditions of calls to the engine, and the answers to its questions.

The engine knows which plan an account has, which document is active and how a lease was priced. Only this side knows
what plans and documents mean and cost. So both work as follows:

1. A call names the plan and the document that it was priced under: those that this process knows or, of an account that
   it knows nothing of, guesses (the account may be new).
2. An engine that knows better changes nothing and raises a question: `StalePricing` (another document is active),
   `TermsNeeded` (the account has this plan: what does it mean now?) or `RepriceLease` (the lease was priced so).
3. The repricer takes the question in, the call is priced anew and made again, at most 20 times. No caller notices.

Every priced call is therefore an `Attempt` in this loop; `conditioned` is the loop of the calls without a price:

    while True:
        try:
            price, floor, conditions = await repricer.for_account(attempt)
            return await store.deduct(attempt.account, price, key, floor=floor, conditions=conditions, cause=cause)
        except ANSWERED as error:
            await repricer.answer(attempt, error)
"""

from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import TypeVar

from msgspec import Struct

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
from ducto_redis.manager.limits import Limits, features_of, has_feature
from ducto_redis.manager.plan_terms import terms_of
from ducto_redis.manager.pricing_book import Pricing, PricingBook
from ducto_redis.manager.team_lookup import UNKNOWN, explained
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing.plans import BillingMode, Plan
from ducto_redis.results import AccountDescription
from ducto_redis.store.contract import CreditStore

T = TypeVar("T")

PRICING_ERRORS = (ExpressionError, InvalidAmountError, InvalidUsageError, UnpricedModelError)
"""The errors of usage that has no price."""

ANSWERED = (
    RepriceLease,
    StalePricing,
    TermsNeeded,
    StoreUnavailableError,
    *UNKNOWN,
)
"""The errors that `Repricer.answer` takes: the engine's questions, and errors that it has more to say of."""

# Documents and plans can change in quick succession, but not for ever.
_MOST_TIMES = 20
_ASKED_TOO_OFTEN = "the pricing document or the account's plan changed each time that the call was made; try again"
_ACCOUNTS_KEPT = 50_000
_LIMITS_KEPT = 1_000
# No document has this version, so that the engine names the lease's own.
_LEASES_OWN = Price(0, version=-1)
_UNPRICED = Price(0)


class Attempt(Struct):
    """A call that is made until the engine takes it: its price, the caller's wishes, and the engine's questions so far.

    Attributes:
        account: the account that pays.
        usages: the usages to price; if there are none, `amount` is the price.
        amount: micro-credits.
        key: the idempotency key or lease id with which it is safe to repeat the call, for errors; "" for none.
        operation_type: the kind of work.
        billing_mode: `strict` or `overdraft`, instead of the plan's or the manager's.
        member: the member of a team who spends; "" for nobody in particular.
        required_feature: a feature that the account's plan must have.
        parent: the lease that a new one is opened inside of; "" for none.
        beyond: usages whose price is taken off.
        skip_allowance: leaves the allowance alone.
        opens_lease: counts towards `max_concurrent`.
        charges: may take the balance to a low-balance level.
        terms: the engine's question for the terms of a plan.
        lease: the engine's word on how the lease, or the parent, was priced.
        times: how often the engine has asked.
    """

    account: str
    usages: Sequence[UsageMetrics] = ()
    amount: int = 0
    key: str = ""
    operation_type: str = "default"
    billing_mode: BillingMode | None = None
    member: str = ""
    required_feature: str | None = None
    parent: str = ""
    beyond: Sequence[UsageMetrics] = ()
    skip_allowance: bool = False
    opens_lease: bool = False
    charges: bool = False
    terms: TermsNeeded | None = None
    lease: RepriceLease | None = None
    times: int = 0


class AccountBook:
    """The plans of the accounts that the engine asked about, which only saves a question. Threads may share it.

    Args:
        limit: how many accounts it keeps; of more, those that it learned of first are forgotten.
    """

    def __init__(self, limit: int = _ACCOUNTS_KEPT) -> None:
        self._limit = limit
        self._plans: dict[str, str] = {}
        self._lock = Lock()
        self.plan_of: Callable[[str], str | None] = self._plans.get
        """Returns an account's plan, "" for none; None if the engine never asked about the account."""

    def learn(self, account: str, plan: str) -> None:
        """Keep the plan that the engine named."""
        with self._lock:
            if account not in self._plans and len(self._plans) >= self._limit:
                del self._plans[next(iter(self._plans))]
            self._plans[account] = plan


class Repricer:
    """Prices calls under the conditions of their accounts, and answers the engine's questions.

    Args:
        store: the engine.
        pricing: the documents.
        limits: the manager's own.
        low_levels: micro-credits; a charge that takes a balance to one or below says so.
        check_open: raises once the manager is closed.
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
        self._limits_under: tuple[Pricing | None, dict[object, tuple[Plan | None, int, int | None]]] = (None, {})

    async def for_account(self, attempt: Attempt) -> tuple[Price, int, Conditions]:
        """Return the price under the account's plan, the floor in micro-credits, and the conditions.

        Inside another lease that has prices of its own, those count.

        Raises:
            PRICING_ERRORS, PricingNotLoadedError, FeatureNotEntitledError, StoreError
        """
        active = self._pricing.fresh()
        if active is None:
            active = await self._ask_for_pricing(attempt)
        known = self._accounts.plan_of(attempt.account)
        plan_id = ("" if active is None else active.opening.plan) if known is None else known
        under, limits = self._limits_under
        if under is not active:
            self._limits_under = active, limits = active, {}
        found = limits.get((plan_id, attempt.operation_type, attempt.billing_mode))
        plan, floor, max_concurrent = found or self._find_limits(active, plan_id, attempt, limits)
        if active is None or not attempt.usages:
            price, priced_by = Price(attempt.amount), None
        else:
            lease = attempt.lease
            pricing = await self._version(lease.version) if lease is not None and lease.version else active
            price, priced_by = _account_price(pricing, plan_id, attempt)
        conditions = PLAIN
        if known is not None or attempt.terms is not None or not self._is_plain(active, attempt):
            conditions = self._conditions(attempt, active, plan_id, price, priced_by, max_concurrent)
        feature = attempt.required_feature
        if feature is not None and not has_feature(plan, feature):
            if await self._confirmed_plan(attempt.account) == plan_id:
                raise FeatureNotEntitledError(
                    attempt.account, feature, plan=plan_id or None, features=features_of(plan)
                )
            self._count(attempt)
            return await self.for_account(attempt)
        return price, floor, conditions

    async def for_lease(self, attempt: Attempt) -> tuple[Price, Conditions]:
        """Return the price as the attempt's lease was priced when it opened, and the conditions.

        Only the engine knows under which document and plan that was: the active document and the account's plan are
        tried first. The floor is the lease's own.

        Raises:
            PRICING_ERRORS, PricingNotLoadedError, StoreError: for usage that the lease's own document does not price.
        """
        active = self._pricing.fresh()
        if active is None:
            active = await self._ask_for_pricing(attempt)
        known = self._accounts.plan_of(attempt.account)
        plan_id = ("" if active is None else active.opening.plan) if known is None else known
        lease = attempt.lease
        plain = known is None and attempt.terms is None and lease is None and self._is_plain(active, attempt)
        if active is None or not attempt.usages:
            price, priced_by = Price(attempt.amount), None
        elif lease is None and not (plain or attempt.charges):
            # A larger hold names the account's plan, so the engine could not see that the lease has another.
            price, priced_by = _LEASES_OWN, None
        else:
            pricing = await self._version(lease.version) if lease is not None and lease.version else active
            price, priced_by = _lease_price(pricing, plan_id if lease is None else lease.plan, attempt)
        if plain:
            return price, PLAIN
        named = lease.plan if lease is not None and attempt.charges else plan_id
        return price, self._conditions(attempt, active, named, price, priced_by)

    async def conditioned(
        self,
        account: str,
        call: Callable[[Conditions], Awaitable[T]],
        *,
        plan: str | None = None,
        member: str = "",
    ) -> T:
        """Make a call that has no price.

        Args:
            account: the account whose conditions they are.
            call: the call.
            plan: the plan that the call assigns, "" for none: the terms are those of this plan, and once it is done the
                account is known to have it.
            member: a member of the team, if one is meant.

        Raises:
            the errors of the call.
        """
        attempt = Attempt(account, member=member)
        while True:
            active = await self._pricing.active_or_none()
            known = self._accounts.plan_of(account) if plan is None else plan
            conditions = PLAIN
            if known is not None or attempt.terms is not None or not self._is_plain(active, attempt):
                opening = "" if active is None else active.opening.plan
                plan_id = opening if known is None else known
                conditions = self._conditions(attempt, active, plan_id, _UNPRICED, None)
            self._check_open()
            try:
                result = await call(conditions)
            except (StalePricing, TermsNeeded) as question:
                await self._take_in(attempt, question, learn=plan is None)
            else:
                if plan is not None:
                    self._accounts.learn(account, plan)
                return result

    async def answer(self, attempt: Attempt, error: Exception) -> None:
        """Take in the engine's question, so that the call can be made again. Raise any other error, told in full.

        Raises:
            StoreError: if the engine has asked too often.
            StoreUnavailableError: with the key that it is safe to repeat the call with.
            TeamNotFoundError, MemberNotFoundError: with what the account is instead, or who its members are.
        """
        try:
            if isinstance(error, UNKNOWN):
                raise await explained(error, self.describe) from None
            await self._take_in(attempt, error)
        except StoreUnavailableError as unavailable:
            if unavailable.operation_key is None:
                unavailable.operation_key = attempt.key
            raise

    async def price_micro(self, account: str, usages: Sequence[UsageMetrics]) -> int:
        """Return what usages cost an account, in micro-credits, by the prices and the plan that this process knows.

        Raises:
            PRICING_ERRORS, PricingNotLoadedError
        """
        pricing = await self._pricing.known()
        plan_id = self._accounts.plan_of(account)
        return pricing.total_micro(usages, pricing.opening.plan if plan_id is None else plan_id)

    async def describe(self, account: str) -> AccountDescription:
        """Return all that the account is. Raises what `CreditStore.describe` raises, besides questions."""
        return await self.conditioned(account, lambda conditions: self._store.describe(account, conditions=conditions))

    async def _ask_for_pricing(self, attempt: Attempt) -> Pricing | None:
        active = await (self._pricing.active() if attempt.usages else self._pricing.active_or_none())
        self._check_open()
        return active

    async def _version(self, version: int) -> Pricing:
        pricing = await self._pricing.version(version)
        self._check_open()
        return pricing

    def _find_limits(
        self,
        active: Pricing | None,
        plan_id: str,
        attempt: Attempt,
        limits: dict[object, tuple[Plan | None, int, int | None]],
    ) -> tuple[Plan | None, int, int | None]:
        """Return the plan of a document, the floor and `max_concurrent` under it, and keep them in `limits`."""
        plan = None if active is None else active.plan(plan_id)
        operation_type, billing_mode = attempt.operation_type, attempt.billing_mode
        floor = self._limits.floor(active, plan, operation_type, billing_mode)
        found = plan, floor, self._limits.concurrent(plan, operation_type)
        if len(limits) >= _LIMITS_KEPT:
            limits.clear()
        limits[plan_id, operation_type, billing_mode] = found
        return found

    def _is_plain(self, active: Pricing | None, attempt: Attempt) -> bool:
        """Return whether a call for an account that nothing is known of needs no conditions."""
        return (active is None or active.opening is PLAIN) and not (
            attempt.member
            or attempt.parent
            or (attempt.charges and self._low_levels)
            or (attempt.opens_lease and self._limits.max_concurrent is not None)
        )

    def _conditions(
        self,
        attempt: Attempt,
        active: Pricing | None,
        plan_id: str,
        price: Price,
        priced_by: Pricing | None,
        max_concurrent: int | None = None,
    ) -> Conditions:
        """Return the conditions of a call.

        Args:
            attempt: the call.
            active: the active pricing.
            plan_id: the plan that the call names.
            price, priced_by: the price of the usages, and the pricing that it comes from.
            max_concurrent: how many leases may be open, if the call opens one.
        """
        opening = PLAIN if active is None else active.opening
        return Conditions(
            opens=opening.opens,
            bonus=opening.bonus,
            activation=0 if active is None else active.activation,
            plan=plan_id,
            terms=None if attempt.terms is None else terms_of(active, plan_id, attempt.terms),
            member=attempt.member,
            models=() if priced_by is None else priced_by.models(attempt.usages, plan_id, price.amount),
            max_concurrent=max_concurrent if attempt.opens_lease else None,
            low_levels=self._low_levels if attempt.charges else (),
            skip_allowance=attempt.skip_allowance,
            parent=attempt.parent,
        )

    async def _take_in(self, attempt: Attempt, question: Exception, *, learn: bool = True) -> None:
        """Learn what the engine said, or raise what is no question of its."""
        match question:
            case TermsNeeded():
                attempt.terms = question
                # A plan that is yet to be assigned is that of a new account, and every call guesses it.
                if learn and (question.assigned_ms or not question.plan):
                    self._accounts.learn(attempt.account, question.plan)
            case StalePricing():
                await self._pricing.refresh()
            case RepriceLease():
                attempt.lease = question
            case _:
                raise question
        self._count(attempt)

    def _count(self, attempt: Attempt) -> None:
        attempt.times += 1
        if attempt.times >= _MOST_TIMES:
            raise StoreError(_ASKED_TOO_OFTEN) from None
        self._check_open()

    async def _confirmed_plan(self, account: str) -> str:
        """Return the account's plan as the engine says: this process may know an old one, and must refuse nothing."""
        plan = (await self.describe(account)).plan
        known = self._accounts.plan_of(account)
        if known is None:
            active = await self._pricing.active_or_none()
            known = "" if active is None else active.opening.plan
        if plan != known:
            self._accounts.learn(account, plan)
        return plan


def _account_price(pricing: Pricing, plan_id: str, attempt: Attempt) -> tuple[Price, Pricing | None]:
    """Return the price of usages under an account's plan, and its pricing; None if only the engine knows that yet."""
    usages, lease = attempt.usages, attempt.lease
    if lease is not None and lease.version:  # inside a lease with prices of its own
        return Price(pricing.total_micro(usages, lease.plan), pricing.version), pricing
    try:
        return Price(pricing.total_micro(usages, plan_id), pricing.version, pricing.activation), pricing
    except PRICING_ERRORS:
        if not attempt.parent or lease is not None:
            raise
        return _LEASES_OWN, None  # the parent's document may price it


def _lease_price(pricing: Pricing, plan_id: str, attempt: Attempt) -> tuple[Price, Pricing | None]:
    """Return the price of usages under the plan of an open lease, and its pricing, as `_account_price` does."""
    try:
        total = pricing.total_micro(attempt.usages, plan_id)
        if attempt.beyond:
            total = max(0, total - pricing.total_micro(attempt.beyond, plan_id))
        return Price(total, pricing.version), pricing
    except PRICING_ERRORS:
        if attempt.lease is not None:
            raise
        return _LEASES_OWN, None  # the active document prices it no more; the lease's own may
