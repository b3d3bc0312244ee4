"""The explanation of a balance, and its text."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from ducto_redis.explain.format import INDENT, credits, moment, signed, times_text
from ducto_redis.explain.model import BalanceLine, BalanceMovement, LeaseHold
from ducto_redis.results import AllowanceStatus, Grant

_KINDS = {
    "earlier": "before the first known change",
    "opened": "credits that the account began with",
    "added": "credits added",
    "adjusted": "corrected by hand",
    "charged": "charged",
    "returned": "charges of expired leases, taken back",
    "refunded": "refunded",
    "expired": "credits that expired",
    "other": "other",
    "due": "due, journalled with the next change",
}


class BalanceExplanation(Struct, frozen=True, kw_only=True):
    """The explanation of a balance. `str()` gives all of it in words.

    Attributes:
        lines: all movements by kind; their amounts add up to the balance.
        movements: the last movements of the balance, newest first.
        grants: the grants that make up the balance; number 0 is the pool, below zero if the account is in debt.
        leases: the open leases, which hold `held` of the balance.
        since: the time of the first known change; None if there is none.
        adds_up: True if lines, grants and leases add up to the balance and to the held part of it.
        problems: the inconsistencies that were found.
        missing: everything that is unknown, and why.
    """

    account: str
    at: datetime
    balance: Decimal
    held: Decimal
    available: Decimal
    allowance: AllowanceStatus
    lines: tuple[BalanceLine, ...]
    movements: tuple[BalanceMovement, ...]
    grants: tuple[Grant, ...]
    leases: tuple[LeaseHold, ...]
    since: datetime | None
    adds_up: bool
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(balance_lines(self))


def balance_lines(explanation: BalanceExplanation) -> Iterator[str]:
    """Yield the whole explanation of a balance, line by line."""
    since = f", from {moment(explanation.since)} on" if explanation.since else ""
    yield f"{explanation.account} has {credits(explanation.balance)} credits at {moment(explanation.at)}{since}"
    for title, lines in (
        ("History", _kind_lines(explanation)),
        ("Credits", _grant_lines(explanation)),
        ("Held", _hold_lines(explanation)),
        ("The plan's allowance, in addition", _allowance_lines(explanation)),
        ("Last movements", [_movement(explanation, index) for index in range(len(explanation.movements))]),
        ("Unknown", list(explanation.missing)),
        ("Inconsistencies", list(explanation.problems)),
    ):
        if lines:
            yield ""
            yield title
            yield from (INDENT + line for line in lines)
    if explanation.adds_up:
        yield ""
        yield "all lines add up to the balance" if explanation.lines else "the account has no history"


def _kind_lines(explanation: BalanceExplanation) -> list[str]:
    lines = [f"{signed(line.amount):>16}  {_kind(line)}" for line in explanation.lines]
    if lines:
        lines.append(f"{credits(explanation.balance):>16}  balance")
    return lines


def _kind(line: BalanceLine) -> str:
    what = _KINDS[line.kind]
    if line.kind in ("charged", "refunded") and line.name is None:
        what += " (several models, or none)"
    elif line.name is not None:
        what += {"charged": " for ", "refunded": " for "}.get(line.kind, ", ") + line.name
    times = f", {times_text(line.count)}" if line.count != 1 and line.kind not in ("earlier", "due") else ""
    allowance = f"; {credits(line.from_allowance)} more from the allowance" if line.from_allowance else ""
    return what + times + allowance


def _grant_lines(explanation: BalanceExplanation) -> list[str]:
    if len(explanation.grants) <= 1 and not explanation.lines:
        return []
    lines = []
    for grant in explanation.grants:
        if not grant.number:
            if grant.remaining or len(explanation.grants) == 1:
                debt = "debt" if grant.remaining < 0 else "credits that do not expire"
                lines.append(f"{credits(grant.remaining):>16}  {debt}")
            continue
        until = f"expires {moment(grant.expires_at)}" if grant.expires_at else "never expires"
        lines.append(
            f"{credits(grant.remaining):>16}  grant {grant.number} ({grant.type}, {until}, priority {grant.priority}),"
            f" {credits(grant.amount)} at first"
        )
    return lines


def _hold_lines(explanation: BalanceExplanation) -> list[str]:
    lines = []
    for hold in explanation.leases:
        of_allowance = f" and {credits(hold.of_allowance)} of the allowance" if hold.of_allowance else ""
        lines.append(
            f"{credits(hold.amount):>16}  lease {hold.lease_id} ({hold.operation_type}, {hold.owner}){of_allowance},"
            f" until {moment(hold.expires_at)}"
        )
    if lines:
        lines.append(f"{credits(explanation.held):>16}  held, {credits(explanation.available)} available")
    return lines


def _allowance_lines(explanation: BalanceExplanation) -> list[str]:
    allowance = explanation.allowance
    if not allowance.period_end or not allowance.plan:
        return []
    return [
        f"{credits(allowance.remaining):>16}  left of {credits(allowance.limit)} on plan {allowance.plan},"
        f" {credits(allowance.used)} used, {credits(allowance.held)} held, until {moment(allowance.period_end)}"
    ]


def _movement(explanation: BalanceExplanation, index: int) -> str:
    movement = explanation.movements[index]
    name = f", {movement.name}" if movement.name else ""
    return (
        f"{moment(movement.at)}  {signed(movement.amount):>12} -> {credits(movement.balance_after):<12}"
        f"  {movement.operation}{name}  {movement.transaction_id}"
    )
