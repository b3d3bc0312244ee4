"""The proof of the roll-ups: those of an account against its entries, coarser ones against the finer ones."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, Table, func, select

from ducto_redis.ledger.rollups import (
    CELL_KEY,
    DAY_KEY,
    DAYS_A_WEEK,
    HOURS_A_DAY,
    MEASURE_KEY,
    MILLION,
    WEEK_KEY,
    Cells,
)
from ducto_redis.ledger.schema import (
    SUMS,
    account_days,
    account_hours,
    account_weeks,
    accounts,
    measures,
    partition_hours,
    partitions,
)

ROWS_AT_A_TIME = 2000
_DIFFERENCES_SHOWN = 5


class StoredRollups:
    """The stored roll-ups of accounts, read in the order of their ids."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        its = account_hours.c
        hours = select(*(its[name] for name in (*CELL_KEY, *SUMS))).where(its.namespace == namespace)
        self._hours = _Reader(connection, hours.order_by(its.account))
        its = measures.c
        own = select(*(its[name] for name in (*MEASURE_KEY, "whole", "millionths"))).where(its.namespace == namespace)
        self._measures = _Reader(connection, own.order_by(its.account))

    def take(self, account: str) -> tuple[Cells, list[str]]:
        """Return the roll-ups of the account, and the accounts that were skipped before it."""
        hours, skipped = self._hours.take(account)
        own, also_skipped = self._measures.take(account)
        sums = {tuple(row[: len(CELL_KEY)]): list(row[len(CELL_KEY) :]) for row in hours}
        measured = {tuple(row[: len(MEASURE_KEY)]): row.whole * MILLION + row.millionths for row in own}
        return Cells(sums, measured), [*skipped, *also_skipped]

    def rest(self) -> list[str]:
        """Return the remaining accounts."""
        return [*self._hours.take(None)[1], *self._measures.take(None)[1]]


class _Reader:
    def __init__(self, connection: Connection, statement: Any) -> None:
        rows = connection.execute(statement.execution_options(yield_per=ROWS_AT_A_TIME))
        self._groups = groupby(rows, key=lambda row: row.account)
        self._next: tuple[str, list[Any]] | None = None
        self._advance()

    def take(self, account: str | None) -> tuple[list[Any], list[str]]:
        skipped = []
        while self._next is not None and (account is None or self._next[0].encode() < account.encode()):
            skipped.append(self._next[0])
            self._advance()
        if self._next is None or self._next[0] != account:
            return [], skipped
        rows = self._next[1]
        self._advance()
        return rows, skipped

    def _advance(self) -> None:
        found = next(self._groups, None)
        self._next = None if found is None else (found[0], list(found[1]))


def cells_differ(stored: Cells, expected: Cells) -> Iterator[str]:
    """Yield the differences between an account's roll-ups and the sums of its entries."""
    nothing = [0] * len(SUMS)
    stored_sums, expected_sums = stored.sums, expected.sums
    for key in sorted(stored_sums.keys() | expected_sums.keys()):
        has, wants = stored_sums.get(key, nothing), expected_sums.get(key, nothing)
        for name, value, wanted in zip(SUMS, has, wants, strict=True):
            if value != wanted:
                yield f"hour {key[0]}, {key[2]}: the roll-up of {name} is {value}, but the entries add up to {wanted}"
        if (key in stored_sums) != (key in expected_sums) and has == wants:
            yield f"hour {key[0]}, {key[2]}: an empty roll-up"
    for measure in sorted(stored.measured.keys() | expected.measured.keys()):
        has_of, wants_of = stored.measured.get(measure, 0), expected.measured.get(measure, 0)
        if has_of != wants_of:
            yield (
                f"hour {measure[1]}: the roll-up of measure {measure[0]!r} is {has_of} millionths,"
                f" but the entries add up to {wants_of}"
            )


def coarse_rollups_differ(connection: Connection, namespace: str) -> list[str]:
    """Return the differences between the hourly roll-ups of accounts and the ones made of them."""
    hours, days = account_hours.c, account_days.c
    of_days: dict[str, Any] = {name: hours[name] for name in ("partition", *DAY_KEY) if name != "day"}
    of_days["day"] = hours.hour.op("/")(HOURS_A_DAY)  # of integers: rounded down
    of_weeks: dict[str, Any] = {name: days[name] for name in ("partition", *WEEK_KEY) if name != "week"}
    of_weeks["week"] = days.day.op("/")(DAYS_A_WEEK)
    of_partitions = {name: hours[name] for name in ("partition", *CELL_KEY) if name not in ("account", "member")}
    is_made = days.day < DAYS_A_WEEK * (
        select(partitions.c.open_week)
        .where(partitions.c.namespace == days.namespace, partitions.c.partition == days.partition)
        .scalar_subquery()
    )
    return [
        *_misplaced(connection, namespace),
        *_differences(connection, namespace, account_days, account_hours, of_days),
        *_differences(connection, namespace, account_weeks, account_days, of_weeks, is_made),
        *_differences(connection, namespace, partition_hours, account_hours, of_partitions),
    ]


def _misplaced(connection: Connection, namespace: str) -> Iterator[str]:
    its, its_name = account_hours.c, account_hours.name
    statement = (
        select(its.account, its.hour, its.partition)
        .join(accounts, (accounts.c.namespace == its.namespace) & (accounts.c.account == its.account))
        .where(its.namespace == namespace, its.partition != accounts.c.partition)
        .limit(_DIFFERENCES_SHOWN)
    )
    for account, hour, partition in connection.execute(statement):
        yield f"{namespace}: {its_name} holds hour {hour} of {account!r} in partition {partition}, not its own"


def _differences(
    connection: Connection, namespace: str, table: Table, source: Table, key: dict[str, Any], *conditions: Any
) -> Iterator[str]:
    """Yield the differences between a table and the sums of its source. `key`: its key, of the source's columns."""
    inner = (
        select(*(made.label(name) for name, made in key.items()), *(source.c[name] for name in SUMS))
        .where(source.c.namespace == namespace, *conditions)
        .subquery()
    )
    grouped = [inner.c[name] for name in key]
    sums = [func.sum(inner.c[name]) for name in SUMS]
    expected: Select[Any] = select(*grouped, *sums).group_by(*grouped)
    stored: Select[Any] = select(*(table.c[name] for name in (*key, *SUMS))).where(table.c.namespace == namespace)
    for one, other, says in (
        (stored, expected, "holds"),
        (expected, stored, "lacks"),
    ):
        for row in connection.execute(one.except_(other).limit(_DIFFERENCES_SHOWN)):
            place = ", ".join(f"{name} {value!r}" for name, value in zip(key, row, strict=False))
            sums_of = {name: int(value) for name, value in zip(SUMS, row[len(key) :], strict=True) if value}
            yield f"{namespace}: {table.name} {says} {place}: {sums_of}, unlike the sums of {source.name}"
