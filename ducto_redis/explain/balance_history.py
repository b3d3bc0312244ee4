"""The history of a balance: an account's entries, folded and added up."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ducto_redis.engine.entry import JournalEntry, LeaseGrounds, LeaseRecord, UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.engine.text import time_of
from ducto_redis.explain.balance import BalanceExplanation
from ducto_redis.explain.history_reader import HistoryReader
from ducto_redis.explain.model import BalanceLine, BalanceMovement, LeaseHold
from ducto_redis.money import from_micro, to_signed_micro
from ducto_redis.results import AccountDescription, Lease

if TYPE_CHECKING:
    from ducto_redis.ledger.entry_queries import DerivedEntry

KINDS = ("earlier", "opened", "added", "adjusted", "charged", "returned", "refunded", "expired", "other", "due")
"""The kinds of lines, in their order."""

_OPENING_TYPE = "signup_bonus"
_CHARGES = ("deduct", "settle", "expire")


class Change(Struct, frozen=True):
    """An entry, with its model and its allowance part; in the ledger, that part is without what an expiry took."""

    entry: JournalEntry
    model: str | None
    type: str | None
    allowance: int


class _Sum(Struct):
    count: int = 0
    amount: int = 0
    from_allowance: int = 0


class BalanceHistory:
    """A fold of an account's entries in the order of seq, up to the state that the engine described.

    Args:
        described: the account, as the engine describes it.
        movements: the number of last movements to keep.
    """

    def __init__(self, described: AccountDescription, movements: int) -> None:
        self._described = described
        self._last_seq = described.balance.seq
        self._sums: dict[tuple[str, str | None], _Sum] = {}
        self._movements: deque[BalanceMovement] = deque(maxlen=max(0, movements))
        self._state = AccountState()
        self._first: JournalEntry | None = None
        self._opening: int | None = None
        self._balance = 0
        self._seq = 0
        self.problems: list[str] = []
        self.missing: list[str] = []

    @property
    def seq(self) -> int:
        """The seq of the last change."""
        return self._seq

    def take(self, change: Change) -> None:
        """Add the next entry. An entry that was added before, or is newer than the described state, is ignored."""
        entry = change.entry
        if not self._seq < entry.seq <= self._last_seq:
            return
        if self._first is None:
            self._first = entry
        elif entry.seq != self._seq + 1:
            self.problems.append(f"the account's changes between {self._seq} and {entry.seq} are missing")
        self._seq = entry.seq
        self._state.apply(entry)
        self._balance += entry.balance_change
        if any(name == "balance" for name, _ in entry.changes):
            if self._opening is None:
                self._opening = self._state.balance - self._balance
            if self._state.balance != self._opening + self._balance:
                self.problems.append(
                    f"up to change {entry.seq} the movements add up to {from_micro(self._opening + self._balance)}, but"
                    f" the balance was {from_micro(self._state.balance)}"
                )
                self._opening = self._state.balance - self._balance
        kind = _kind(change)
        if kind is not None:
            self._add(kind, change)

    def _add(self, kind: tuple[str, str | None], change: Change) -> None:
        entry = change.entry
        total = self._sums.setdefault(kind, _Sum())
        total.count += 1
        total.amount += entry.balance_change
        total.from_allowance += change.allowance
        if entry.balance_change:
            self._movements.appendleft(
                BalanceMovement(
                    transaction_id=entry.transaction_id,
                    at=time_of(entry.time_ms),
                    operation=entry.operation,
                    name=kind[1],
                    amount=from_micro(entry.balance_change),
                    balance_after=from_micro(self._state.balance),
                )
            )

    def result(self, leases: Iterable[Lease]) -> BalanceExplanation:
        """Return the explanation. `leases` are the account's open ones, as the engine lists them."""
        described = self._described
        whole = self._first is not None and self._first.seq == 1
        self._complete(whole)
        holds = self._holds(leases, whole)
        held = sum(to_signed_micro(hold.amount) for hold in holds)
        if held != to_signed_micro(described.balance.held):
            self.problems.append(
                f"open leases hold {from_micro(held)} of the balance, but {described.balance.held} are held: perhaps"
                " a lease was opened or closed just now"
            )
        order = {kind: place for place, kind in enumerate(KINDS)}
        lines = sorted(
            (_line(kind, name, total) for (kind, name), total in self._sums.items()),
            key=lambda line: (order[line.kind], -abs(line.amount), line.name or ""),
        )
        added_up = sum((line.amount for line in lines), from_micro(0))
        if added_up != described.balance.balance:
            self.problems.append(f"the lines add up to {added_up}, but the balance is {described.balance.balance}")
        return BalanceExplanation(
            account=described.account,
            at=described.now,
            balance=described.balance.balance,
            held=described.balance.held,
            available=described.balance.available,
            allowance=described.allowance,
            lines=tuple(lines),
            movements=tuple(self._movements),
            grants=described.grants,
            leases=tuple(holds),
            since=None if self._first is None else time_of(self._first.time_ms),
            adds_up=not self.problems,
            problems=tuple(self.problems),
            missing=tuple(self.missing),
        )

    def _complete(self, whole: bool) -> None:
        """Add the sums of unknown earlier changes, and of changes that are due."""
        balance = to_signed_micro(self._described.balance.balance)
        if self._seq < self._last_seq:
            lost = f"changes {self._seq + 1} to {self._last_seq} of the account"
            self.missing.append(f"{lost}: they are neither in the journal nor in the ledger")
            self._sums["earlier", None] = _Sum(1, balance - self._balance)
            return
        opening = self._opening if self._opening is not None else 0 if whole or not self._last_seq else None
        if not whole and self._last_seq:
            assert self._first is not None
            self.missing.append(f"changes before {self._first.seq}: they were trimmed from the journal")
            if opening is None:
                opening = balance - self._balance
            self._sums["earlier", None] = _Sum(self._first.seq - 1, opening)
        elif opening:
            self.problems.append(f"the account began with {from_micro(opening)} credits that no change added")
        due = balance - (opening or 0) - self._balance
        if due and not self._last_seq:  # a new account: the credits that it would begin with
            self._sums["opened", _OPENING_TYPE] = _Sum(1, due)
        elif due and self._is_due(whole):
            self._sums["due", None] = _Sum(1, due)

    def _is_due(self, whole: bool) -> bool:
        due = self._state.fields.get("due")
        now_ms = self._described.now.timestamp() * 1000
        return (not whole and due is None) or (bool(due) and int(due or 0) <= now_ms)

    def _holds(self, leases: Iterable[Lease], whole: bool) -> list[LeaseHold]:
        records = {lease_id: LeaseRecord.decode(text) for lease_id, text in self._state.leases.items()}
        now_ms = self._described.now.timestamp() * 1000
        if whole and self._seq == self._last_seq:
            open_leases = [
                _hold(lease_id, record)
                for lease_id, record in records.items()
                if record.state == "open" and record.expires_ms > now_ms
            ]
        else:
            open_leases = [
                _hold(lease.lease_id, records[lease.lease_id]) if lease.lease_id in records else _listed(lease)
                for lease in leases
            ]
        return sorted(open_leases, key=lambda hold: (hold.created_at, hold.lease_id))


def read_history(history: BalanceHistory, reader: HistoryReader, changes: Iterable[Change]) -> None:
    """Add the entries of the ledger, then those that only the journal has."""
    position = reader.ledger_position()  # read first: an entry that is written meanwhile comes twice, never not at all
    for change in changes:
        history.take(change)
    for entry in reader.journal_after(position):
        history.take(_of_journal(entry))


def of_ledger(pages: Iterable[Iterable["DerivedEntry"]]) -> Iterator[Change]:
    """Yield the entries of the ledger, one by one."""
    for page in pages:
        for derived in page:
            yield Change(derived.entry, derived.model, derived.type, derived.allowance)


def _of_journal(entry: JournalEntry) -> Change:
    try:
        details, cause = entry.read_details(), entry.read_cause()
    except (UnreadableEntryError, msgspec.MsgspecError):
        return Change(entry, None, None, 0)
    models = {usage.model for usage in cause.usages}
    credits_type = cause.type
    if entry.operation == "expire_grant" and details.grants:
        credits_type = details.grants[0].type
    charges = entry.operation in (*_CHARGES, "refund")
    return Change(entry, models.pop() if len(models) == 1 else None, credits_type, details.allowance if charges else 0)


def _kind(change: Change) -> tuple[str, str | None] | None:
    entry = change.entry
    moved = entry.balance_change or change.allowance
    match entry.operation:
        case "open_account":
            return ("opened", change.type or _OPENING_TYPE) if moved else None
        case "add_credits":
            return "added", change.type
        case "deduct" | "settle":
            return "charged", change.model
        case "expire":
            return ("charged", change.model) if moved else None
        case "release":
            return ("returned", change.model) if moved else None
        case "refund":
            return "refunded", change.model
        case "expire_grant":
            return "expired", change.type
        case "adjust_credits":
            return "adjusted", None
        case operation:
            return ("other", operation) if moved else None


def _line(kind: str, name: str | None, total: _Sum) -> BalanceLine:
    return BalanceLine(
        kind=kind,
        name=name,
        count=total.count,
        amount=from_micro(total.amount),
        from_allowance=from_micro(total.from_allowance),
    )


def _hold(lease_id: str, record: LeaseRecord) -> LeaseHold:
    of_allowance = LeaseGrounds.decode(record.grounds).allowance
    return LeaseHold(
        lease_id=lease_id,
        amount=from_micro(record.amount - of_allowance),
        of_allowance=from_micro(of_allowance),
        operation_type=record.operation_type,
        owner=record.owner,
        created_at=time_of(record.created_ms),
        expires_at=time_of(record.expires_ms),
    )


def _listed(lease: Lease) -> LeaseHold:
    # Only its record says which part of it comes from the allowance.
    return LeaseHold(
        lease_id=lease.lease_id,
        amount=lease.amount,
        of_allowance=from_micro(0),
        operation_type=lease.operation_type,
        owner=lease.owner,
        created_at=lease.created_at,
        expires_at=lease.expires_at,
    )
