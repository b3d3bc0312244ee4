"""An account's state, folded from its journal entries.

Folding all entries of an account by seq gives exactly the account's keys in Redis: that is what makes them rebuildable.
"""

from collections.abc import Iterable

from ducto_redis.engine.entry import LEASE_CHANGE, JournalEntry, LeaseRecord


class AccountState:
    """The fields of an account's hash and its lease records, as text."""

    __slots__ = ("fields", "leases")

    def __init__(self, fields: dict[str, str] | None = None, leases: dict[str, str] | None = None) -> None:
        self.fields = {} if fields is None else fields
        self.leases = {} if leases is None else leases

    @classmethod
    def fold(cls, entries: Iterable[JournalEntry]) -> "AccountState":
        """Return the state after the entries, which must be one account's in the order of seq."""
        state = cls()
        for entry in entries:
            state.apply(entry)
        return state

    def apply(self, entry: JournalEntry) -> None:
        """Take one entry in."""
        self.fields["epoch"] = str(entry.epoch)
        self.fields["seq"] = str(entry.seq)
        for name, value in entry.changes:
            if not name.startswith(LEASE_CHANGE):
                if not value and "/" in name:  # one of many of its kind, and gone
                    self.fields.pop(name, None)
                else:
                    self.fields[name] = value
            elif not value:
                self.leases.pop(name.removeprefix(LEASE_CHANGE), None)
            else:
                if value.endswith("*"):  # the record names the entry that opened the lease: this one
                    value = value[:-1] + entry.entry_id
                self.leases[name.removeprefix(LEASE_CHANGE)] = value

    @property
    def balance(self) -> int:
        """Micro-credits."""
        return int(self.fields.get("balance", "0"))

    @property
    def held(self) -> int:
        """Micro-credits that open leases hold, as the account's hash says it."""
        return int(self.fields.get("held", "0"))

    @property
    def held_by_leases(self) -> int:
        """Micro-credits that open leases hold, added up from their records."""
        records = (LeaseRecord.decode(record) for record in self.leases.values())
        return sum(record.balance_part for record in records if record.state == "open")

    @property
    def seq(self) -> int:
        """The number of the account's changes."""
        return int(self.fields.get("seq", "0"))
