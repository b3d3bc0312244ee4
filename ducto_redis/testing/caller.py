"""A caller that knows a document: what a manager does about plans, in as little as the tests need."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from ducto_redis.engine.operation import Bounds, CapRule, Conditions, Price, Terms
from ducto_redis.errors import TermsNeeded
from ducto_redis.results import (
    AccountChange,
    AccountDescription,
    AddResult,
    AllowanceStatus,
    CapStatus,
    DeductResult,
    ExtendResult,
    ReserveResult,
    SettleResult,
)
from ducto_redis.store.contract import CreditStore
from ducto_redis.testing import calls
from ducto_redis.testing.calls import ACCOUNT, DAY_MS, HOUR_MS, MINUTE_MS

T = TypeVar("T")

WINDOWS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 30 * DAY_MS}
_ASKED_AT_MOST = 3


class Plan(NamedTuple):
    """A plan of a document."""

    allowance: int = 0
    rollover: int = 0
    period_ms: int = 30 * DAY_MS
    caps: tuple[CapRule, ...] = ()


class Document:
    """Plans, and what new accounts begin with.

    Its periods and windows have the lengths of `Plan` and `WINDOWS`, and begin a second before it is first asked: so no
    test depends on the time of day.
    """

    def __init__(
        self, plans: dict[str, Plan] | None = None, *, default: str = "", bonus: int = 0, activation: int = 1
    ) -> None:
        self.plans = plans or {}
        self.default = default
        self.bonus = bonus
        self.activation = activation
        self._begin_ms: int | None = None

    def next(self, plans: dict[str, Plan]) -> "Document":
        """Return the document that is activated after this one."""
        document = Document(plans, default=self.default, bonus=self.bonus, activation=self.activation + 1)
        document._begin_ms = self._begin_ms
        return document

    def conditions(self, plan: str, **others: Any) -> Conditions:
        """Return the conditions of a call that takes the account to have that plan."""
        opens = bool(self.default or self.bonus)
        return Conditions(opens=opens, bonus=self.bonus, activation=self.activation, plan=plan, **others)

    def terms(self, asked: TermsNeeded) -> Terms:
        """Return the plan's terms at the time of the question."""
        plan = self.plans.get(asked.plan, Plan())
        windows = {f"{cap.window}@{cap.time_zone}" for cap in plan.caps if not cap.rolling and cap.window != "total"}
        bounds = {
            name: self._bounds(WINDOWS[name.partition("@")[0]], asked.now_ms) for name in windows.union(asked.windows)
        }
        return Terms(
            asked.plan,
            self.activation,
            "UTC",
            plan.allowance,
            plan.rollover,
            self._bounds(plan.period_ms, asked.now_ms) if plan.allowance else None,
            plan.caps,
            tuple(bounds.items()),
        )

    def _bounds(self, length_ms: int, now_ms: int) -> Bounds:
        if self._begin_ms is None:
            self._begin_ms = now_ms - calls.SECOND_MS
        start_ms = now_ms - (now_ms - self._begin_ms) % length_ms
        return Bounds(start_ms, start_ms + length_ms)


class Caller:
    """Calls a store about one account, and answers where it is asked again.

    Attributes:
        store: what is called.
        document: what is known of plans.
        plan: what the account's plan is believed to be.
        asked: the questions so far.
    """

    def __init__(self, store: CreditStore, document: Document | None = None, *, account: str = ACCOUNT) -> None:
        self.store = store
        self.document = document or Document()
        self.account = account
        self.plan = self.document.default
        self.asked: list[TermsNeeded] = []

    def at(self, store: CreditStore) -> "Caller":
        """Return the same caller later: with a store whose clock is ahead."""
        later = Caller(store, self.document, account=self.account)
        later.plan = self.plan
        return later

    async def ask(self, call: Callable[[Conditions], Awaitable[T]], **others: Any) -> T:
        """Make a call, and make it again with the terms that are asked for."""
        conditions = self.document.conditions(self.plan, **others)
        for _ in range(_ASKED_AT_MOST):
            try:
                return await call(conditions)
            except TermsNeeded as asked:
                self.asked.append(asked)
                self.plan = asked.plan
                conditions = structs.replace(conditions, plan=asked.plan, terms=self.document.terms(asked))
        raise AssertionError(f"asked again and again: {self.asked[-1]}")

    async def add(self, amount: int, name: str = "a grant", **grant: Any) -> AddResult:
        """Add credits."""
        return await self.ask(lambda c: calls.add(self.store, amount, name, self.account, conditions=c, **grant))

    async def deduct(
        self, amount: int | Price, name: str = "a charge", *, floor: int = 0, **conditions: Any
    ) -> DeductResult:
        """Deduct credits."""
        return await self.ask(
            lambda c: calls.deduct(self.store, amount, name, floor=floor, account=self.account, conditions=c),
            **conditions,
        )

    async def reserve(
        self, lease_id: str, amount: int | Price, terms: Any = None, *, dry_run: bool = False, **conditions: Any
    ) -> ReserveResult:
        """Open a lease."""
        return await self.ask(
            lambda c: calls.reserve(self.store, lease_id, amount, terms, self.account, conditions=c, dry_run=dry_run),
            **conditions,
        )

    async def extend(self, lease_id: str, amount: int | Price, name: str = "more", **conditions: Any) -> ExtendResult:
        """Let a lease hold more."""
        return await self.ask(
            lambda c: calls.extend(self.store, lease_id, amount, name, account=self.account, conditions=c), **conditions
        )

    async def settle(self, lease_id: str, cost: int | Price, **conditions: Any) -> SettleResult:
        """Settle a lease, which never asks."""
        known = self.document.conditions(self.plan, **conditions)
        return await calls.settle(self.store, lease_id, cost, account=self.account, conditions=known)

    async def release(self, lease_id: str) -> None:
        """Release a lease."""
        await calls.release(self.store, lease_id, self.account)

    async def set_plan(self, plan: str, name: str | None = None, *, time_zone: str = "") -> AccountChange:
        """Assign a plan."""
        operation_key = calls.key(name or f"plan {plan}", plan)
        conditions = self.document.conditions(self.plan)
        try:
            changed = await self.store.set_plan(
                self.account, plan, time_zone, operation_key, conditions=conditions, cause=b""
            )
        except TermsNeeded as asked:
            self.asked.append(asked)
            conditions = structs.replace(conditions, plan=plan, terms=self.document.terms(asked))
            changed = await self.store.set_plan(
                self.account, plan, time_zone, operation_key, conditions=conditions, cause=b""
            )
        self.plan = plan
        return changed

    async def set_cap(
        self, window: str, limit: int, *, scope: str = "account", name: str = "", **rule: Any
    ) -> CapStatus:
        """Set a spend cap: what it is then."""
        new = CapRule(scope, window, limit, **rule)
        operation_key = calls.key(name or f"cap {new}")
        await self.ask(
            lambda c: self.store.set_cap(self.account, new, operation_key, conditions=c, cause=b""),
        )
        (cap,) = [
            cap
            for cap in (await self.describe()).caps
            if (cap.scope, cap.window, cap.action) == (scope, window, new.action)
            and (cap.rolling, cap.time_zone) == (new.rolling, new.time_zone)
            and cap.source == "own"
        ]
        return cap

    async def describe(self) -> AccountDescription:
        """Return all that the account is."""
        return await self.ask(lambda c: self.store.describe(self.account, conditions=c))

    async def cap(self, window: str, scope: str = "account") -> tuple[int, int]:
        """Return the use and the hold of the one cap of that scope and window."""
        (cap,) = [cap for cap in (await self.describe()).caps if (cap.scope, cap.window) == (scope, window)]
        return calls.micro(cap.used), calls.micro(cap.held)

    async def numbers(self) -> tuple[int, int, int]:
        """Balance, held and available."""
        return calls.numbers(await self.ask(lambda c: self.store.get_balance(self.account, conditions=c)))

    async def allowance(self) -> tuple[int, int, int]:
        """Return the running period's use, hold and rest."""
        status: AllowanceStatus = (await self.describe()).allowance
        return calls.micro(status.used), calls.micro(status.held), calls.micro(status.remaining)

    async def left(self) -> int:
        """Return the rest of the allowance."""
        return (await self.allowance())[2]
