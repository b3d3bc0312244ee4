"""A reader of one account's history, from the journal and the ledger. Blocking.

The journal in Redis has the latest entries, at least all that some consumer has not read yet. The ledger has all but
the last moments.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import RedisError

from ducto_redis.engine.entry import ENTRY_FIELD, LEASE_CHANGE, JournalEntry, UnreadableEntryError, decode_entry
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.store.contract import CreditStore, JournalledStore

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger

T = TypeVar("T")

LOOKED_AT = 100_000
"""The most entries of a partition's journal that are searched for those of one account."""

_AT_A_TIME = 1000
FIRST = "-"
"""The id before every entry of a journal."""


class HistoryReader:
    """The entries of one account.

    Args:
        store: the store of the journal.
        ledger: the ledger, or None.
        account: the account.
        partition: the partition of its journal.

    Attributes:
        missing: notes of what was not found, and why.
    """

    def __init__(self, store: CreditStore, ledger: "Ledger | None", account: str, partition: int) -> None:
        self._store = store if isinstance(store, JournalledStore) else None
        self._ledger = ledger
        self._namespace = store.namespace
        self._account = account
        self._partition = partition
        self.missing: list[str] = []

    def balance_after(self, entry: JournalEntry) -> int | None:
        """Return the balance after an entry, in micro-credits, or None if it is not known."""
        written = _balance_in(entry)
        if written is not None:
            return written
        if self._ledger is not None:
            known = self._ledger.transaction(self._namespace.name, entry.transaction_id)
            if known is not None:
                return known.balance_after
        for earlier in self._journal_before(entry):
            written = _balance_in(earlier)
            if written is not None:
                return written
            if earlier.seq == 1:
                return 0
        if entry.seq == 1:
            return 0
        for later in self.journal_after(entry.entry_id):
            written = _balance_in(later)
            if written is not None:
                return written - later.balance_change
        return None

    def of_lease(self, lease_id: str, entry: JournalEntry) -> list[JournalEntry]:
        """Return the entries of the lease of `entry`, in order. The id may have been used before and after."""

        def is_of_lease(other: JournalEntry) -> bool:
            return any(name == LEASE_CHANGE + lease_id for name, _ in other.changes)

        found = {entry.transaction_id: entry}
        if self._ledger is not None:
            for each in self._ledger.lease_entries(self._namespace.name, self._account, lease_id):
                found[each.transaction_id] = each
        else:
            for each in self._journal_before(entry):
                if is_of_lease(each):
                    found[each.transaction_id] = each
                    if _opens(each, lease_id):
                        break
        for each in self.journal_after(self._only_journal_after(entry)):
            if is_of_lease(each):
                found[each.transaction_id] = each
        return _one_life(sorted(found.values(), key=_place), entry, lease_id)

    def refunds_of(self, entry: JournalEntry) -> list[JournalEntry]:
        """Return the refunds of a charge, oldest first."""
        found: dict[str, JournalEntry] = {}
        if self._ledger is not None:
            for refund in self._ledger.refunds(self._namespace.name, entry.transaction_id):
                stored = self._ledger.entry(self._namespace.name, refund.transaction_id)
                if stored is not None:
                    found[stored.transaction_id] = stored
        for each in self.journal_after(self._only_journal_after(entry)):
            if each.operation == "refund" and each.read_details().refund_of == entry.transaction_id:
                found[each.transaction_id] = each
        return sorted(found.values(), key=_place)

    def limits(self) -> list[str]:
        """Return notes of everything that cannot be known, and why."""
        if self._ledger is not None:
            return []
        if self._store is None:
            return ["there is no ledger, and the journal of this store cannot be searched: other changes are not known"]
        return ["there is no ledger: only the entries that are still in the journal in Redis are known"]

    def ledger_position(self) -> str:
        """Return the last entry of the partition that the ledger has read, or `FIRST`."""
        if self._ledger is None:
            return FIRST
        position = self._ledger.position(self._namespace.name, self._partition)
        return FIRST if position is None else position.entry_id

    def journal_after(self, entry_id: str) -> Iterator[JournalEntry]:
        """Yield the account's entries in the journal after an entry id, or all after `FIRST`."""
        if self._store is None:
            return
        client, journal = self._store.redis(), self._namespace.journal(self._partition)
        start = entry_id if entry_id == FIRST else f"({entry_id}"
        yield from self._account_entries(
            lambda after: client.xrange(journal, f"({after}" if after else start, "+", count=_AT_A_TIME)
        )

    def _only_journal_after(self, entry: JournalEntry) -> str:
        return entry.entry_id if self._ledger is None else self.ledger_position()

    def _journal_before(self, entry: JournalEntry) -> Iterator[JournalEntry]:
        if self._store is None:
            return
        client, journal = self._store.redis(), self._namespace.journal(self._partition)
        start = f"({entry.entry_id}"
        yield from self._account_entries(
            lambda before: client.xrevrange(journal, f"({before}" if before else start, "-", count=_AT_A_TIME)
        )

    def _account_entries(self, read: Callable[[str], list[tuple[bytes, dict[bytes, bytes]]]]) -> Iterator[JournalEntry]:
        mark = b"\t" + self._account.encode() + b"\t"
        last, looked_at = "", 0
        while looked_at < LOOKED_AT:
            try:
                page = read(last)
            except RedisError as error:
                raise StoreUnavailableError(f"the journal could not be read: {error}") from error
            for raw_id, fields in page:
                last = raw_id.decode()
                text = fields[ENTRY_FIELD]
                if mark not in text:
                    continue
                try:
                    entry = decode_entry(self._partition, last, text)
                except UnreadableEntryError as error:
                    self.missing.append(f"journal entry {last} cannot be read: {error}")
                    continue
                if entry.account == self._account:
                    yield entry
            if len(page) < _AT_A_TIME:
                return
            looked_at += len(page)
        note = f"only {LOOKED_AT} entries of the journal were searched"
        if note not in self.missing:
            self.missing.append(note)


def lease_of(entry: JournalEntry) -> str | None:
    """Return the id of the lease of an entry, or None."""
    if entry.lease is not None:
        return entry.lease[0]
    key = entry.operation_key  # of a store that keeps no changes
    return key.removeprefix(LEASE_CHANGE).rpartition("/")[0] if key.startswith(LEASE_CHANGE) else None


def _balance_in(entry: JournalEntry) -> int | None:
    for name, text in entry.changes:
        if name == "balance":
            return int(text)
    return None


def _place(entry: JournalEntry) -> tuple[int, int]:
    return entry.epoch, entry.seq


def _opens(entry: JournalEntry, lease_id: str) -> bool:
    return entry.operation == "reserve" and lease_of(entry) == lease_id


def _one_life(entries: list[JournalEntry], entry: JournalEntry, lease_id: str) -> list[JournalEntry]:
    """Return the entries from the reserve before `entry` up to the next one."""
    life: list[JournalEntry] = []
    for each in entries:
        if _opens(each, lease_id):
            if _place(each) > _place(entry):
                break
            life = []
        life.append(each)
    return life
