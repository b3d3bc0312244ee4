"""Spend caps: which count a charge, what they refuse, and how their windows end."""

from collections.abc import Iterable

from ducto_redis.engine.operation import Bounds, CapRule, Terms
from tests.model.account import Account, Cap, Counted, Crossed, Lease, Refused

SECOND = 1000
WINDOW_LENGTHS = {
    "minute": 60 * SECOND,
    "hour": 3600 * SECOND,
    "day": 86400 * SECOND,
    "week": 7 * 86400 * SECOND,
    "month": 30 * 86400 * SECOND,
}
BUCKETS = 60
CAPS_OF_A_SCOPE = 16

Parts = dict[str, int]
"""What of a charge each scope counts."""


def parts_of(amount: int, member: str, models: Iterable[tuple[str, int]]) -> Parts:
    parts = {"account": amount}
    if member:
        parts[f"member/{member}"] = amount
    for model, part in models:
        parts[f"model/{model}"] = part
    return parts


def within(models: Iterable[tuple[str, int]], amount: int) -> list[tuple[str, int]]:
    """Of each model's part what there is of an amount, the first model first."""
    parts = []
    for model, part in models:
        parts.append((model, min(part, amount)))
        amount -= parts[-1][1]
    return parts


def in_scope(account: Account, parts: Parts) -> list[Cap]:
    return [cap for scope in parts for cap in account.caps if cap.scope == scope]


def used(cap: Cap, now: int) -> int:
    if cap.rolling:
        oldest = _bucket(cap, now) - BUCKETS
        return sum(amount for number, amount in cap.buckets.items() if number >= oldest)
    return cap.used


def total(cap: Cap, now: int) -> int:
    return used(cap, now) + cap.held


def check(account: Account, parts: Parts, now: int, parent: Lease | None = None) -> None:
    """Refuse what a cap denies, and what a parent does not hold there already."""
    for cap in in_scope(account, parts):
        needed = parts[cap.scope]
        if parent is not None:
            needed = max(0, needed - held_by(parent, cap))
            if not needed:
                continue
        if cap.action == "deny" and total(cap, now) + needed > cap.limit_at(now):
            end = 0 if cap.rolling else cap.end
            raise Refused(
                "cap", cap.number, cap.scope, cap.window, cap.limit_at(now), used(cap, now), cap.held, end, needed
            )


def held_by(lease: Lease, cap: Cap) -> int:
    """What a lease holds in a cap."""
    return sum(record.amount for record in (*lease.lent, *lease.caps) if record.cap == cap.number)


def hold(account: Account, parts: Parts, now: int) -> tuple[tuple[Counted, ...], tuple[Crossed, ...]]:
    """Let a lease hold its amount in every cap that matches."""
    held, crossed = [], []
    for cap in in_scope(account, parts):
        its, more = hold_in(cap, parts[cap.scope], now)
        held += its
        crossed += more
    return tuple(held), tuple(crossed)


def hold_in(cap: Cap, amount: int, now: int) -> tuple[tuple[Counted, ...], list[Crossed]]:
    """Let a lease hold an amount in a cap."""
    if not amount:
        return (), []
    cap.held += amount
    return (Counted(cap.number, cap.scope, amount),), _cross(cap, now)


def let_go(account: Account, held: Iterable[Counted]) -> None:
    """Take off what a lease recorded, where that cap still exists."""
    for record in held:
        for cap in account.caps:
            if cap.number == record.cap:
                cap.held -= record.amount


def count(account: Account, parts: Parts, now: int) -> tuple[tuple[Counted, ...], tuple[Crossed, ...]]:
    """Count a charge in every cap that matches."""
    counted, crossed = [], []
    for cap in in_scope(account, parts):
        amount = parts[cap.scope]
        if not amount:
            continue
        if cap.rolling:
            bucket = _bucket(cap, now)
            cap.buckets[bucket] = cap.buckets.get(bucket, 0) + amount
        else:
            if cap.calendar and cap.end <= now:  # the bounds of the window that runs are not known yet
                if cap.end:
                    cap.used, cap.crossed, cap.end = 0, False, 0
                cap.start = now
            cap.used += amount
        counted.append(Counted(cap.number, cap.scope, amount))
        crossed += _cross(cap, now)
    return tuple(counted), tuple(crossed)


def uncount(account: Account, counted: Iterable[tuple[Counted, int]], charged_at: int, now: int) -> None:
    """Count a refund: each cap's share, where the cap still exists and its window holds the charge's time."""
    for record, amount in counted:
        for cap in account.caps:
            if cap.number != record.cap:
                continue
            if cap.rolling:
                bucket = _bucket(cap, charged_at)
                if bucket in cap.buckets and bucket >= _bucket(cap, now) - BUCKETS:
                    cap.buckets[bucket] = max(0, cap.buckets[bucket] - amount)
            elif cap.window == "total" or (charged_at >= cap.start and not 0 < cap.end <= charged_at):
                cap.used = max(0, cap.used - amount)


def share(part: int, amount: int, whole: int) -> int:
    """What of a part goes with `amount` of the whole, rounded down."""
    return part * amount // whole if whole else 0


def _cross(cap: Cap, now: int) -> list[Crossed]:
    over = total(cap, now) > cap.limit_at(now)
    if cap.rolling and not over:
        cap.crossed = False
    if cap.action == "deny" or cap.crossed or not over:
        return []
    cap.crossed = True
    return [Crossed(cap.number, cap.scope, cap.action)]


def _bucket(cap: Cap, now: int) -> int:
    return now // (WINDOW_LENGTHS[cap.window] // BUCKETS)


# The plan's caps, and windows.


def windows_needed(caps: Iterable[Cap], now: int) -> tuple[str, ...]:
    """The windows that have ended, or whose bounds were never known."""
    return tuple(dict.fromkeys(f"{cap.window}@{cap.time_zone}" for cap in caps if cap.calendar and cap.end <= now))


def roll(cap: Cap, bounds: Bounds) -> None:
    """The window that runs now. What was charged between two known windows counts if it was in this one."""
    if cap.end or cap.start < bounds.start_ms:
        cap.used, cap.crossed = 0, False
    cap.start, cap.end = bounds.start_ms, bounds.end_ms


def roll_all(caps: Iterable[Cap], terms: Terms, now: int) -> None:
    bounds = dict(terms.bounds)
    for cap in caps:
        known = bounds.get(f"{cap.window}@{cap.time_zone}")
        if cap.calendar and cap.end <= now and known is not None and known.start_ms <= now < known.end_ms:
            roll(cap, known)


def make(account: Account, scope: str, source: str, rule: CapRule) -> Cap:
    account.caps_made += 1
    cap = Cap(account.caps_made, scope, source, rule.window, rule.rolling, rule.action, rule.time_zone, rule.limit)
    account.caps.append(cap)
    return cap


def find(account: Account, scope: str, source: str, rule: CapRule) -> Cap | None:
    for cap in account.caps:
        kind = rule.window, rule.rolling, rule.time_zone, rule.action
        if (cap.scope, cap.source, *cap.kind) == (scope, source, *kind):
            return cap
    return None


def plan_scope(scope: str) -> str:
    """How a plan names the scope."""
    return "members" if scope.startswith("member/") else scope


def take_plan(account: Account, scope: str, rules: Iterable[CapRule], activation: int) -> None:
    """Let a scope have the plan's caps, before its own: those that were there keep what they counted."""
    kept: list[Cap] = []
    for rule in rules:
        if rule.scope == plan_scope(scope):
            cap = find(account, scope, "plan", rule) or make(account, scope, "plan", rule)
            cap.limit = rule.limit
            kept.append(cap)
    others = [cap for cap in account.caps if cap.scope != scope]
    account.caps = [*others, *kept, *(cap for cap in account.caps if cap.scope == scope and cap.source == "own")]
    account.taken[scope] = activation
    account.extras = True
