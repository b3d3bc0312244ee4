"""What an account's plan means: when the engine must ask for it, and what it does with the answer."""

from collections.abc import Iterable

from ducto_redis.engine.operation import Conditions, Terms
from tests.model import caps
from tests.model.account import Account, Period, Plan, Refused


def ask(account: Account, plan: str, assigned: int, zone: str, scopes: Iterable[str], now: int) -> Refused:
    ended = caps.windows_needed([cap for cap in account.caps if cap.scope in scopes], now)
    return Refused("terms", plan, assigned, zone, now, tuple(sorted(ended)))


def ask_again(account: Account, scopes: Iterable[str], now: int) -> Refused:
    plan = account.plan
    if plan is None:
        return ask(account, "", 0, "", scopes, now)
    return ask(account, plan.id, plan.assigned, plan.time_zone, scopes, now)


def mean(terms: Terms | None, plan: str, now: int) -> bool:
    """Whether the terms are that plan's, now."""
    return terms is not None and terms.plan == plan and (terms.period is None or runs(terms, now))


def runs(terms: Terms, now: int) -> bool:
    return terms.period is not None and terms.period.start_ms <= now < terms.period.end_ms


def capped(terms: Terms) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.scope for rule in terms.caps))


def take(account: Account, conditions: Conditions, scopes: Iterable[str], now: int) -> None:
    """Bring plan, allowance and the caps of these scopes up to now, or ask for what is missing."""
    terms = conditions.terms
    scopes = tuple(scopes)
    if account.seq == 0 and conditions.opens:
        open_with_plan(account, conditions, scopes, now)
    elif (account.plan.id if account.plan else "") != conditions.plan:
        raise ask_again(account, scopes, now)
    if account.plan is not None:
        take_plan(account, account.plan, conditions, scopes, now)
    if account.seq == 0 and conditions.opens:
        open_with_bonus(account, conditions)
    for scope in scopes:
        take_caps(account, scope, conditions, scopes, now)
    if terms is not None:
        caps.roll_all([cap for cap in account.caps if cap.scope in scopes], terms, now)
    if caps.windows_needed([cap for cap in account.caps if cap.scope in scopes], now):
        raise ask_again(account, scopes, now)


def open_with_plan(account: Account, conditions: Conditions, scopes: Iterable[str], now: int) -> None:
    """A new account begins with the plan that the document says."""
    if conditions.plan:
        if not mean(conditions.terms, conditions.plan, now):
            raise ask(account, conditions.plan, 0, "", scopes, now)
        account.plan = Plan(conditions.plan, now, "", 0, ())


def open_with_bonus(account: Account, conditions: Conditions) -> None:
    account.balance += conditions.bonus
    account.opening = conditions.bonus


def take_plan(account: Account, plan: Plan, conditions: Conditions, scopes: Iterable[str], now: int) -> None:
    terms = conditions.terms
    if 0 < conditions.activation < plan.activation:
        raise Refused("stale", plan.activation)
    if mean(terms, plan.id, now):
        assert terms is not None
        take_period(account, terms, now)
        plan.scopes, plan.activation = capped(terms), max(plan.activation, terms.activation)
        account.extras = True
    elif (
        terms is not None
        or conditions.activation > plan.activation
        or (account.period is not None and account.period.end <= now)
    ):
        raise ask_again(account, scopes, now)


def take_period(account: Account, terms: Terms | None, now: int) -> None:
    """The allowance's period that runs now: the same with the plan's limit, or the next one.

    Without an allowance a running period gives nothing more, and keeps what was used: whoever gets an allowance again
    within it does not get it twice.
    """
    period, bounds = account.period, terms.period if terms is not None else None
    if terms is None or bounds is None:
        if period is not None and now < period.end:
            period.limit = period.rolled = 0
        else:
            account.period = None
        return
    if period is not None and now < period.end:
        period.limit, period.start, period.end = terms.allowance, bounds.start_ms, bounds.end_ms
        return
    rolled = 0
    if period is not None:
        length = bounds.end_ms - bounds.start_ms
        skipped = max(0, (2 * (bounds.start_ms - period.end) + length) // (2 * length))
        rolled = min(terms.rollover, period.rest + skipped * period.limit)
    account.period = Period(account.next_seq, bounds.start_ms, bounds.end_ms, terms.allowance, rolled)
    account.extras = True


def take_caps(account: Account, scope: str, conditions: Conditions, scopes: Iterable[str], now: int) -> None:
    """Let a scope have the caps that the plan has in it now."""
    plan, terms = account.plan, conditions.terms
    wanted = max(1, plan.activation) if plan is not None and caps.plan_scope(scope) in plan.scopes else 0
    if account.taken.get(scope, 0) == wanted:
        return
    if wanted and (terms is None or plan is None or terms.plan != plan.id):
        raise ask_again(account, scopes, now)
    caps.take_plan(account, scope, terms.caps if terms is not None and wanted else (), wanted)


def assign(account: Account, plan: str, zone: str, conditions: Conditions, now: int) -> None:
    """Assign a plan, or take it away (""). What was used of the running period's allowance stays used."""
    terms = conditions.terms
    account.plan = None
    if plan:
        assert terms is not None
        account.plan = Plan(plan, now, zone, terms.activation, capped(terms))
    take_period(account, terms if plan else None, now)
    account.extras = True
    for scope in {cap.scope for cap in account.caps} | {scope for scope, under in account.taken.items() if under}:
        of_plan = account.plan is not None and caps.plan_scope(scope) in account.plan.scopes
        caps.take_plan(
            account,
            scope,
            terms.caps if terms is not None and of_plan else (),
            max(1, account.plan.activation) if account.plan is not None and of_plan else 0,
        )
