"""Statements that write many rows, in the words of either database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

from ducto_redis.ledger.schema import accounts


def insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def insert_rows(
    connection: Connection,
    table: Table,
    names: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    *,
    replace: bool = False,
) -> None:
    """Insert many rows in one step.

    Args:
        names: the columns that the rows hold the values of.
        replace: rows whose primary key is there already are replaced.
    """
    if not rows:
        return
    columns = ", ".join(f'"{name}"' for name in names)
    conflict = ""
    if replace:
        keys = [column.name for column in table.primary_key]
        updates = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
        conflict = f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}"
    if connection.dialect.name == "sqlite":
        values = ", ".join("?" for _ in names)
        statement = f"INSERT INTO {table.name} ({columns}) VALUES ({values}){conflict}"
        connection.exec_driver_sql(statement, list(rows))
    else:  # one statement with an array for each column, much faster than a row at a time
        types = (table.c[name].type.compile(connection.dialect) for name in names)
        arrays = ", ".join(f"%s::{type_.partition(' COLLATE')[0]}[]" for type_ in types)
        statement = f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays}){conflict}"
        connection.exec_driver_sql(statement, tuple(list(column) for column in zip(*rows, strict=True)))


def select_accounts(
    connection: Connection, columns: Sequence[str], namespace: str, names: Sequence[str]
) -> Sequence[Any]:
    """Columns of many accounts. The ids are one parameter, however many they are."""
    statement = f"SELECT {', '.join(columns)} FROM {accounts.name} WHERE namespace = "
    if connection.dialect.name == "sqlite":
        statement += "? AND account IN (SELECT value FROM json_each(?))"
        return connection.exec_driver_sql(statement, (namespace, msgspec.json.encode(names).decode())).all()
    return connection.exec_driver_sql(statement + "%s AND account = ANY(%s)", (namespace, list(names))).all()


def delete_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Delete the rows whose columns have these values."""
    if rows:
        matches = and_(*(table.c[name] == bindparam(name) for name in rows[0]))
        connection.execute(delete(table).where(matches), rows)
