"""Queries for entries of the ledger: those of a lease, of an account, the charges of a period."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import select, tuple_

from ducto_redis.deprecation import renamed_method
from ducto_redis.engine.entry import JournalEntry, UnreadableEntryError
from ducto_redis.errors import LedgerError
from ducto_redis.ledger.database import Database
from ducto_redis.ledger.rows import JOURNAL_COLUMNS, entry_of
from ducto_redis.ledger.schema import entries, partitions

ENTRIES_AT_A_TIME = 2000
_CHARGES = ("deduct", "settle")
_LEASE_STEPS = ("reserve", "settle", "release", "expire")
_LEASE_ENDS = ("settle", "release", "expire")
_LEASE_CHANGES = ("extend", "renew")
_CHANGES_LOOKED_AT = 10_000


class DerivedEntry(Struct, frozen=True):
    """A journal entry, with the columns that the ledger derived from it.

    Attributes:
        entry: the entry, as in the journal.
        balance_after: the balance after it, in micro-credits.
        charged, allowance: micro-credits that it charged, and the allowance's part of them. If the expiry of its lease
            was charged before, the difference to that.
        model: the model that was priced, if it was one; of a refund, that of the refunded charge.
        type: the type of credits that came in or expired.
        superseded: True if it was taken back when Redis was recovered.
    """

    entry: JournalEntry
    balance_after: int
    charged: int
    allowance: int
    model: str | None
    type: str | None
    superseded: bool


class EntryQueries:
    """The part of the ledger that reads entries."""

    _database: Database

    trace_lease = renamed_method("trace_lease", "lease_entries")
    trace_account = renamed_method("trace_account", "account_entries")
    trace_charges = renamed_method("trace_charges", "charge_entries")

    def lease_entries(self, namespace: str, account: str, lease_id: str) -> list[JournalEntry]:
        """Return the entries of a lease, in order; of all leases of that id, if it was used again.

        They include the changes of its hold by leases inside it.
        """
        name = f"lease/{lease_id}"
        ours = [entries.c.namespace == namespace, entries.c.account == account, entries.c.superseded == 0]
        steps = [f"lease/{lease_id}/{step}" for step in _LEASE_STEPS]
        found = self._rows(select(*JOURNAL_COLUMNS).where(*ours, entries.c.operation_key.in_(steps)))
        places = [(row.epoch, row.seq) for row in found]
        if places:
            # An extension has a key of its own, and is found by its changes; so are the entries of leases inside it.
            place = tuple_(entries.c.epoch, entries.c.seq)
            inside = entries.c.operation.in_(_LEASE_STEPS) & entries.c.changes.contains(f"{name}\t", autoescape=True)
            changed = select(*JOURNAL_COLUMNS).where(
                *ours, place > min(places), entries.c.operation.in_(_LEASE_CHANGES) | inside
            )
            if any(row.operation in _LEASE_ENDS for row in found):
                changed = changed.where(place < max(places))
            found = [*found, *self._rows(changed.order_by(entries.c.epoch, entries.c.seq).limit(_CHANGES_LOOKED_AT))]
        places_of = {(row.epoch, row.seq): row for row in found}  # the last of its steps may be found twice
        found_entries = [_entry(row) for _, row in sorted(places_of.items())]
        return [entry for entry in found_entries if any(changed == name for changed, _ in entry.changes)]

    def account_entries(self, namespace: str, account: str) -> Iterator[list[DerivedEntry]]:
        """Yield all entries that lead to an account's balance, oldest first, in pages, each read in a transaction.

        Raises:
            LedgerError: also for entries that were tampered with.
        """
        after = (-1, -1, -1)
        order = (entries.c.epoch, entries.c.seq, entries.c.id)
        while True:
            statement = (
                select(*JOURNAL_COLUMNS)
                .where(
                    entries.c.namespace == namespace,
                    entries.c.account == account,
                    entries.c.superseded == 0,
                    tuple_(entries.c.epoch, entries.c.seq) >= after[:2],  # for the index
                    tuple_(*order) > after,
                )
                .order_by(*order)
                .limit(ENTRIES_AT_A_TIME)
            )
            rows = self._rows(statement)
            if not rows:
                return
            yield [_derived(row) for row in rows]
            after = (rows[-1].epoch, rows[-1].seq, rows[-1].id)

    def charge_entries(self, namespace: str, start_ms: int, end_ms: int) -> Iterator[list[JournalEntry]]:
        """Yield deduct and settle entries of a period, partition by partition, in pages, each read in a transaction."""
        with self._database.read() as connection:
            reached = connection.execute(
                select(partitions.c.partition, partitions.c.epoch)
                .where(partitions.c.namespace == namespace)
                .order_by(partitions.c.partition)
            ).all()
        for partition, last_epoch in reached:
            for epoch in range(last_epoch + 1):
                yield from self._charges(namespace, partition, epoch, start_ms, end_ms)

    def _charges(
        self, namespace: str, partition: int, epoch: int, start_ms: int, end_ms: int
    ) -> Iterator[list[JournalEntry]]:
        after_ms, after_seq = start_ms, -1
        while True:
            statement = (
                select(*JOURNAL_COLUMNS)
                .where(
                    entries.c.namespace == namespace,
                    entries.c.partition == partition,
                    entries.c.epoch == epoch,
                    entries.c.entry_ms >= after_ms,
                    entries.c.entry_ms < end_ms,
                    (entries.c.entry_ms > after_ms) | (entries.c.entry_seq > after_seq),
                    entries.c.operation.in_(_CHARGES),
                    entries.c.superseded == 0,
                )
                .order_by(entries.c.entry_ms, entries.c.entry_seq)
                .limit(ENTRIES_AT_A_TIME)
            )
            rows = self._rows(statement)
            if not rows:
                return
            yield [_entry(row) for row in rows]
            after_ms, after_seq = rows[-1].entry_ms, rows[-1].entry_seq

    def _rows(self, statement: Any) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(statement).all()


def _derived(row: Any) -> DerivedEntry:
    return DerivedEntry(
        _entry(row), row.balance_after, row.charged, row.allowance, row.model, row.type, bool(row.superseded)
    )


def _entry(row: Any) -> JournalEntry:
    try:
        return entry_of(row)
    except UnreadableEntryError as error:
        raise LedgerError(
            f"entry {row.id} of account {row.account!r} cannot be read: {error}; see `ducto ledger verify`"
        ) from error
