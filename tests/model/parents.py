"""Leases inside others: their hold is taken out of the parent's, and what they do not spend of it goes back there."""

from collections.abc import Iterable

from tests.model import caps
from tests.model.account import Account, Cap, Counted, Crossed, Lease, Paid, Refused

DEPTH = 16


def above(account: Account, lease: Lease) -> list[Lease | None]:
    """The leases that it is inside of, the nearest first; None for one that is not known any more."""
    found = [(account.leases.get(lease_id), created) for lease_id, created in lease.parents]
    return [parent if parent is not None and parent.created == created else None for parent, created in found]


def holder(account: Account, lease: Lease) -> Lease | None:
    """Who gets back what it does not spend: the nearest that is open; None for the account."""
    return next((parent for parent in above(account, lease) if parent is not None and parent.open), None)


def reach(account: Account, lease: Lease) -> int:
    """What it may be charged beyond its own: what its parent holds, or what was left of it when that expired."""
    most = []
    for parent in above(account, lease):
        if parent is None or parent.charged:
            return 0
        most.append(parent.amount)
        if parent.open:
            break
    return min(most)


def change_rests(account: Account, lease: Lease, amount: int) -> None:
    """What is left of those that have expired, up to the one that is open."""
    for parent in above(account, lease):
        if parent is not None and parent.open:
            return
        if parent is not None and not parent.charged:
            parent.amount = max(0, parent.amount + amount)
            parent.allowance = min(parent.allowance, parent.amount)


def held_inside(account: Account, lease_id: str, created: int) -> int:
    """What open leases inside of it hold."""
    leases = account.leases.values()
    return sum(lease.amount for lease in leases if lease.open and (lease_id, created) in lease.parents)


def take(account: Account, parent: Lease, lease: Lease, amount: int, parts: caps.Parts, *, skip_allowance: bool,
         now: int) -> tuple[Crossed, ...]:  # fmt: skip
    """Let a lease hold so much more, out of its parent's hold, of the allowance first."""
    allowance = 0 if skip_allowance else min(amount, parent.allowance)
    parent.amount -= amount
    parent.allowance -= allowance
    lease.allowance += allowance
    if allowance:
        lease.period = parent.period
    crossed: list[Crossed] = []
    for cap in caps.in_scope(account, parts):
        lent = take_recorded(parent, cap, parts[cap.scope])
        lease.lent += recorded(cap, lent)
        held, more = caps.hold_in(cap, parts[cap.scope] - lent, now)
        lease.caps += held
        crossed += more
    return tuple(crossed)


def give_up(account: Account, lease: Lease) -> None:
    """It holds nothing any more: its holder does, or nobody."""
    its = holder(account, lease)
    if its is None:
        give_to_account(account, lease)
    else:
        caps.let_go(account, lease.caps)
        its.amount += lease.amount
        its.allowance += lease.allowance
        if its.parents:
            its.lent += lease.lent
        else:
            its.caps += lease.lent
    change_rests(account, lease, lease.amount)


def give_to_account(account: Account, lease: Lease) -> None:
    """It holds nothing any more, and nobody does in its place."""
    caps.let_go(account, (*lease.caps, *lease.lent))
    if lease.allowance and account.period is not None and account.period.number == lease.period:
        account.period.held -= lease.allowance


def spend(account: Account, its: Lease, back: Paid, allowance: int, balance: int) -> int:
    """Take what a charge takes of a holder's hold, beyond what came back. Returns how much."""
    of_allowance, of_balance = max(0, allowance - back.allowance), max(0, balance - back.from_balance)
    if of_allowance and account.period is not None and account.period.number == its.period:
        account.period.held -= of_allowance
    its.allowance -= of_allowance
    its.amount -= of_allowance + of_balance
    return of_allowance + of_balance


def stop_holding(account: Account, its: Lease, parts: caps.Parts) -> None:
    """What was charged is held in caps no more."""
    for cap in caps.in_scope(account, parts):
        cap.held -= take_recorded(its, cap, parts[cap.scope])


def take_recorded(parent: Lease, cap: Cap, amount: int) -> int:
    """Take up to an amount off what it holds in a cap; what is lent goes first."""
    lent = min(amount, _sum(parent.lent, cap))
    own = min(amount - lent, _sum(parent.caps, cap))
    parent.lent = _without(parent.lent, cap) + recorded(cap, _sum(parent.lent, cap) - lent)
    parent.caps = _without(parent.caps, cap) + recorded(cap, _sum(parent.caps, cap) - own)
    return lent + own


def recorded(cap: Cap, amount: int) -> tuple[Counted, ...]:
    return (Counted(cap.number, cap.scope, amount),) if amount else ()


def to_open_in(account: Account, lease_id: str) -> Lease:
    """The open lease that another is to be opened inside of."""
    parent = account.leases.get(lease_id)
    if parent is None and lease_id in account.closed:
        raise Refused("closed", account.closed[lease_id][0])
    if parent is None:
        raise Refused("not_found")
    if not parent.open:
        raise Refused("expired")
    if len(parent.parents) >= DEPTH - 1:
        raise Refused("config")
    return parent


def to_extend_from(account: Account, lease: Lease) -> Lease:
    """The open lease that one inside of it is to have more of."""
    parent = above(account, lease)[0]
    if parent is None:
        raise Refused("closed", "closed")
    if not parent.open:
        raise Refused("expired")
    return parent


def _sum(records: Iterable[Counted], cap: Cap) -> int:
    return sum(record.amount for record in records if record.cap == cap.number)


def _without(records: Iterable[Counted], cap: Cap) -> tuple[Counted, ...]:
    return tuple(record for record in records if record.cap != cap.number)
