"""Rebuilding of accounts: reads an account's stored history, and stores the state that it leads to."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, func, select, update

from ducto_redis.engine.entry import UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.history import History
from ducto_redis.ledger.movements import StoredMovements
from ducto_redis.ledger.reports import FORK, GAP, UNREADABLE
from ducto_redis.ledger.rollups import Cells, replace_cells
from ducto_redis.ledger.rows import JOURNAL_COLUMNS, Movement, entry_of, read_parts
from ducto_redis.ledger.schema import accounts, entries, leases, unreadable
from ducto_redis.ledger.sql import insert_rows

ROWS_AT_A_TIME = 2000
DERIVED_COLUMNS = (
    "balance_after",
    "model",
    "operation_type",
    "member",
    "type",
    "charged",
    "allowance",
    "refund_of",
    "superseded",
)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, str])


def stream_entries(connection: Connection, *conditions: Any) -> Iterator[Any]:
    """Yield rows of `JOURNAL_COLUMNS`, account by account, each in the order of `History`; not all in memory."""
    order = (entries.c.account, entries.c.epoch, entries.c.seq, entries.c.id)
    statement = select(*JOURNAL_COLUMNS).where(*conditions).order_by(*order)
    with connection.execute(statement.execution_options(yield_per=ROWS_AT_A_TIME)) as result:
        yield from result


def derived_of(balance_after: int, movement: Movement, *, superseded: bool) -> dict[str, Any]:
    """Return the columns that are derived from an entry and those before it."""
    return {
        "balance_after": balance_after,
        "model": movement.model,
        "operation_type": movement.operation_type,
        "member": movement.member,
        "type": movement.type,
        "charged": movement.charged,
        "allowance": movement.allowance,
        "refund_of": movement.refund_of,
        "superseded": int(superseded),
    }


def stored_derived(row: Any) -> dict[str, Any]:
    """Return the derived columns of a row of `JOURNAL_COLUMNS`."""
    return {name: getattr(row, name) for name in DERIVED_COLUMNS}


def epoch_starts(connection: Connection, namespace: str, account: str) -> dict[int, int]:
    """Return the first seq of every epoch after the first, for `History`."""
    rows = connection.execute(
        select(entries.c.epoch, func.min(entries.c.seq))
        .where(entries.c.namespace == namespace, entries.c.account == account)
        .group_by(entries.c.epoch)
        .order_by(entries.c.epoch)
    ).all()
    return {row[0]: row[1] for row in rows[1:]}


def rebuild(connection: Connection, namespace: str, account: str, partition: int) -> tuple[str, ...]:
    """Fold all of an account's entries, store the state that they lead to, and return the account's marks.

    An entry that came late, or under a new epoch, needs this; all others only continue the state.
    """
    history = History(epoch_starts(connection, namespace, account))
    movements = StoredMovements(connection, namespace)
    cells = Cells()
    corrections = []
    for row in stream_entries(connection, entries.c.namespace == namespace, entries.c.account == account):
        try:
            read = read_parts(entry_of(row))
        except UnreadableEntryError:  # it was tampered with: it counts as missing, and leaves a gap
            continue
        history.take(read)
        movement = movements.movement(read, history.paid)
        if history.leads:
            cells.take(read.entry, read.entry_ms, movement, read.usages)
        derived = derived_of(history.state.balance, movement, superseded=not history.leads)
        if derived != stored_derived(row):
            corrections.append(derived | {"entry": row.id})
    if corrections:
        values: dict[str, Any] = {name: bindparam(f"{name}_") for name in DERIVED_COLUMNS}
        connection.execute(
            update(entries).where(entries.c.id == bindparam("entry")).values(values),
            [{"entry": it["entry"]} | {f"{name}_": it[name] for name in DERIVED_COLUMNS} for it in corrections],
        )
    replace_cells(connection, namespace, account, partition, cells)
    marks = sorted(
        mark
        for mark, applies in (
            (FORK, history.forked),
            (GAP, history.gapped),
            (UNREADABLE, _has_unreadable(connection, namespace, account)),
        )
        if applies
    )
    store_accounts(connection, [account_row(namespace, account, partition, history.state, marks)])
    connection.execute(delete(leases).where(leases.c.namespace == namespace, leases.c.account == account))
    store_leases(connection, lease_rows(namespace, account, history.state))
    return tuple(marks)


def rebuild_all(connection: Connection) -> None:
    """Rebuild every account."""
    places = connection.execute(select(accounts.c.namespace, accounts.c.account, accounts.c.partition)).all()
    for namespace, account, partition in places:
        rebuild(connection, namespace, account, partition)


def stored_fields(text: str) -> dict[str, str] | None:
    """Return the account's hash from its row; None if it was tampered with."""
    try:
        fields = _decoder.decode(text)
        for name in ("epoch", "seq", "balance", "held"):
            int(fields.get(name, "0"))
    except ValueError:  # msgspec's errors are ValueErrors too
        return None
    return fields


def account_row(
    namespace: str, account: str, partition: int, state: AccountState, marks: Iterable[str]
) -> tuple[Any, ...]:
    """Return a row for `store_accounts`."""
    fields = state.fields
    return (
        namespace,
        account,
        partition,
        int(fields.get("epoch", "0")),
        state.seq,
        state.balance,
        state.held,
        _encoder.encode(fields).decode(),
        " ".join(sorted(marks)),
    )


def lease_rows(namespace: str, account: str, state: AccountState) -> list[tuple[str, ...]]:
    """Return rows for `store_leases`."""
    return [(namespace, account, lease_id, record) for lease_id, record in state.leases.items()]


def store_accounts(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Store accounts' states, in place of their earlier ones."""
    insert_rows(connection, accounts, accounts.columns.keys(), rows, replace=True)


def store_leases(connection: Connection, rows: Sequence[tuple[str, ...]]) -> None:
    """Store leases, in place of their earlier records."""
    insert_rows(connection, leases, leases.columns.keys(), rows, replace=True)


def _has_unreadable(connection: Connection, namespace: str, account: str) -> bool:
    condition = exists().where(unreadable.c.namespace == namespace, unreadable.c.account == account)
    return bool(connection.scalar(select(condition)))
