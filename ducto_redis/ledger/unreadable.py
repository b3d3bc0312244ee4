"""Entries that are stored raw, for a newer version that may understand them."""

from sqlalchemy import Connection, delete, select

from ducto_redis.engine.entry import UnreadableEntryError
from ducto_redis.ledger.rebuilding import rebuild
from ducto_redis.ledger.reports import RawEntry, WriteReport
from ducto_redis.ledger.rows import read_entry
from ducto_redis.ledger.schema import unreadable
from ducto_redis.ledger.writer import write_batch


def reread(connection: Connection, namespace: str) -> WriteReport:
    """Write the raw entries that this version can read, and clear their accounts' marks."""
    rows = connection.execute(select(unreadable).where(unreadable.c.namespace == namespace).order_by(unreadable.c.id))
    readable: dict[int, list[RawEntry]] = {}
    accounts: dict[str, int] = {}
    remaining = 0
    for row in rows.all():
        entry_id = f"{row.entry_ms}-{row.entry_seq}"
        try:
            read = read_entry(row.partition, entry_id, row.text)
        except UnreadableEntryError:
            remaining += 1
            continue
        readable.setdefault(row.partition, []).append((entry_id, row.text))
        accounts |= {read.entry.account: row.partition}
        if row.account is not None:
            accounts[row.account] = row.partition
        connection.execute(delete(unreadable).where(unreadable.c.id == row.id))
    reports = [write_batch(connection, namespace, partition, raw) for partition, raw in readable.items()]
    marked = [account for account, partition in accounts.items() if rebuild(connection, namespace, account, partition)]
    return WriteReport(
        written=sum(report.written for report in reports),
        repeated=sum(report.repeated for report in reports),
        unreadable=remaining,
        marked=tuple(sorted(marked)),
    )
