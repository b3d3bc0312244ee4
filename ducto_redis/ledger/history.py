"""One account's history: its entries folded in order, and what is wrong with them.

An account whose Redis was rolled back and recovered continues under a new epoch, from a seq that it had reached before.
Entries of older epochs from that seq on are superseded: they are kept, and no longer lead to the balance. Recovery
journals what they did under the new epoch, with the same operation keys, so that each is still one change.
"""

from collections.abc import Iterable, Mapping

from ducto_redis.engine.entry import LEASE_CHANGE, JournalEntry, LeaseRecord, UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.rows import split_id

_PROBLEMS_KEPT = 5
_WITHOUT_CHARGE = frozenset(
    ("reserve", "renew", "extend", "forget", "sweep", "publish_pricing", "activate_pricing"),
)
_WITHOUT_SHORTFALL = _WITHOUT_CHARGE | {"add_credits", "release", "expire"}


class History:
    """Takes an account's entries in the order of epoch, seq and arrival.

    Args:
        starts: the first seq of every epoch after the first.

    Attributes:
        state: what the entries lead to.
        balance: micro-credits that the entries' changes add up to.
        forked, gapped: whether two entries stand at one seq, and whether one is missing.
        problems: what does not add up, the first few.
    """

    def __init__(self, starts: Mapping[int, int] | None = None) -> None:
        self.state = AccountState()
        self.balance = 0
        self.forked = False
        self.gapped = False
        self.problems: list[str] = []
        self._starts = dict(starts or {})
        self._held = 0
        self._epoch: int | None = None
        self._reached = 0  # last seq of this epoch
        self._last_id = (0, 0)
        self._current = 0  # last seq that leads to the state
        self._superseded: dict[str, str] = {}

    def take(self, entry: JournalEntry, balance_after: int | None = None) -> None:
        """Take the next entry in. `balance_after`, where it is given, is compared with what the entries add up to."""
        self._place(entry)
        if self._starts and any(entry.epoch < epoch and entry.seq >= start for epoch, start in self._starts.items()):
            self._superseded[entry.operation_key] = _place_of(entry)
            return
        self._superseded.pop(entry.operation_key, None)
        self._current = entry.seq
        lease_ids = [name[len(LEASE_CHANGE) :] for name, _ in entry.changes if name.startswith(LEASE_CHANGE)]
        before = self._records(entry, lease_ids)
        self.state.apply(entry)
        after = self._records(entry, lease_ids)
        self._check_change(entry, _charged(before) - _charged(after))
        self._check_amount(entry, _open(before), _open(after))
        self._held += _open(after) - _open(before)
        if self._held != self.state.held:
            self.problem(f"{_place_of(entry)}: leases hold {self._held}, held is {self.state.held}")
            self._held = self.state.held
        self.balance += entry.balance_change
        if balance_after is not None and self.state.balance != balance_after:
            self.problem(f"{_place_of(entry)}: the balance is {self.state.balance}, balance_after is {balance_after}")
        if balance_after is not None and self.balance != balance_after:
            self.problem(f"{_place_of(entry)}: entries add up to {self.balance}, balance_after is {balance_after}")
            self.balance = balance_after

    def finish(self) -> list[str]:
        """All that is wrong, once every entry was taken."""
        for operation_key, place in self._superseded.items():
            self.problem(f"{place}: {operation_key} was lost when Redis was rolled back")
        return self.problems

    def _place(self, entry: JournalEntry) -> None:
        entry_id = split_id(entry.entry_id)
        if entry.epoch != self._epoch:
            self._epoch, self._reached = entry.epoch, self._current
        elif entry.seq == self._reached:
            self.forked = True
            self.problem(f"{_place_of(entry)}: fork, a second entry with another operation key")
        elif entry_id <= self._last_id and not self.forked:
            self.problem(f"{_place_of(entry)}: its id {entry.entry_id} is not above that of the entry before")
        if entry.seq > self._reached + 1:
            self.gapped = True
            self.problem(f"epoch {entry.epoch}: gap, nothing between seq {self._reached} and {entry.seq}")
        self._reached, self._last_id = entry.seq, entry_id

    def _check_change(self, entry: JournalEntry, charged_before: int) -> None:
        # What a lease's expiry has charged is part of what its settle pays, and comes back when it is released.
        match entry.operation:
            case "add_credits":
                expected = entry.amount
            case "deduct":
                expected = entry.shortfall - entry.amount
            case "settle":
                expected = charged_before + entry.shortfall - entry.amount
            case "release" | "expire":
                expected = charged_before
            case operation if operation in _WITHOUT_CHARGE:
                expected = 0
            case _:
                return
        if entry.balance_change != expected:
            self.problem(
                f"{_place_of(entry)}: {entry.operation} of {entry.amount} must move the balance by {expected},"
                f" the entry says {entry.balance_change}"
            )

    def _check_amount(self, entry: JournalEntry, held_before: int, held_after: int) -> None:
        match entry.operation:
            case "reserve" | "extend":
                expected = held_after - held_before
            case "renew":
                expected = held_after
            case "release" | "expire":
                expected = held_before - held_after
            case operation if operation in _WITHOUT_CHARGE:
                expected = 0
            case _:
                expected = entry.amount
        if entry.amount != expected:
            self.problem(f"{_place_of(entry)}: {entry.operation} is about {expected}, the amount says {entry.amount}")
        if entry.shortfall and entry.operation in _WITHOUT_SHORTFALL:
            self.problem(f"{_place_of(entry)}: {entry.operation} has a shortfall of {entry.shortfall}")

    def _records(self, entry: JournalEntry, lease_ids: list[str]) -> list[LeaseRecord]:
        records = []
        for lease_id in lease_ids:
            record = self.state.leases.get(lease_id)
            if record is not None:
                try:
                    records.append(LeaseRecord.decode(record))
                except UnreadableEntryError as error:
                    self.problem(f"{_place_of(entry)}: lease {lease_id!r}: {error}")
        return records

    def problem(self, text: str) -> None:
        """Say that something does not add up."""
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(text)


def _open(leases: Iterable[LeaseRecord]) -> int:
    return sum(lease.amount for lease in leases if lease.state == "open")


def _charged(leases: Iterable[LeaseRecord]) -> int:
    return sum(lease.charged for lease in leases)


def _place_of(entry: JournalEntry) -> str:
    return f"epoch {entry.epoch}, seq {entry.seq}"
