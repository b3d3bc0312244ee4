"""Who pays for a charge, and what comes back: the allowance, the grants in their order, the pool.

The pool is the balance without the grants: credits without expiry at the default priority. It alone may be in debt.
"""

from dataclasses import dataclass

from tests.model.account import DEFAULT_PRIORITY, Account, Grant, Paid, Part

NEVER = float("inf")
NOTHING = Paid()


def spending_order(account: Account, now: int) -> list[Grant | None]:
    """The live grants and the pool (None): by priority, then soonest expiry, then oldest."""

    def place(grant: Grant | None) -> tuple[float, float, float]:
        if grant is None:
            return DEFAULT_PRIORITY, NEVER, 0
        return grant.priority, grant.expires or NEVER, grant.number

    live = [grant for grant in account.grants.values() if not grant.expired(now)]
    return sorted([*live, None], key=place)


def expired_grants(account: Account, now: int) -> list[Grant]:
    """Expired grants that leases rest on, soonest expiry first."""
    return sorted(
        (grant for grant in account.grants.values() if grant.expired(now)),
        key=lambda grant: (grant.expires, grant.number),
    )


def take_from_balance(account: Account, amount: int, now: int, *, lease: bool) -> Paid:
    """Spend of the balance; a lease spends what rests of expired grants first. What nobody pays is the pool's debt."""
    pool = account.pool
    order: list[Grant | None] = [*(expired_grants(account, now) if lease else ()), *spending_order(account, now)]
    parts = []
    rest = amount
    for grant in order:
        if grant is None:
            rest -= min(rest, max(0, pool))
            continue
        part = min(rest, grant.remaining)
        if part:
            rest -= part
            _lower(account, grant, part)
            parts.append(Part(grant.number, part, grant.expires, grant.priority, grant.type))
    account.balance -= amount
    return Paid(grants=tuple(parts), pool=amount - sum(part.amount for part in parts))


def take_from_allowance(account: Account, amount: int, period: int) -> Paid:
    """Spend of the allowance of a period; one that is over keeps no count any more."""
    if not amount:
        return Paid()
    if account.period is not None and account.period.number == period:
        account.period.used += amount
    return Paid(allowance=amount, period=period)


def both(allowance: Paid, balance: Paid) -> Paid:
    return Paid(allowance.allowance, allowance.period, balance.grants, balance.pool)


@dataclass
class Returned:
    """What came back: to the balance, of it to grants (`paid`), to the allowance (`paid`), and what was lost."""

    to_balance: int = 0
    lost: int = 0
    paid: Paid = NOTHING


def give_back(
    account: Account, paid: Paid, now: int, *, expired_to_balance: bool = True, in_ended_period: bool = False
) -> Returned:
    """Return a charge, or a part of one, to where it came from. A debt of the pool is paid before a grant grows."""
    returned = Returned(paid.pool)
    account.balance += paid.pool
    to_grants = []
    for part in paid.grants:
        expired = 0 < part.expires <= now
        if expired and not expired_to_balance:
            returned.lost += part.amount
            continue
        debt = max(0, -account.pool)
        returned.to_balance += part.amount
        account.balance += part.amount
        amount = 0 if expired else max(0, part.amount - debt)
        if not amount:
            continue
        to_grants.append(Part(part.number, amount, part.expires, part.priority, part.type))
        if part.number in account.grants:
            account.grants[part.number].remaining += amount
        else:
            account.grants[part.number] = Grant(
                part.number, amount, part.expires, part.priority, part.type, amount, now
            )
    to_allowance = 0
    period = account.period
    if period is not None and period.number == paid.period and (in_ended_period or now < period.end):
        to_allowance = min(paid.allowance, period.used)
        period.used -= to_allowance
    returned.lost += paid.allowance - to_allowance
    returned.paid = Paid(to_allowance, paid.period if to_allowance else 0, tuple(to_grants))
    return returned


def part_to_return(paid: Paid, before: int, amount: int) -> Paid:
    """The part of a charge that a refund is about: pool, grants from the last to the first, allowance; `before` of it
    were given back already."""
    skip, rest = before, amount

    def share(size: int) -> int:
        nonlocal skip, rest
        skipped = min(skip, size)
        given = min(rest, size - skipped)
        skip -= skipped
        rest -= given
        return given

    pool = share(paid.pool)
    grants = [Part(p.number, share(p.amount), p.expires, p.priority, p.type) for p in reversed(paid.grants)]
    return Paid(share(paid.allowance), paid.period, tuple(part for part in grants if part.amount), pool)


def expire(account: Account, grant: Grant, amount: int) -> None:
    account.balance -= amount
    _lower(account, grant, amount)


def _lower(account: Account, grant: Grant, amount: int) -> None:
    grant.remaining -= amount
    if grant.remaining == 0:
        del account.grants[grant.number]
