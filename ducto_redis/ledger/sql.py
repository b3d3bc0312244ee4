"""SQL statements that write many rows, for both databases."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from ducto_redis.ledger.schema import accounts


def insert_into(connection: Connection, table: Table) -> Any:
    """Return an INSERT that supports ON CONFLICT."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def run(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> Any:
    """Execute SQL that is the same in both databases, with `?` for its parameters.

    It is for the statements of every batch: SQLAlchemy takes longer to build them than SQLite to execute them.
    """
    if connection.dialect.name != "sqlite":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, parameters)


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
        names: the columns of the rows' values.
        replace: replace rows with the same primary key.
    """
    if not rows:
        return
    if not replace:
        if connection.dialect.name == "sqlite":
            _insert(connection, table, names, rows, "")
        else:
            _copy(connection, table, names, rows)
        return
    keys = [column.name for column in table.primary_key]
    updates = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
    _insert(connection, table, names, rows, f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}")


def add_rows(
    connection: Connection, table: Table, keys: Sequence[str], sums: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert many rows in one step, or add their sums to those of rows with the same key.

    Args:
        keys: the first columns: the primary key.
        sums: the columns that follow.
    """
    if not rows or not sums:
        return
    updates = ", ".join(f'"{name}" = {table.name}."{name}" + excluded."{name}"' for name in sums)
    conflict = f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}"
    _insert(connection, table, (*keys, *sums), rows, conflict)


def _insert(
    connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]], conflict: str
) -> None:
    columns = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "sqlite":
        values = ", ".join("?" for _ in names)
        statement = f"INSERT INTO {table.name} ({columns}) VALUES ({values}){conflict}"
        connection.exec_driver_sql(statement, list(rows))
    else:
        selected, parameters = _as_columns(connection, table, names, rows)
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) {selected}{conflict}", parameters)


def _copy(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows by PostgreSQL's COPY, the fastest way for rows that are certainly new."""
    statement = f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    with closing(connection.connection.cursor()) as cursor:
        try:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        except _dbapi(connection).Error as error:
            raise DBAPIError.instance(statement, None, error, _dbapi(connection).Error, hide_parameters=True) from error


def _dbapi(connection: Connection) -> Any:
    return connection.dialect.loaded_dbapi


def select_accounts(
    connection: Connection, columns: Sequence[str], namespace: str, names: Sequence[str]
) -> Sequence[Any]:
    """Return columns of many accounts. Their ids are one parameter, however many there are."""
    statement = f"SELECT {', '.join(columns)} FROM {accounts.name} WHERE namespace = "
    if connection.dialect.name == "sqlite":
        statement += "? AND account IN (SELECT value FROM json_each(?))"
        return connection.exec_driver_sql(statement, (namespace, msgspec.json.encode(names).decode())).all()
    return connection.exec_driver_sql(statement + "%s AND account = ANY(%s)", (namespace, list(names))).all()


def delete_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Delete the rows with these values in the named columns."""
    if not rows:
        return
    statement = f"DELETE FROM {table.name} WHERE ({', '.join(names)})"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"{statement} = ({', '.join('?' for _ in names)})", list(rows))
    else:
        selected, parameters = _as_columns(connection, table, names, rows)
        connection.exec_driver_sql(f"{statement} IN ({selected})", parameters)


def _as_columns(
    connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> tuple[str, tuple[str, ...]]:
    """Return a SELECT of the rows for PostgreSQL, and its parameters: one JSON array for each column.

    One statement for all rows is much faster than one for each, and JSON is encoded faster than SQL arrays.
    """
    types = (table.c[name].type.compile(connection.dialect).partition(" COLLATE")[0] for name in names)
    values = ", ".join(f'"{name}"::{type_}' for name, type_ in zip(names, types, strict=True))
    columns = ", ".join(f'"{name}"' for name in names)
    arrays = ", ".join("json_array_elements_text(%s::json)" for _ in names)
    parameters = tuple(msgspec.json.encode(column).decode() for column in zip(*rows, strict=True))
    return f"SELECT {values} FROM ROWS FROM ({arrays}) AS rows ({columns})", parameters
