"""One account's history: a fold of its entries in order, with the problems that it finds.

An account whose Redis was rolled back and recovered continues under a new epoch, from a seq that it had reached before.
Entries of older epochs from that seq on are superseded: they are kept, but no longer lead to the balance. Recovery
journals their changes under the new epoch, with the same operation keys, so that each is still one change.
"""

from collections.abc import Mapping

from msgspec import Struct

from ducto_redis.engine.entry import (
    LEASE_CHANGE,
    Details,
    JournalEntry,
    LeaseGrounds,
    LeaseRecord,
    UnreadableEntryError,
)
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.movements import NOTHING_PAID, Paid
from ducto_redis.ledger.rows import ReadEntry

_PROBLEMS_KEPT = 5
_WITHOUT_CHARGE = frozenset(
    (
        "reserve",
        "renew",
        "extend",
        "forget",
        "sweep",
        "publish_pricing",
        "activate_pricing",
        "set_plan",
        "set_cap",
        "remove_cap",
        "raise_cap",
        "clear_cap",
        "freeze",
        "unfreeze",
        "create_team",
        "set_member",
    )
)
_COMING_IN = frozenset(("add_credits", "open_account", "adjust_credits"))
_WITHOUT_SHORTFALL = _WITHOUT_CHARGE | _COMING_IN | frozenset(("deduct", "release", "expire", "refund", "expire_grant"))
OPERATIONS = _WITHOUT_SHORTFALL | frozenset(("settle",))
"""The operations of entries."""


class _Lease(Struct, frozen=True):
    """The parts of a lease's record that count in the account's balance. Micro-credits."""

    open: int
    held: int
    paid: Paid


_NO_LEASE = _Lease(0, 0, NOTHING_PAID)


class History:
    """A fold of an account's entries in the order of epoch, seq and arrival.

    Args:
        starts: the first seq of every epoch after the first.

    Attributes:
        state: the state after the entries.
        balance: the sum of the entries' changes, in micro-credits.
        forked, gapped: True if two entries have one seq, or one is missing.
        problems: the first few inconsistencies.
        leads: True if the last entry leads to the state; False if it was superseded.
        paid: the charge of the expiry of the lease that the last entry closed.
    """

    def __init__(self, starts: Mapping[int, int] | None = None) -> None:
        self.state = AccountState()
        self.balance = 0
        self.forked = False
        self.gapped = False
        self.problems: list[str] = []
        self.leads = True
        self.paid = NOTHING_PAID
        self._starts = dict(starts or {})
        self._held = 0
        self._epoch: int | None = None
        self._reached = 0  # last seq of this epoch
        self._last_id = (0, 0)
        self._current = 0  # last seq that leads to the state
        self._superseded: dict[str, str] = {}

    def take(self, read: ReadEntry, balance_after: int | None = None) -> None:
        """Add the next entry. `balance_after`, if given, is compared with the sum of the entries."""
        entry = read.entry
        self._place(read)
        self.paid = NOTHING_PAID
        self.leads = not any(entry.epoch < epoch and entry.seq >= start for epoch, start in self._starts.items())
        if not self.leads:
            self._superseded[entry.operation_key] = _place_of(entry)
            return
        self._superseded.pop(entry.operation_key, None)
        self._current = entry.seq
        lease_ids = [name[len(LEASE_CHANGE) :] for name, _ in entry.changes if name.startswith(LEASE_CHANGE)]
        before = self._leases(entry, lease_ids)
        self.state.apply(entry)
        after = self._leases(entry, lease_ids)
        # The first is the entry's own lease; the leases around it only hold more or less because of it.
        own_before, own_after = (leases[0] if leases else _NO_LEASE for leases in (before, after))
        if entry.operation in ("settle", "release"):
            self.paid = own_before.paid
        self._check_change(entry, read.details, own_after.paid.charged)
        self._check_amount(entry, own_before.open, own_after.open)
        self._held += sum(it.held for it in after) - sum(it.held for it in before)
        if self._held != self.state.held:
            self.problem(f"{_place_of(entry)}: leases hold {self._held}, but held is {self.state.held}")
            self._held = self.state.held
        self.balance += entry.balance_change
        if balance_after is not None and self.state.balance != balance_after:
            self.problem(f"{_place_of(entry)}: balance {self.state.balance}, but balance_after {balance_after}")
        if balance_after is not None and self.balance != balance_after:
            self.problem(f"{_place_of(entry)}: entries add up to {self.balance}, but balance_after is {balance_after}")
            self.balance = balance_after

    def finish(self) -> list[str]:
        """Return all problems, after the last entry."""
        for operation_key, place in self._superseded.items():
            self.problem(f"{place}: {operation_key} was lost when Redis was rolled back")
        return self.problems

    def _place(self, read: ReadEntry) -> None:
        entry, entry_id = read.entry, (read.entry_ms, read.entry_seq)
        if entry.epoch != self._epoch:
            self._epoch, self._reached = entry.epoch, self._current
        elif entry.seq == self._reached:
            self.forked = True
            self.problem(f"{_place_of(entry)}: fork, a second entry with another operation key")
        elif entry_id <= self._last_id and not self.forked:
            self.problem(f"{_place_of(entry)}: its id {entry.entry_id} is not above that of the entry before")
        if entry.seq > self._reached + 1:
            self.gapped = True
            self.problem(f"epoch {entry.epoch}: gap, no entry between seq {self._reached} and {entry.seq}")
        self._reached, self._last_id = entry.seq, entry_id

    def _check_change(self, entry: JournalEntry, details: Details, charged_after: int) -> None:
        # The charge of a lease's expiry comes back when the lease is closed, and a settle charges again.
        returned = self.paid.charged - self.paid.allowance
        match entry.operation:
            case operation if operation in _COMING_IN:
                expected = entry.amount
            case "deduct" | "settle":
                expected = returned + details.allowance - entry.charged
            case "release":
                expected = returned
            case "expire":
                expected = details.allowance - charged_after
            case "refund":
                expected = entry.amount - details.allowance - details.lost
            case "expire_grant":
                expected = -entry.amount
            case operation if operation in _WITHOUT_CHARGE:
                expected = 0
            case _:
                return
        if entry.balance_change != expected:
            self.problem(
                f"{_place_of(entry)}: {entry.operation} of {entry.amount} must move the balance by {expected},"
                f" but the entry says {entry.balance_change}"
            )

    def _check_amount(self, entry: JournalEntry, open_before: int, open_after: int) -> None:
        match entry.operation:
            case "reserve" | "extend":
                expected = open_after - open_before
            case "renew":
                expected = open_after
            case "release" | "expire":
                expected = open_before - open_after
            case operation if operation in _WITHOUT_CHARGE:
                expected = 0
            case _:
                expected = entry.amount
        if entry.amount != expected:
            self.problem(f"{_place_of(entry)}: {entry.operation} of {entry.amount}, but it must be {expected}")
        if entry.shortfall and entry.operation in _WITHOUT_SHORTFALL:
            self.problem(f"{_place_of(entry)}: {entry.operation} has a shortfall of {entry.shortfall}")

    def _leases(self, entry: JournalEntry, lease_ids: list[str]) -> list[_Lease]:
        found = []
        for lease_id in lease_ids:
            record = self.state.leases.get(lease_id)
            lease = _NO_LEASE
            if record is not None:
                try:
                    lease = _read_lease(record)
                except UnreadableEntryError as error:
                    self.problem(f"{_place_of(entry)}: lease {lease_id!r}: {error}")
            found.append(lease)
        return found

    def problem(self, text: str) -> None:
        """Record a problem."""
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(text)


def _read_lease(record: str) -> _Lease:
    lease = LeaseRecord.decode(record)
    grounds = LeaseGrounds.decode(lease.grounds)
    amount = lease.amount if lease.state == "open" else 0
    held = amount - grounds.allowance if amount else 0
    return _Lease(amount, held, Paid(lease.charged, grounds.paid.allowance) if lease.charged else NOTHING_PAID)


def _place_of(entry: JournalEntry) -> str:
    return f"epoch {entry.epoch}, seq {entry.seq}"
