"""The ledger: the history of every account in SQL."""

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import select

from ducto_redis.engine.entry import JournalEntry, UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import LedgerError
from ducto_redis.ledger.analytics import Analytics
from ducto_redis.ledger.database import Database
from ducto_redis.ledger.engine_check import EngineStore
from ducto_redis.ledger.entry_queries import EntryQueries
from ducto_redis.ledger.migration import migrate
from ducto_redis.ledger.rebuilding import stored_fields
from ducto_redis.ledger.reports import LedgerAccount, LedgerEntry, Position, RawEntry, VerifyReport, WriteReport
from ducto_redis.ledger.rows import (
    JOURNAL_COLUMNS,
    STATEMENT_COLUMNS,
    entry_of,
    ledger_entry_of,
    place_of,
)
from ducto_redis.ledger.schema import accounts, entries, leases, partitions
from ducto_redis.ledger.transaction_pages import is_before
from ducto_redis.ledger.unreadable import reread
from ducto_redis.ledger.verify import verify
from ducto_redis.ledger.writer import write_batch


class Ledger(EntryQueries):
    """The ledger in one database. Blocking; safe to use from several threads, and after a fork.

    Connections are opened at first use. Every method may raise LedgerUnavailableError, if the database cannot be used
    at the moment, or LedgerError.

    >>> ledger = Ledger.from_url("sqlite://")
    >>> ledger.migrate()
    >>> ledger.is_empty("ducto")
    True
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def from_url(cls, url: str) -> "Ledger":
        """Return the ledger at `sqlite:///path`, `sqlite://` (in memory) or `postgresql://user@host/name`.

        Raises:
            ConfigError: if the URL is none of these.
        """
        return cls(Database(url))

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self._database.name

    def migrate(self) -> None:
        """Create the tables, or bring them to the newest schema. Repeats, and several processes at once, are safe."""
        migrate(self._database)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, namespace: str, partition: int, raw_entries: Sequence[RawEntry]) -> WriteReport:
        """Write journal entries of one partition, and their accounts' latest state, in one transaction.

        Entries that the ledger has already are left as they are, so that a batch may be repeated. An entry that cannot
        be read is stored raw and marks its account; a missing seq marks the account until the entry comes; a second
        entry at the same seq with another operation key is kept, and marks the account.

        Args:
            namespace: the namespace's name.
            partition: the partition of the journal.
            raw_entries: (entry id, text) as in the stream, in its order.
        """
        if not raw_entries:
            return WriteReport(written=0, repeated=0, unreadable=0)
        with self._database.write() as connection:
            return write_batch(connection, namespace, partition, raw_entries)

    def reread(self, namespace: str) -> WriteReport:
        """Read the entries that are stored raw again, and write those that this version understands."""
        with self._database.write() as connection:
            return reread(connection, namespace)

    def is_empty(self, namespace: str) -> bool:
        """Return True if nothing was ever written for the namespace."""
        with self._database.read() as connection:
            found = connection.execute(
                select(partitions.c.partition).where(partitions.c.namespace == namespace).limit(1)
            )
            return found.first() is None

    def position(self, namespace: str, partition: int) -> Position | None:
        """Return the position up to which the partition's journal was written, or None."""
        with self._database.read() as connection:
            row = connection.execute(
                select(partitions).where(partitions.c.namespace == namespace, partitions.c.partition == partition)
            ).first()
        return None if row is None else Position(row.epoch, f"{row.entry_ms}-{row.entry_seq}")

    def account(self, namespace: str, account: str) -> LedgerAccount | None:
        """Return the latest state of an account, or None if it has no entries."""
        with self._database.read() as connection:
            row = connection.execute(
                select(accounts).where(accounts.c.namespace == namespace, accounts.c.account == account)
            ).first()
            if row is None:
                return None
            records = connection.execute(
                select(leases.c.lease_id, leases.c.record).where(
                    leases.c.namespace == namespace, leases.c.account == account
                )
            ).all()
        fields = stored_fields(row.fields)
        if fields is None:
            raise LedgerError(f"the stored state of account {account!r} cannot be read: see `ducto ledger verify`")
        state = AccountState(fields, {it[0]: it[1] for it in records})
        return LedgerAccount(
            namespace=namespace,
            account=account,
            partition=row.partition,
            epoch=row.epoch,
            seq=row.seq,
            balance=row.balance,
            held=row.held,
            state=state,
            marks=tuple(row.marks.split()),
        )

    def entries(
        self, namespace: str, account: str, *, limit: int = 100, before: LedgerEntry | None = None
    ) -> list[LedgerEntry]:
        """Return an account's entries, newest first.

        Args:
            limit: the most entries to return.
            before: the last entry of the page before.
        """
        conditions: list[Any] = [entries.c.namespace == namespace, entries.c.account == account]
        order = (entries.c.epoch, entries.c.seq, entries.c.operation_key)
        if before is not None:
            conditions.append(is_before(before.epoch, before.seq, before.operation_key))
        statement = select(*STATEMENT_COLUMNS).where(*conditions).order_by(*(it.desc() for it in order)).limit(limit)
        with self._database.read() as connection:
            return [ledger_entry_of(row) for row in connection.execute(statement)]

    def entry(self, namespace: str, transaction_id: str) -> JournalEntry | None:
        """Return the journal entry of a transaction id, `<partition>-<epoch>-<entry id>`, or None.

        Raises:
            LedgerError: if it was tampered with.
        """
        row = self._row(namespace, transaction_id, JOURNAL_COLUMNS)
        if row is None:
            return None
        try:
            return entry_of(row)
        except UnreadableEntryError as error:
            raise LedgerError(f"entry {transaction_id} cannot be read: {error}") from None

    def transaction(self, namespace: str, transaction_id: str) -> LedgerEntry | None:
        """Return the same entry with the balance after it, its charge, and the other derived columns."""
        row = self._row(namespace, transaction_id, STATEMENT_COLUMNS)
        return None if row is None else ledger_entry_of(row)

    def refunds(self, namespace: str, transaction_id: str) -> list[LedgerEntry]:
        """Return the refunds of a charge, oldest first."""
        statement = (
            select(*STATEMENT_COLUMNS)
            .where(entries.c.namespace == namespace, entries.c.refund_of == transaction_id, entries.c.superseded == 0)
            .order_by(entries.c.epoch, entries.c.seq)
        )
        with self._database.read() as connection:
            return [ledger_entry_of(row) for row in connection.execute(statement)]

    def _row(self, namespace: str, transaction_id: str, columns: Sequence[Any]) -> Any:
        place = place_of(transaction_id)
        if place is None:
            return None
        partition, epoch, entry_ms, entry_seq = place
        statement = select(*columns).where(
            entries.c.namespace == namespace,
            entries.c.partition == partition,
            entries.c.epoch == epoch,
            entries.c.entry_ms == entry_ms,
            entries.c.entry_seq == entry_seq,
        )
        with self._database.read() as connection:
            return connection.execute(statement).first()

    def analytics(self, namespace: str) -> Analytics:
        """Return the analytics of a namespace."""
        return Analytics(self._database, namespace)

    def verify(self, namespace: str | None = None, *, store: EngineStore | None = None) -> VerifyReport:
        """Recompute every balance from the entries, and report all inconsistencies.

        For every account: the entries' changes follow from their amounts, and add up to `balance_after` at every seq;
        seq has no gaps and no forks; open leases add up to what is held; the entries fold to the stored state.

        Args:
            namespace: the namespace to verify; None for all in the database.
            store: the engine to compare accounts with, if they are at the same seq as in the ledger.
        """
        with self._database.read() as connection:
            return verify(connection, namespace, store)
