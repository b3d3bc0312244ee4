"""The parts of an account: grants, a period of the allowance, spend caps, leases, members, and how people see them.

Amounts are micro-credits, times milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import structs

from ducto_redis import results
from ducto_redis.engine.entry import CapPart, Details, GrantPart
from ducto_redis.engine.operation import Bounds, CapRule, LeaseTerms, Price
from ducto_redis.money import from_micro

if TYPE_CHECKING:
    from dict_account import Account

WINDOW_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000, "month": 2_592_000_000}
BUCKETS = 60
NEVER = math.inf
NO_DETAILS = Details()
CLOSED_KEPT_MS = 86_400_000

R = TypeVar("R", bound=Any)

Counted = list[tuple[str, int]]
"""Scopes, and what a charge counts in each."""


@dataclass
class Grant:
    """Credits that came in together. The pool is no grant: it is what is in the balance and in no grant."""

    number: int
    remaining: int
    expires: float
    priority: int
    type: str
    amount: int
    added: int
    expiry_applied: bool = False

    @property
    def order(self) -> tuple[int, float, int]:
        """Those with a lower one are spent first."""
        return self.priority, self.expires, self.number

    def status(self) -> results.Grant:
        """As people see it."""
        return results.Grant(
            number=self.number,
            type=self.type,
            amount=from_micro(self.amount),
            remaining=from_micro(self.remaining),
            priority=self.priority,
            expires_at=None if self.expires == NEVER else time_of(self.expires),
            added_at=time_of(self.added),
        )

    def part(self, amount: int) -> GrantPart:
        """What a charge took from it, for the journal."""
        expires_ms = 0 if self.expires == NEVER else int(self.expires)
        return GrantPart(self.number, amount, expires_ms, self.priority, self.type)


@dataclass
class Period:
    """A period of the plan's allowance."""

    number: int
    bounds: Bounds
    limit: int
    rolled: int = 0
    used: int = 0


@dataclass
class Cap:
    """A spend cap, and what was counted of it. What is held is in the leases."""

    cap_id: str
    source: str
    rule: CapRule
    window: Bounds | None = None
    used: int = 0
    raised: int | None = None
    raised_until: int = 0
    crossed: bool = False
    used_at: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    @property
    def calendar(self) -> bool:
        """Whether it has windows with bounds, which only the caller knows."""
        return not self.rule.rolling and self.rule.window != "total"

    def measures_like(self, rule: CapRule) -> bool:
        """Whether a rule means this cap, and changes its limit."""
        return structs.replace(self.rule, limit=rule.limit) == rule

    def status(self, account: "Account", scope: str) -> results.CapStatus:
        """As people see it."""
        rule, limit, held = self.rule, self.limit(account.now), account.caps_held(scope, self.cap_id)
        raised = self.raised is not None and account.now < self.raised_until
        return results.CapStatus(
            account=account.name,
            cap_id=self.cap_id,
            scope=scope,
            source=self.source,
            window=rule.window,
            rolling=rule.rolling,
            action=rule.action,
            time_zone=rule.time_zone,
            limit=from_micro(limit),
            used=from_micro(self.used),
            held=from_micro(held),
            remaining=from_micro(max(0, limit - self.used - held)),
            window_start=time_of(self.window.start_ms) if self.window else None,
            window_end=time_of(self.window.end_ms) if self.window else None,
            raised_until=time_of(self.raised_until) if raised else None,
        )

    def limit(self, now: int) -> int:
        """The limit in force."""
        return self.raised if self.raised is not None and now < self.raised_until else self.rule.limit

    def bucket(self, time_ms: int) -> int:
        """Of a rolling window, which is made of 60 buckets and the one that has just begun."""
        return time_ms // (WINDOW_MS[self.rule.window] // BUCKETS)

    def covers(self, time_ms: int, now: int) -> bool:
        """Whether its window holds that time."""
        if self.rule.rolling:
            return self.bucket(time_ms) >= self.bucket(now) - BUCKETS
        return not self.calendar or self.window is None or self.window.start_ms <= time_ms

    def use(self, amount: int, time_ms: int, now: int) -> None:
        """Count a charge, or, below zero, take it back."""
        if self.rule.rolling:
            self.buckets[self.bucket(time_ms)] = self.buckets.get(self.bucket(time_ms), 0) + amount
            self.forget_buckets(now)
        else:
            if self.calendar and self.window is not None and self.window.end_ms <= now:
                # The next window's bounds are not known yet: what is used from now on belongs to it.
                self.used, self.crossed, self.window = 0, False, None
            self.used, self.used_at = max(0, self.used + amount), now

    def forget_buckets(self, now: int) -> None:
        """Leave out what is older than the rolling window."""
        self.buckets = {number: used for number, used in self.buckets.items() if number >= self.bucket(now) - BUCKETS}
        self.used = max(0, sum(self.buckets.values()))


@dataclass
class Member:
    """Somebody who spends of a team."""

    role: str
    joined: int
    spent: int = 0


@dataclass
class Lease:
    """A hold. It rests on the allowance of a period with one part, and on the balance with the rest."""

    lease_id: str
    terms: LeaseTerms
    price: Price
    created: int
    expires: int
    plan: str
    member: str
    amount: int = 0
    allowance: int = 0
    period: int = 0
    models: tuple[tuple[str, int], ...] = ()
    caps: list[CapPart] = field(default_factory=list)
    transaction_id: str = ""
    open: bool = True
    charged: int = 0
    paid: Details = NO_DETAILS

    @property
    def balance_part(self) -> int:
        """What of the balance it holds."""
        return self.amount - self.allowance

    @property
    def own_allowance(self) -> int:
        """What it took of an allowance: it holds that, or its expiry charged it."""
        return self.allowance if self.open or self.charged else 0

    @property
    def kind(self) -> str:
        """Its operation type, as the journal has it."""
        return "" if self.terms.operation_type == "default" else self.terms.operation_type

    def shares(self, models: tuple[tuple[str, int], ...], charged: int) -> tuple[tuple[str, int], ...]:
        """What of a charge counts for each model: of what it cost, or else of what was held."""
        models = models or self.models
        total = sum(part for _, part in models)
        return models if total == charged else tuple((name, part * charged // max(1, total)) for name, part in models)

    def listed(self, account: "Account") -> results.Lease:
        """As people see it who list leases."""
        return results.Lease(
            lease_id=self.lease_id,
            account=account.name,
            amount=from_micro(self.amount),
            operation_type=self.terms.operation_type,
            owner=self.terms.owner,
            created_at=time_of(self.created),
            expires_at=time_of(self.expires),
            age_seconds=(account.now - self.created) / 1000,
            version=self.price.version,
            metadata=self.terms.metadata.decode(),
        )


@dataclass
class Closed:
    """How a lease was closed, and what that answered."""

    how: str
    fingerprint: str
    result: Any
    until: int

    def answer(self, kind: type[R]) -> R:
        """The answer, when it is given again."""
        assert isinstance(self.result, kind)
        return self.result


def again(result: R) -> R:
    """An answer as it is given the next time."""
    return structs.replace(result, replayed=True) if hasattr(result, "replayed") else result


def time_of(milliseconds: float) -> datetime:
    """A time as results have it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def counted_scopes(amount: int, member: str, models: Sequence[tuple[str, int]]) -> Counted:
    """What a charge counts towards."""
    member_scope = [(f"member/{member}", amount)] if member else []
    return [("account", amount), *member_scope, *((f"model/{model}", part) for model, part in models)]


def plan_cap_id(rule: CapRule) -> str:
    """How a plan's cap is called."""
    return f"plan-{rule.window}{'-rolling' if rule.rolling else ''}-{rule.action}"


def window_name(rule: CapRule) -> str:
    """How bounds are asked for."""
    return f"{rule.window}@{rule.time_zone}"
