"""The writer of a batch of one partition's journal: entries, and the latest state of their accounts."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, insert, select

from ducto_redis.engine.entry import LEASE_CHANGE, UnreadableEntryError
from ducto_redis.engine.ids import split_entry_id
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.movements import REFERRING, References
from ducto_redis.ledger.rebuilding import (
    account_row,
    lease_rows,
    rebuild,
    store_accounts,
    store_leases,
    stored_fields,
)
from ducto_redis.ledger.reports import GAP, UNREADABLE, RawEntry, WriteReport
from ducto_redis.ledger.rollups import Cells
from ducto_redis.ledger.rows import (
    DEFAULT_OPERATION_TYPE,
    ENTRY_COLUMNS,
    ReadEntry,
    account_or_none,
    read_entry,
    row_of,
)
from ducto_redis.ledger.schema import entries, leases, partitions, unreadable
from ducto_redis.ledger.sql import delete_rows, insert_into, insert_rows, run, select_accounts

_OPERATION_TYPE = ENTRY_COLUMNS.index("operation_type")
_MOSTLY_EMPTY = [ENTRY_COLUMNS.index(name) for name in ("details", "member", "type", "allowance", "refund_of")]


class _Account:
    """An account of the ledger, continued by the batch. Its state has only the leases that the batch changed.

    An account whose stored fields cannot be read is broken: it must be rebuilt from its entries.
    """

    __slots__ = ("broken", "changed", "epoch", "marks", "name", "removed_leases", "seq", "state")

    def __init__(self, name: str, fields: dict[str, str] | None, marks: Iterable[str]) -> None:
        self.name = name
        self.broken = fields is None
        self.state = AccountState(fields)
        self.epoch = int(self.state.fields.get("epoch", "0"))
        self.seq = self.state.seq
        self.marks = set(marks)
        self.removed_leases: set[str] = set()
        self.changed = False

    def continues(self, reads: Sequence[ReadEntry], *, gaps: bool) -> bool:
        """Return True if the entries continue the state one after the other; with `gaps`, some may be missing."""
        if self.broken:
            return False
        epoch, seq = self.epoch, self.seq
        for read in reads:
            entry = read.entry
            if entry.epoch < epoch or entry.seq <= seq or (entry.seq != seq + 1 and not gaps):
                return False
            epoch, seq = entry.epoch, entry.seq
        return True

    def take(self, read: ReadEntry) -> None:
        entry = read.entry
        if entry.seq != self.seq + 1:
            self.marks.add(GAP)
        self.state.apply(entry)
        self.epoch, self.seq = entry.epoch, entry.seq
        self.changed = True
        for name, value in entry.changes:
            if name.startswith(LEASE_CHANGE):
                (self.removed_leases.discard if value else self.removed_leases.add)(name[len(LEASE_CHANGE) :])


class _Unreadable(Struct):
    entry_id: str
    text: bytes
    account: str | None
    reason: str


def write_batch(connection: Connection, namespace: str, partition: int, raw_entries: Sequence[RawEntry]) -> WriteReport:
    """Write the entries inside the caller's transaction. Entries that the ledger has already are left as they are."""
    position = _lock(connection, namespace, partition)
    by_account, unreadables = _read(partition, raw_entries)
    names = {*by_account, *(it.account for it in unreadables if it.account is not None)}
    known = _load(connection, namespace, sorted(names))

    referring = [read for reads in by_account.values() for read in reads if read.entry.operation in REFERRING]
    references = References(connection, namespace, referring)
    cells = Cells()
    rows: list[tuple[Any, ...]] = []
    rebuilt: list[str] = []
    repeated = 0
    for name, reads in by_account.items():
        account = known[name]
        follows_on = account.continues(reads, gaps=False)
        if not follows_on:
            count = len(reads)
            reads = _without_repeated(connection, namespace, name, reads)
            repeated += count - len(reads)
        if follows_on or account.continues(reads, gaps=True):
            for read in reads:
                movement = references.movement(read, account.state.leases)
                account.take(read)
                rows.append(row_of(namespace, read, account.state.balance, movement))
                cells.take(read.entry, read.entry_ms, movement, read.usages)
        else:
            for read in reads:
                movement = references.movement(read, account.state.leases)
                rows.append(row_of(namespace, read, account.state.balance, movement))
            rebuilt.append(name)
    stored_raw = _store_raw(connection, namespace, partition, unreadables, known)

    _insert_entries(connection, rows)
    cells.add(connection, namespace, partition)
    _store_accounts(connection, namespace, partition, [account for account in known.values() if account.changed])
    marked = {name for name, account in known.items() if account.changed and account.marks}
    for name in rebuilt:
        marked.discard(name)
        if rebuild(connection, namespace, name, partition):
            marked.add(name)
    _advance(connection, namespace, partition, position, unreadables, by_account)
    return WriteReport(written=len(rows), repeated=repeated, unreadable=stored_raw, marked=tuple(sorted(marked)))


def _insert_entries(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    # In most batches these columns have their defaults: writing them would cost as much as the rest.
    empty = {index for index in _MOSTLY_EMPTY if not any(map(itemgetter(index), rows))}
    if all(row[_OPERATION_TYPE] == DEFAULT_OPERATION_TYPE for row in rows):
        empty.add(_OPERATION_TYPE)
    if empty:
        kept = [index for index in range(len(ENTRY_COLUMNS)) if index not in empty]
        names = [ENTRY_COLUMNS[index] for index in kept]
        insert_rows(connection, entries, names, list(map(itemgetter(*kept), rows)))
    else:
        insert_rows(connection, entries, ENTRY_COLUMNS, rows)


def _lock(connection: Connection, namespace: str, partition: int) -> tuple[int, int, int]:
    # A worker that lost its partition may still write: writers of one partition take turns.
    statement = f"SELECT epoch, entry_ms, entry_seq FROM {partitions.name} WHERE namespace = ? AND partition = ?"
    if connection.dialect.name != "sqlite":  # SQLite has one writing transaction at a time
        statement += " FOR UPDATE"
    position = run(connection, statement, (namespace, partition)).first()
    if position is None:
        connection.execute(
            insert_into(connection, partitions).on_conflict_do_nothing(),
            {"namespace": namespace, "partition": partition, "epoch": 0, "entry_ms": 0, "entry_seq": 0},
        )
        position = run(connection, statement, (namespace, partition)).one()
    return position[0], position[1], position[2]


def _read(partition: int, raw_entries: Sequence[RawEntry]) -> tuple[dict[str, list[ReadEntry]], list[_Unreadable]]:
    by_account: dict[str, list[ReadEntry]] = {}
    unreadables = []
    for entry_id, text in raw_entries:
        try:
            read = read_entry(partition, entry_id, text)
        except UnreadableEntryError as error:
            unreadables.append(_Unreadable(entry_id, text, account_or_none(error.account), str(error)))
        else:
            by_account.setdefault(read.entry.account, []).append(read)
    return by_account, unreadables


def _load(connection: Connection, namespace: str, names: Sequence[str]) -> dict[str, _Account]:
    known = {}
    for name, fields, marks in select_accounts(connection, ("account", "fields", "marks"), namespace, names):
        known[name] = _Account(name, stored_fields(fields), marks.split())
    for name in names:
        if name not in known:
            known[name] = _Account(name, {}, ())
    return known


def _without_repeated(
    connection: Connection, namespace: str, account: str, reads: Sequence[ReadEntry]
) -> list[ReadEntry]:
    seqs = [read.entry.seq for read in reads]
    rows = connection.execute(
        select(entries.c.epoch, entries.c.seq, entries.c.operation_key).where(
            entries.c.namespace == namespace,
            entries.c.account == account,
            entries.c.seq.between(min(seqs), max(seqs)),
        )
    )
    seen = {(epoch, seq, operation_key) for epoch, seq, operation_key in rows}
    new = []
    for read in reads:
        identity = (read.entry.epoch, read.entry.seq, read.entry.operation_key)
        if identity not in seen:
            seen.add(identity)
            new.append(read)
    return new


def _store_raw(
    connection: Connection,
    namespace: str,
    partition: int,
    unreadables: Sequence[_Unreadable],
    known: dict[str, _Account],
) -> int:
    stored = 0
    for it in unreadables:
        entry_ms, entry_seq = split_entry_id(it.entry_id)
        row = {"namespace": namespace, "partition": partition, "entry_ms": entry_ms, "entry_seq": entry_seq}
        same = select(unreadable.c.text).where(*(unreadable.c[name] == value for name, value in row.items()))
        if it.text in connection.scalars(same).all():
            continue
        stored += 1
        connection.execute(insert(unreadable), row | {"account": it.account, "reason": it.reason, "text": it.text})
        if it.account is not None:
            known[it.account].marks.add(UNREADABLE)
            known[it.account].changed = True
    return stored


def _store_accounts(connection: Connection, namespace: str, partition: int, changed: Sequence[_Account]) -> None:
    store_accounts(
        connection,
        [account_row(namespace, account.name, partition, account.state, account.marks) for account in changed],
    )
    delete_rows(
        connection,
        leases,
        ("namespace", "account", "lease_id"),
        [(namespace, account.name, lease_id) for account in changed for lease_id in account.removed_leases],
    )
    store_leases(connection, [row for account in changed for row in lease_rows(namespace, account.name, account.state)])


def _advance(
    connection: Connection,
    namespace: str,
    partition: int,
    position: tuple[int, int, int],
    unreadables: Sequence[_Unreadable],
    by_account: dict[str, list[ReadEntry]],
) -> None:
    reads = [read for its in by_account.values() for read in its]
    epoch = max([position[0], *[read.entry.epoch for read in reads]])
    ids = [(read.entry_ms, read.entry_seq) for read in reads]
    entry_ms, entry_seq = max([position[1:], *ids, *[split_entry_id(it.entry_id) for it in unreadables]])
    run(
        connection,
        f"UPDATE {partitions.name} SET epoch = ?, entry_ms = ?, entry_seq = ? WHERE namespace = ? AND partition = ?",
        (epoch, entry_ms, entry_seq, namespace, partition),
    )
