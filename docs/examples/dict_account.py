"""An account, and the rules by which it is spent. It knows neither stores nor locks nor clocks.

Amounts are micro-credits, times milliseconds. Whoever changes an account works on a copy of it: a refusal may be raised
anywhere, and the copy is forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dict_parts import (
    CLOSED_KEPT_MS,
    NEVER,
    Cap,
    Closed,
    Counted,
    Grant,
    Lease,
    Member,
    Period,
    R,
    again,
    plan_cap_id,
    time_of,
    window_name,
)
from msgspec import structs

from ducto_redis import errors, results
from ducto_redis.engine.entry import CapPart, Crossing, Details, GrantPart, JournalEntry
from ducto_redis.engine.operation import (
    DEFAULT_PRIORITY,
    Bounds,
    CapRule,
    Charge,
    Conditions,
    NewGrant,
    OperationKey,
    Terms,
)
from ducto_redis.money import MAX_MICRO, from_micro


@dataclass
class Account:
    """Everything of one account."""

    name: str
    now: int = 0
    balance: int = 0
    seq: int = 0
    activation: int = 0
    plan: str = ""
    assigned: int = 0
    time_zone: str = ""
    plan_activation: int = 0
    plan_caps: tuple[CapRule, ...] = ()
    period: Period | None = None
    grants: list[Grant] = field(default_factory=list)
    caps: dict[str, list[Cap]] = field(default_factory=dict)
    frozen: str = ""
    low: set[int] = field(default_factory=set)
    team: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    closed: dict[str, Closed] = field(default_factory=dict)
    answers: dict[str, tuple[str, Any, int]] = field(default_factory=dict)
    entries: list[JournalEntry] = field(default_factory=list)
    applied: tuple[int, int, int] = (0, 0, 0)

    # Answers that are given again

    def earlier(self, key: OperationKey, kind: type[R]) -> R | None:
        """What the same operation answered, if it was made before."""
        fingerprint, answer, until = self.answers.get(key.text, ("", None, 0))
        if until <= self.now:
            return None
        if fingerprint != key.fingerprint or not isinstance(answer, kind):
            raise errors.IdempotencyConflictError(self.name, key.for_callers)
        return answer

    def remember(self, key: OperationKey, result: R) -> R:
        """Keep an answer for as long as its key says."""
        self.answers[key.text] = (key.fingerprint, again(result), self.now + key.kept_ms)
        return result

    def closed_lease(self, lease_id: str) -> Closed | None:
        """How a lease was closed, for a day."""
        closed = self.closed.get(lease_id)
        return closed if closed is not None and closed.until > self.now else None

    def close_lease(self, lease_id: str, how: str, fingerprint: str, result: R) -> R:
        """Keep the answer that closed a lease."""
        self.closed[lease_id] = Closed(how, fingerprint, again(result), self.now + CLOSED_KEPT_MS)
        return result

    def check_not_closed(self, lease_id: str) -> None:
        """Whether a lease can still be what is asked of it."""
        if closed := self.closed_lease(lease_id):
            raise errors.LeaseClosedError(self.name, lease_id, closed.how)

    def lease(self, lease_id: str) -> Lease:
        """A lease that is open or has expired."""
        if lease_id not in self.leases:
            raise errors.LeaseNotFoundError(self.name, lease_id)
        return self.leases[lease_id]

    def open_lease(self, lease_id: str) -> Lease:
        """A lease that is open."""
        self.check_not_closed(lease_id)
        if not self.lease(lease_id).open:
            raise errors.LeaseExpiredError(self.name, lease_id)
        return self.leases[lease_id]

    # What there is

    @property
    def expired_grants(self) -> list[Grant]:
        """Those of which leases may still rest, soonest expiry first."""
        expired = (grant for grant in self.grants if grant.expires <= self.now)
        return sorted(expired, key=lambda grant: (grant.expires, grant.number))

    def is_due(self, now: int) -> bool:
        """Whether something happens to it by itself, now."""
        leases = any(lease.expires <= now for lease in self.open_leases)
        return leases or any(grant.expires <= now and not grant.expiry_applied for grant in self.grants)

    def scopes(self) -> tuple[str, ...]:
        """Every scope that has caps, or may have some of the plan's."""
        members = [f"member/{name}" for name in self.members]
        models = [rule.scope for rule in self.plan_caps if rule.scope.startswith("model/")]
        return tuple(dict.fromkeys(["account", *self.caps, *models, *members]))

    @property
    def open_leases(self) -> list[Lease]:
        """Those that hold."""
        return [lease for lease in self.leases.values() if lease.open]

    @property
    def held(self) -> int:
        """What of the balance leases hold."""
        return sum(lease.balance_part for lease in self.open_leases)

    @property
    def allowance_held(self) -> int:
        """What of the present period's allowance leases hold."""
        return sum(lease.allowance for lease in self.open_leases if self.is_of_this_period(lease.period))

    @property
    def unused(self) -> int:
        """What is left of the period, whether it still runs or not."""
        period = self.period
        return 0 if period is None else max(0, period.limit + period.rolled - period.used - self.allowance_held)

    @property
    def allowance_left(self) -> int:
        """What can be spent of the allowance now."""
        return self.unused if self.period is not None and self.now < self.period.bounds.end_ms else 0

    @property
    def pool(self) -> int:
        """What is in the balance and in no grant; below zero it is a debt."""
        return self.balance - sum(grant.remaining for grant in self.grants)

    def runs(self, number: int) -> bool:
        """Whether the period of that number runs."""
        return self.is_of_this_period(number) and self.period is not None and self.now < self.period.bounds.end_ms

    def is_of_this_period(self, number: int) -> bool:
        """Whether that is the number of the present period."""
        return self.period is not None and self.period.number == number

    def caps_held(self, scope: str, cap_id: str) -> int:
        """What leases hold in a cap."""
        parts = (part for lease in self.open_leases for part in lease.caps)
        return sum(part.amount for part in parts if (part.scope, part.cap_id) == (scope, cap_id))

    # Terms: what only the caller knows

    def take_terms(self, conditions: Conditions, scopes: Sequence[str] = ()) -> None:
        """Bring plan, allowance and the windows of those scopes up to now, or ask for what that takes."""
        terms = conditions.terms
        if self.plan != conditions.plan:
            raise self.question()
        if self.plan:
            if 0 < conditions.activation < self.plan_activation:
                raise errors.StalePricing(self.plan_activation)
            period_ended = self.period is not None and self.period.bounds.end_ms <= self.now
            if terms is not None and terms.plan == self.plan and self._runs(terms):
                self.adopt(terms)
            elif terms is not None or period_ended or conditions.activation > self.plan_activation:
                raise self.question()
        bounds = dict(terms.bounds) if terms is not None else {}
        for scope in scopes:
            for cap in self.caps_of(scope):
                self._bring_up_to_now(cap, bounds)
        if windows := self._windows_needed(scopes):
            raise self.question(windows)

    def question(self, windows: Sequence[str] = ()) -> errors.TermsNeeded:
        """What is asked of the caller."""
        return errors.TermsNeeded(self.plan, self.assigned, self.time_zone, self.now, windows)

    def take_plan(self, plan: str, time_zone: str, terms: Terms | None) -> None:
        """Have another plan, or none. What was used of the period's allowance stays used."""
        if plan and not (terms is not None and terms.plan == plan and self._runs(terms)):
            raise errors.TermsNeeded(plan, 0, time_zone or self.time_zone, self.now)
        self.plan, self.assigned, self.plan_activation = plan, self.now, 0
        self.time_zone = (time_zone or self.time_zone) if plan else ""
        self.adopt(terms if plan and terms is not None else Terms(""))

    def adopt(self, terms: Terms) -> None:
        """What the plan means now."""
        self.plan_activation = max(self.plan_activation, terms.activation)
        self.plan_caps = terms.caps
        period = self.period
        if terms.period is None and period is not None and self.now < period.bounds.end_ms:
            period.limit = period.rolled = 0  # what was used stays used, for an allowance that comes in this period
        elif terms.period is None:
            self.period = None
        elif period is None:
            self.period = Period(self.seq + 1, terms.period, terms.allowance)
        elif period.bounds.end_ms <= self.now:
            length = terms.period.end_ms - terms.period.start_ms
            skipped = max(0, round((terms.period.start_ms - period.bounds.end_ms) / length))
            rolled = min(terms.rollover, skipped * period.limit + self.unused)
            self.period = Period(self.seq + 1, terms.period, terms.allowance, rolled)
        else:
            period.bounds, period.limit = terms.period, terms.allowance

    def _runs(self, terms: Terms) -> bool:
        return terms.period is None or terms.period.start_ms <= self.now < terms.period.end_ms

    def caps_of(self, scope: str) -> list[Cap]:
        """The caps of a scope: its own, and those that the plan means it to have."""
        word = "members" if scope.startswith("member/") else scope
        rules = {plan_cap_id(rule): rule for rule in self.plan_caps if rule.scope == word}
        old = self.caps.get(scope, [])
        kept = [cap for cap in old if cap.source == "own"]
        for cap_id, rule in rules.items():
            same = [cap for cap in old if cap.cap_id == cap_id and cap.rule.time_zone == rule.time_zone]
            cap = same[0] if same else Cap(cap_id, "plan", rule)
            cap.rule = rule
            kept.append(cap)
        if kept or scope in self.caps:
            self.caps[scope] = kept
        return kept

    def _bring_up_to_now(self, cap: Cap, bounds: dict[str, Bounds]) -> None:
        if cap.raised is not None and cap.raised_until <= self.now:
            cap.raised, cap.raised_until = None, 0
        if cap.rule.rolling:
            cap.forget_buckets(self.now)
        elif cap.calendar and (cap.window is None or cap.window.end_ms <= self.now):
            window = bounds.get(window_name(cap.rule))
            if window is not None and window.start_ms <= self.now < window.end_ms:
                if cap.window is not None or cap.used_at < window.start_ms:
                    cap.used, cap.crossed = 0, False
                cap.window = window

    def _windows_needed(self, scopes: Sequence[str]) -> list[str]:
        caps = (cap for scope in scopes for cap in self.caps_of(scope) if cap.calendar)
        return sorted({window_name(c.rule) for c in caps if c.window is None or c.window.end_ms <= self.now})

    # Admission

    def check_price(self, activation: int) -> None:
        """Whether a call was priced under the newest document that the account has seen."""
        if 0 < activation < self.activation:
            raise errors.StalePricing(self.activation)

    def check_member(self, member: str) -> None:
        """Whether somebody may spend of it."""
        known = self.members.get(member)
        if member and (self.team is None or known is None or known.role == "removed"):
            raise errors.MemberNotFoundError(self.name, member)

    def check_caps(self, counted: Counted) -> None:
        """Whether a charge passes a limit that denies."""
        for scope, amount in counted:
            for cap in self.caps_of(scope):
                held, limit = self.caps_held(scope, cap.cap_id), cap.limit(self.now)
                if cap.rule.action == "deny" and cap.used + held + amount > limit:
                    raise errors.CapReachedError(
                        self.name,
                        cap_id=cap.cap_id,
                        scope=scope,
                        window=cap.rule.window,
                        limit=from_micro(limit),
                        used=from_micro(cap.used),
                        held=from_micro(held),
                        needed=from_micro(amount),
                        window_end=time_of(cap.window.end_ms) if cap.window else None,
                    )

    def check_funds(self, amount: int, floor: int, *, skip_allowance: bool) -> int:
        """The part of an amount that the allowance pays, or a refusal."""
        left = 0 if skip_allowance else self.allowance_left
        available = self.balance - self.held
        if left + available - amount < floor:
            raise errors.InsufficientCreditsError(
                self.name,
                needed=from_micro(amount),
                available=from_micro(available),
                allowance=from_micro(left),
                held=from_micro(self.held),
                floor=from_micro(floor),
                next_expiry=time_of(min(lease.expires for lease in self.open_leases)) if self.open_leases else None,
            )
        return min(left, amount)

    def check_limits(self) -> None:
        """Refuse what no exact number can say."""
        if abs(self.balance) > MAX_MICRO or self.held > MAX_MICRO:
            raise errors.InvalidAmountError(
                f"account {self.name!r} would pass the limit of {from_micro(MAX_MICRO)} credits"
            )

    # Spending

    def hold(
        self, lease: Lease, amount: int, allowance: int, counted: Counted, models: Sequence[tuple[str, int]]
    ) -> Details:
        """Let a lease hold that much more, a part of it of the allowance: the caps that it crosses."""
        lease.amount += amount
        if allowance and self.period is not None:
            lease.allowance, lease.period = lease.allowance + allowance, self.period.number
        lease.models += tuple(models)
        lease.caps += [
            CapPart(cap.cap_id, part, scope) for scope, part in counted if part for cap in self.caps_of(scope)
        ]
        self.check_limits()
        return Details(crossed=self.crossings(counted))

    def let_go(self, lease: Lease) -> int:
        """Take a lease away, and give back what its expiry charged: what of the balance it held, or had charged."""
        del self.leases[lease.lease_id]
        if lease.charged:
            self.give_back(
                Charge("", lease.charged, lease.paid.encode(), lease.expires), 0, lease.charged, to_pool=True
            )
        return lease.balance_part if lease.open or lease.charged else 0

    def charge(
        self,
        allowance: int,
        rest: int,
        counted: Counted,
        member: str,
        levels: Sequence[int] = (),
        *,
        lease: Lease | None = None,
        before: int | None = None,
    ) -> Details:
        """Take from the allowance and from the balance, and say what that did.

        Args:
            allowance, rest: what either of them pays.
            counted: what it counts towards.
            member: who spends it.
            levels: that it may take the balance below.
            lease: whose charge it is; it may have taken its part of an allowance whose period is over.
            before: the balance before it.
        """
        before, number = self.balance if before is None else before, 0
        if lease is not None and lease.own_allowance and not self.is_of_this_period(lease.period):
            number = lease.period
        elif allowance and self.period is not None:
            self.period.used, number = self.period.used + allowance, self.period.number
        grants = self.take(rest, for_lease=lease is not None)
        caps = self._count(counted)
        if member in self.members:
            self.members[member].spent += allowance + rest
        low = tuple(level for level in levels if self.balance <= level and level not in self.low)
        low = low if self.balance < before else ()
        self.low.update(low)
        return Details(allowance, number if allowance else 0, grants, caps, self.crossings(counted), low, member)

    def take(self, amount: int, *, for_lease: bool = False) -> tuple[GrantPart, ...]:
        """Take from the balance, in spending order: what grants paid. Nobody pays what nothing is left for: a debt."""
        live = [grant for grant in self.grants if grant.expires > self.now]
        pool = Grant(0, max(0, self.pool), NEVER, DEFAULT_PRIORITY, "", 0, 0)
        order = self.expired_grants if for_lease else []
        self.balance -= amount
        parts = []
        for grant in [*order, *sorted([*live, pool], key=lambda grant: grant.order)]:
            part = min(max(0, amount), grant.remaining)
            amount -= part
            grant.remaining -= part
            if part and grant is not pool:
                parts.append(grant.part(part))
        self.grants = [grant for grant in self.grants if grant.remaining]
        return tuple(parts)

    def _count(self, counted: Counted) -> tuple[CapPart, ...]:
        parts = []
        for scope, amount in counted:
            for cap in self.caps_of(scope) if amount else ():
                cap.use(amount, self.now, self.now)
                parts.append(CapPart(cap.cap_id, amount, scope))
        return tuple(parts)

    def crossings(self, counted: Counted) -> tuple[Crossing, ...]:
        """The caps that let pass what goes over their limits, each once in its window."""
        crossed = []
        for scope, amount in counted:
            for cap in self.caps_of(scope) if amount else ():
                over = cap.used + self.caps_held(scope, cap.cap_id) > cap.limit(self.now)
                if over and not cap.crossed and cap.rule.action != "deny":
                    cap.crossed = True
                    crossed.append(Crossing(cap.cap_id, cap.rule.action, scope))
                elif not over and cap.rule.rolling:
                    cap.crossed = False
        return tuple(crossed)

    # Credits that come in, come back and expire

    def add(self, grant: NewGrant) -> None:
        """Credits come in; they pay the pool's debt first."""
        plain = not grant.expires_ms and grant.priority == DEFAULT_PRIORITY
        remaining = 0 if plain else grant.amount - min(grant.amount, max(0, -self.pool))
        self.balance += grant.amount
        if remaining:
            number, expires = self.seq + 1, grant.expires_ms or NEVER
            self.grants.append(Grant(number, remaining, expires, grant.priority, grant.type, grant.amount, self.now))
        self.arm()

    def arm(self) -> None:
        """Credits came in: levels below the balance can be reached again."""
        self.low = {level for level in self.low if level >= self.balance}

    def give_back(self, charge: Charge, done: int, amount: int, *, to_pool: bool) -> Details:
        """Give a part of a charge back to where it came from: to the pool first, then to the grants, the last that paid
        first, then to the allowance.

        Args:
            charge: what was charged.
            done: what was given back of it before.
            amount: how much of the rest comes back.
            to_pool: whether what came from a grant that has expired goes to the pool, or nowhere.
        """
        paid, left = Details.decode(charge.details), amount
        caps = self._uncount(charge, paid, done, amount)

        def part_of(there: int) -> int:
            nonlocal done, left
            skipped = min(done, there)
            part = min(left, there - skipped)
            done, left = done - skipped, left - part
            return part

        came, lost, grants, allowance = (
            part_of(charge.amount - paid.allowance - sum(g.amount for g in paid.grants)),
            0,
            [],
            0,
        )
        for grant in reversed(paid.grants):
            part = part_of(grant.amount)
            expired = 0 < grant.expires_ms <= self.now
            if part and not expired:
                self._give_to_grant(grant, part)
                grants.append(structs.replace(grant, amount=part))
            came, lost = (came, lost + part) if expired and not to_pool else (came + part, lost)
        of_allowance = part_of(paid.allowance)
        if of_allowance and self.period is not None and self.runs(paid.period):
            allowance = min(of_allowance, self.period.used)
            self.period.used -= allowance
        self.balance += came
        self.arm()
        if paid.member in self.members:
            self.members[paid.member].spent -= amount
        lost += of_allowance - allowance
        number = paid.period if allowance else 0
        return Details(allowance, number, tuple(grants), caps, member=paid.member, lost=lost)

    def _uncount(self, charge: Charge, paid: Details, done: int, amount: int) -> tuple[CapPart, ...]:
        # Each cap that still counts the time of the charge gets its share back.
        parts = []
        for part in paid.caps:
            share = part.amount * (done + amount) // charge.amount - part.amount * done // charge.amount
            for cap in self.caps_of(part.scope) if share else ():
                if cap.cap_id == part.cap_id and cap.covers(charge.time_ms, self.now):
                    cap.use(-share, charge.time_ms, self.now)
                    parts.append(CapPart(part.cap_id, -share, part.scope))
        return tuple(parts)

    def _give_to_grant(self, part: GrantPart, amount: int) -> None:
        for grant in self.grants:
            if grant.number == part.number:
                grant.remaining += amount
                return
        expires = part.expires_ms or NEVER
        self.grants.append(Grant(part.number, amount, expires, part.priority, part.type, amount, self.now))

    def change_grant(self, grant: Grant, amount: int) -> None:
        """Add to a grant, or take from it."""
        grant.remaining += amount
        self.grants = [grant for grant in self.grants if grant.remaining]

    def cap(self, scope: str, cap_id: str) -> Cap:
        """A cap of a scope."""
        caps = self.caps_of(scope)
        for cap in caps:
            if cap.cap_id == cap_id:
                return cap
        raise errors.CapNotFoundError(self.name, cap_id, [cap.cap_id for cap in caps])


def describe(account: Account) -> results.AccountDescription:
    """All that an account is, for people."""
    period, running = account.period, account.period is not None and account.runs(account.period.number)
    allowance = results.AllowanceStatus(account=account.name, plan=account.plan or None)
    if period is not None and running and period.limit + period.rolled:
        allowance = structs.replace(
            allowance,
            limit=from_micro(period.limit + period.rolled),
            used=from_micro(period.used),
            held=from_micro(account.allowance_held),
            remaining=from_micro(account.allowance_left),
            rolled_over=from_micro(period.rolled),
            period_start=time_of(period.bounds.start_ms),
            period_end=time_of(period.bounds.end_ms),
        )
    caps = tuple(cap.status(account, scope) for scope in account.scopes() for cap in account.caps_of(scope))
    balance, held = from_micro(account.balance), from_micro(account.held)
    members = {
        name: results.TeamMember(
            user=name,
            role=member.role,
            joined_at=time_of(member.joined),
            spent=from_micro(member.spent),
            caps=tuple(cap for cap in caps if cap.scope == f"member/{name}"),
        )
        for name, member in account.members.items()
    }
    team = None
    if account.team is not None:
        team = results.Team(
            team=account.name,
            name=account.team,
            balance=balance,
            held=held,
            available=balance - held,
            members=tuple(member for member in members.values() if member.role != "removed"),
            removed=tuple(member for member in members.values() if member.role == "removed"),
        )
    return results.AccountDescription(
        account=account.name,
        now=time_of(account.now),
        balance=results.Balance(
            account=account.name,
            balance=balance,
            held=held,
            available=balance - held,
            seq=account.seq,
            allowance=from_micro(account.allowance_left),
        ),
        frozen=account.frozen,
        plan=account.plan,
        plan_assigned_at=time_of(account.assigned) if account.plan else None,
        time_zone=account.time_zone,
        allowance=allowance,
        grants=tuple(grant.status() for grant in sorted(account.grants, key=lambda grant: grant.order)),
        caps=caps,
        team=team,
        low_levels=tuple(from_micro(level) for level in sorted(account.low)),
    )
