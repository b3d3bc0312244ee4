"""Roll-ups: what entries add up to, by the hour and by the day.

Three tables hold the same sums, for different questions: `account_hours` by account and whatever the charges were for,
`account_days` by account and member, `partition_hours` of all accounts. They are written in the transaction that writes
the entries, and each is the sum of the entries that lead to the balance, nothing else: `verify` proves it.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from operator import add
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, and_, case, delete, or_, select

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.rows import Movement, Usage, model_of, name_of
from ducto_redis.ledger.schema import (
    MOVEMENT_SUMS,
    SUMS,
    USAGE_SUMS,
    account_days,
    account_hours,
    measures,
    partition_hours,
)
from ducto_redis.ledger.statements import add_rows

HOUR_MS = 3_600_000
HOURS_A_DAY = 24
MILLION = 1_000_000
MOST_OF_A_MEASURE = 2**40
"""Usage above it is taken as this much: no request consumes more, and sums stay within what columns hold."""

CellKey: TypeAlias = tuple[int, str, str, str, str, str, str]
"""Hour, account, operation, member, model, operation type, type; "" where there is none."""
MeasureKey: TypeAlias = tuple[str, int, str, str, str]
"""Measure, hour, account, member, model."""

CELL_KEY = ("hour", "account", "operation", "member", "model", "operation_type", "type")
MEASURE_KEY = ("measure", "hour", "account", "member", "model")

DAY_KEY = ("account", "day", "operation", "member")
_PARTITION_KEY = ("hour", "partition", "operation", "model", "operation_type", "type")
_WITH_USAGE = frozenset(("deduct", "settle"))
_ALWAYS = frozenset(("deduct", "settle", "refund"))
_AT_A_TIME = 500

_USAGE_AT = {name: len(MOVEMENT_SUMS) + index for index, name in enumerate(USAGE_SUMS)}
_NOTHING = [0] * len(SUMS)


class Cells:
    """Sums of entries, by hour, account, operation, member, model, operation type and type.

    Attributes:
        sums: by key, in the order of `SUMS`.
        measured: a document's own measures, in millionths.
    """

    __slots__ = ("measured", "sums")

    def __init__(
        self, sums: dict[CellKey, list[int]] | None = None, measured: dict[MeasureKey, int] | None = None
    ) -> None:
        self.sums = {} if sums is None else sums
        self.measured = {} if measured is None else measured

    def take(
        self, entry: JournalEntry | LedgerEntry, entry_ms: int, movement: Movement, usages: Sequence[Usage]
    ) -> None:
        """Add an entry."""
        operation, charged = entry.operation, movement.charged
        if not (charged or entry.balance_change or operation in _ALWAYS):
            return
        amount, shortfall = entry.amount, entry.shortfall
        hour, member, model = entry_ms // HOUR_MS, movement.member or "", movement.model or ""
        key = (hour, entry.account, operation, member, model, movement.operation_type, movement.type or "")
        cell = self.sums.get(key)
        if cell is None:
            cell = self.sums[key] = _NOTHING.copy()
        cell[0] += 1
        cell[1] += charges(operation, amount, shortfall, charged)
        cell[2] += charged
        cell[3] += movement.allowance
        cell[4] += shortfall
        cell[5] += amount
        cell[6] += entry.balance_change
        if operation in _WITH_USAGE:
            for usage in usages:
                self._take_usage(key, cell, usage, several=len(usages) > 1)

    def _take_usage(self, key: CellKey, cell: list[int], usage: Usage, *, several: bool) -> None:
        if several and (part := model_of(usage) or "") != key[4]:
            key = (*key[:4], part, *key[5:])
            cell = self.sums.setdefault(key, _NOTHING.copy())
        for name, value in usage.items():
            at = _USAGE_AT.get(name)
            if at is not None:
                if type(value) is int and 0 <= value <= MOST_OF_A_MEASURE:
                    cell[at] += value
                else:
                    cell[at] += _tool_calls(value) if name == "tool_calls" else _bounded(value)
            elif name == "measures" and isinstance(value, dict):
                for measure, quantity in value.items():
                    its_key = (name_of(measure) or "", key[0], key[1], key[3], key[4])
                    self.measured[its_key] = self.measured.get(its_key, 0) + _millionths(quantity)

    def add(self, connection: Connection, namespace: str, partition: int) -> None:
        """Add the sums to the tables. They are those of accounts of one partition."""
        sums = self.sums
        if not sums:
            return
        days: dict[Any, list[int]] = {}
        for (hour, account, operation, member, *_), cell in sums.items():
            _accumulate(days, (account, hour // HOURS_A_DAY, operation, member), cell)
        _add(connection, account_hours, namespace, CELL_KEY, sums)
        _add(connection, account_days, namespace, DAY_KEY, days)
        _add_to_partition(connection, namespace, partition, sums, 1)
        rows = [(namespace, *key, *divmod(value, MILLION)) for key, value in self.measured.items()]
        add_rows(connection, measures, ("namespace", *MEASURE_KEY), ("whole", "millionths"), rows)


def charges(operation: str, amount: int, shortfall: int, charged: int) -> int:
    """How many charges an entry adds: none for a late settle, which corrects what its lease's expiry had charged."""
    if operation == "deduct":
        return 1
    if operation == "settle":
        return 1 if charged == amount - shortfall else 0
    return (charged > 0) - (charged < 0)


def charges_column(its: Any) -> Any:
    """The same as `charges`, in SQL: of the columns of `entries`."""
    return case(
        (its.operation == "deduct", 1),
        (and_(its.operation == "settle", its.charged == its.amount - its.shortfall), 1),
        (its.operation == "settle", 0),
        (its.charged > 0, 1),
        (its.charged < 0, -1),
        else_=0,
    )


def is_moving(its: Any) -> Any:
    """Which entries `Cells` takes, in SQL."""
    return or_(its.charged != 0, its.balance_change != 0, its.operation.in_(sorted(_ALWAYS)))


def account_hours_in(
    connection: Connection, namespace: str, account: str, hours: tuple[int, int] | None = None
) -> list[int]:
    """Hours, of days in which anything of the account moved, within the bounds."""
    its = account_days.c
    conditions = [its.namespace == namespace, its.account == account]
    if hours is not None:
        conditions += [its.day >= hours[0] // HOURS_A_DAY, its.day <= hours[1] // HOURS_A_DAY]
    days = connection.scalars(select(its.day).where(*conditions).distinct().order_by(its.day))
    found = (hour for day in days for hour in range(day * HOURS_A_DAY, (day + 1) * HOURS_A_DAY))
    return [hour for hour in found if hours is None or hours[0] <= hour < hours[1]]


def portions(hours: Sequence[int]) -> Iterator[Sequence[int]]:
    """The hours, as many at a time as one statement takes."""
    for first in range(0, len(hours), _AT_A_TIME):
        yield hours[first : first + _AT_A_TIME]


def stored_cells(connection: Connection, namespace: str, account: str) -> Cells:
    """What the tables hold of an account."""
    sums: dict[Any, list[int]] = {}
    its = account_hours.c
    columns = [its[name] for name in (*CELL_KEY, *SUMS)]
    place = (its.namespace == namespace, its.account == account)
    for some in portions(account_hours_in(connection, namespace, account)):
        for row in connection.execute(select(*columns).where(*place, its.hour.in_(some))):
            sums[tuple(row[: len(CELL_KEY)])] = list(row[len(CELL_KEY) :])
    measured: dict[Any, int] = {}
    columns = [measures.c[name] for name in (*MEASURE_KEY, "whole", "millionths")]
    place = (measures.c.namespace == namespace, measures.c.account == account)
    for row in connection.execute(select(*columns).where(*place)):
        measured[tuple(row[: len(MEASURE_KEY)])] = row.whole * MILLION + row.millionths
    return Cells(sums, measured)


def replace_cells(connection: Connection, namespace: str, account: str, partition: int, cells: Cells) -> None:
    """Make the tables hold these sums of an account, in place of those that they hold."""
    stored = stored_cells(connection, namespace, account)
    before = stored.sums
    if before == cells.sums and stored.measured == cells.measured:
        return
    _add_to_partition(connection, namespace, partition, before, -1)
    its = account_hours.c
    hours = sorted({key[0] for key in before})
    for some in portions(hours):
        place = (its.namespace == namespace, its.account == account, its.hour.in_(some))
        connection.execute(delete(account_hours).where(*place))
    for table in (account_days, measures):
        connection.execute(delete(table).where(table.c.namespace == namespace, table.c.account == account))
    cells.add(connection, namespace, partition)
    at = partition_hours.c
    for some in portions(hours):
        place = (at.namespace == namespace, at.partition == partition, at.hour.in_(some))
        connection.execute(delete(partition_hours).where(*place, *(at[name] == 0 for name in SUMS)))


def _bounded(value: Any) -> int:
    return min(max(value, 0), MOST_OF_A_MEASURE) if isinstance(value, int) else 0


def _tool_calls(calls: Any) -> int:
    if not isinstance(calls, list):
        return 0
    return _bounded(sum(_bounded(call.get("count", 1)) for call in calls if isinstance(call, dict)))


def _millionths(value: Any) -> int:
    if not isinstance(value, int | Decimal) or value <= 0:
        return 0
    return int(min(Decimal(value), Decimal(MOST_OF_A_MEASURE)) * MILLION)


def _add_to_partition(
    connection: Connection, namespace: str, partition: int, sums: Mapping[CellKey, list[int]], factor: int
) -> None:
    cells: dict[Any, list[int]] = {}
    for (hour, _, operation, _, model, operation_type, credits_type), cell in sums.items():
        its = cell if factor == 1 else [value * factor for value in cell]
        _accumulate(cells, (hour, partition, operation, model, operation_type, credits_type), its)
    _add(connection, partition_hours, namespace, _PARTITION_KEY, cells)


def _accumulate(into: dict[Any, list[int]], key: Any, sums: list[int]) -> None:
    before = into.get(key)
    into[key] = sums if before is None else list(map(add, before, sums))


def _add(
    connection: Connection, table: Table, namespace: str, key_names: Sequence[str], cells: Mapping[Any, list[int]]
) -> None:
    if not cells:
        return
    # Of twenty sums a batch has few: columns without any are left out. Rows in the key's order stay close together.
    used = [index for index, column in enumerate(zip(*cells.values(), strict=True)) if any(column)]
    rows = [(namespace, *key, *[cell[index] for index in used]) for key, cell in sorted(cells.items())]
    add_rows(connection, table, ("namespace", *key_names), [SUMS[index] for index in used], rows)
