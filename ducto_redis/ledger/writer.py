"""Writes a batch of one partition's journal: entries, and the latest state of their accounts."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, insert, select

from ducto_redis.engine.entry import LEASE_CHANGE, UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.histories import (
    account_row,
    lease_rows,
    rebuild,
    store_accounts,
    store_leases,
    stored_fields,
)
from ducto_redis.ledger.reports import GAP, UNREADABLE, RawEntry, WriteReport
from ducto_redis.ledger.rows import ENTRY_COLUMNS, ReadEntry, account_or_none, read_entry, row_of, split_id
from ducto_redis.ledger.schema import entries, leases, partitions, unreadable
from ducto_redis.ledger.statements import delete_rows, insert_into, insert_rows, select_accounts


class _Account:
    """An account as the ledger has it, carried on by the batch. Its state's leases are those that the batch changed.

    Where the stored fields are none, the account cannot be carried on: it must be rebuilt from its entries.
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
        """Whether the entries carry the state on, one after the other; with `gaps`, some may be missing between."""
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
    """Write the entries inside the caller's transaction. Those that the ledger has already are left as they are."""
    _lock(connection, namespace, partition)
    by_account, unreadables = _read(partition, raw_entries)
    names = {*by_account, *(it.account for it in unreadables if it.account is not None)}
    known = _load(connection, namespace, sorted(names))

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
                account.take(read)
                rows.append(row_of(namespace, read, account.state.balance))
        else:
            rows += [row_of(namespace, read, account.state.balance) for read in reads]
            rebuilt.append(name)
    stored_raw = _store_raw(connection, namespace, partition, unreadables, known)

    insert_rows(connection, entries, ENTRY_COLUMNS, rows)
    _store_accounts(connection, namespace, partition, [account for account in known.values() if account.changed])
    marked = {name for name, account in known.items() if account.changed and account.marks}
    for name in rebuilt:
        marked.discard(name)
        if rebuild(connection, namespace, name, partition):
            marked.add(name)
    _advance(connection, namespace, partition, raw_entries, by_account)
    return WriteReport(written=len(rows), repeated=repeated, unreadable=stored_raw, marked=tuple(sorted(marked)))


def _lock(connection: Connection, namespace: str, partition: int) -> None:
    # A worker that lost its partition may still be writing: writers of one partition take turns.
    connection.execute(
        insert_into(connection, partitions).on_conflict_do_nothing(),
        {"namespace": namespace, "partition": partition, "epoch": 0, "entry_ms": 0, "entry_seq": 0},
    )
    connection.execute(
        select(partitions.c.epoch)
        .where(partitions.c.namespace == namespace, partitions.c.partition == partition)
        .with_for_update()
    )


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
        entry_ms, entry_seq = split_id(it.entry_id)
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
    raw_entries: Sequence[RawEntry],
    by_account: dict[str, list[ReadEntry]],
) -> None:
    place = (partitions.c.namespace == namespace, partitions.c.partition == partition)
    columns = (partitions.c.epoch, partitions.c.entry_ms, partitions.c.entry_seq)
    epoch, entry_ms, entry_seq = connection.execute(select(*columns).where(*place)).one()
    epoch = max([epoch, *(read.entry.epoch for reads in by_account.values() for read in reads)])
    entry_ms, entry_seq = max([(entry_ms, entry_seq), *(split_id(entry_id) for entry_id, _ in raw_entries)])
    connection.execute(partitions.update().where(*place).values(epoch=epoch, entry_ms=entry_ms, entry_seq=entry_seq))
