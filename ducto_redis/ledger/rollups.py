"""Roll-ups: sums of entries by the hour, the day and the week.

The tables hold the same sums, for different questions: `account_hours` by account and by the purpose of charges,
`account_days` and `account_weeks` by account and member, `partition_hours` for all accounts. They are written in the
transaction that writes the entries, and each is the sum of exactly the entries that lead to the balance: `verify`
proves it.

Weeks are made of days once they are over, by a partition's first batch of a later week, so that they cost the writer
next to nothing. `partitions.open_week` is the first week that is not made yet; late entries are added to the weeks
before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from operator import add
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, and_, case, delete, func, insert, or_, select

from ducto_redis.engine.cause import USAGE_FIELDS
from ducto_redis.engine.entry import JournalEntry
from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.rows import Movement, Usage, model_of, name_of
from ducto_redis.ledger.schema import (
    SUMS,
    USAGE_SUMS,
    account_days,
    account_hours,
    account_weeks,
    accounts,
    measures,
    partition_hours,
    partitions,
)
from ducto_redis.ledger.sql import add_rows, run

HOUR_MS = 3_600_000
HOURS_A_DAY = 24
DAYS_A_WEEK = 7
MILLION = 1_000_000
MOST_OF_A_MEASURE = 2**40
"""The largest usage that counts: no request consumes more, and sums stay within the range of columns."""

CellKey: TypeAlias = tuple[int, str, str, str, str, str, str]
"""Hour, account, operation, member, model, operation type, type; "" if there is none."""
MeasureKey: TypeAlias = tuple[str, int, str, str, str]
"""Measure, hour, account, member, model."""

CELL_KEY = ("hour", "account", "operation", "member", "model", "operation_type", "type")
MEASURE_KEY = ("measure", "hour", "account", "member", "model")

DAY_KEY = ("day", "account", "operation", "member")
WEEK_KEY = ("week", "account", "operation", "member")
_PARTITION_KEY = ("hour", "partition", "operation", "model", "operation_type", "type")
_WITH_USAGE = frozenset(("deduct", "settle"))
_ALWAYS = frozenset(("deduct", "settle", "refund"))
_AT_A_TIME = 500

_SUM_OF_FIELD = [SUMS.index(name) if name in USAGE_SUMS else None for name in USAGE_FIELDS]
_TOOL_CALLS = SUMS.index("tool_calls")
_MEASURES = USAGE_FIELDS.index("measures")
COUNTED_BY_NAME = USAGE_FIELDS[_MEASURES + 1 :]
"""The fields of a usage without columns: few requests have them. They are summed by name, as own measures are."""
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
        for at, value in zip(_SUM_OF_FIELD, usage, strict=False):
            if at is None or not value:
                continue
            if type(value) is int and 0 <= value <= MOST_OF_A_MEASURE:
                cell[at] += value
            else:
                cell[at] += _tool_calls(value) if at == _TOOL_CALLS else _bounded(value)
        if len(usage) > _MEASURES:
            own = usage[_MEASURES] if isinstance(usage[_MEASURES], dict) else {}
            counted = zip(COUNTED_BY_NAME, usage[_MEASURES + 1 :], strict=False)
            for measure, quantity in (*own.items(), *(each for each in counted if each[1])):
                its_key = (name_of(measure) or "", key[0], key[1], key[3], key[4])
                self.measured[its_key] = self.measured.get(its_key, 0) + _millionths(quantity)

    def add(self, connection: Connection, namespace: str, partition: int) -> None:
        """Add the sums to the tables. All accounts must be of one partition."""
        sums = self.sums
        if not sums:
            return
        days: dict[Any, list[int]] = {}
        for (hour, account, operation, member, *_), cell in sums.items():
            _accumulate(days, (hour // HOURS_A_DAY, account, operation, member), cell)
        _add_of_accounts(connection, account_hours, namespace, partition, CELL_KEY, sums)
        _add_of_accounts(connection, account_days, namespace, partition, DAY_KEY, days)
        _add_to_weeks(connection, namespace, partition, days)
        _add_to_partition(connection, namespace, partition, sums, 1)
        rows = [(namespace, *key, *divmod(value, MILLION)) for key, value in self.measured.items()]
        add_rows(connection, measures, ("namespace", *MEASURE_KEY), ("whole", "millionths"), rows)


def charges(operation: str, amount: int, shortfall: int, charged: int) -> int:
    """Return the number of charges of an entry: 0 for a late settle, which corrects the charge of its expiry."""
    if operation == "deduct":
        return 1
    if operation == "settle":
        return 1 if charged == amount - shortfall else 0
    return (charged > 0) - (charged < 0)


def charges_column(its: Any) -> Any:
    """Return `charges` as SQL, over the columns of `entries`."""
    return case(
        (its.operation == "deduct", 1),
        (and_(its.operation == "settle", its.charged == its.amount - its.shortfall), 1),
        (its.operation == "settle", 0),
        (its.charged > 0, 1),
        (its.charged < 0, -1),
        else_=0,
    )


def is_moving(its: Any) -> Any:
    """Return the SQL condition for the entries that `Cells` adds."""
    return or_(its.charged != 0, its.balance_change != 0, its.operation.in_(sorted(_ALWAYS)))


def partition_of(connection: Connection, namespace: str, account: str) -> int | None:
    """Return the account's partition, or None if the ledger does not know the account."""
    its = accounts.c
    return connection.scalar(select(its.partition).where(its.namespace == namespace, its.account == account))


def account_days_in(
    connection: Connection, namespace: str, partition: int, account: str, days: tuple[int, int] | None = None
) -> list[int]:
    """Return the days, rising, in which anything of the account moved, from the first bound up to the second."""
    # Steps by the index from each day of the partition to the next: the days of one account are not adjacent.
    its, others = account_days.c, account_days.alias().c
    place = [its.namespace == namespace, its.partition == partition]
    first = []
    if days is not None:
        place.append(its.day < days[1])
        first.append(its.day >= days[0])  # for the first step only: else SQLite seeks by it and scans from there
    walk = select(func.min(its.day).label("day")).where(*place, *first).cte("days", recursive=True)
    later = select(func.min(its.day)).where(*place, its.day > walk.c.day).scalar_subquery()
    walk = walk.union_all(select(later).where(walk.c.day.is_not(None)))
    has_any = (
        select(others.day)
        .where(
            others.namespace == namespace,
            others.partition == partition,
            others.day == walk.c.day,
            others.account == account,
        )
        .exists()
    )
    return sorted(connection.scalars(select(walk.c.day).where(walk.c.day.is_not(None), has_any)))


def account_hours_in(
    connection: Connection, namespace: str, partition: int, account: str, hours: tuple[int, int] | None = None
) -> list[int]:
    """Return the hours, rising, of days in which anything of the account moved, within the bounds."""
    days = None if hours is None else (hours[0] // HOURS_A_DAY, -(-hours[1] // HOURS_A_DAY))
    found = (
        hour
        for day in account_days_in(connection, namespace, partition, account, days)
        for hour in range(day * HOURS_A_DAY, (day + 1) * HOURS_A_DAY)
    )
    return [hour for hour in found if hours is None or hours[0] <= hour < hours[1]]


def portions(times: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield hours or days in portions for one statement."""
    for first in range(0, len(times), _AT_A_TIME):
        yield times[first : first + _AT_A_TIME]


def stored_cells(connection: Connection, namespace: str, account: str, partition: int) -> Cells:
    """Return the stored sums of an account."""
    sums: dict[Any, list[int]] = {}
    its = account_hours.c
    columns = [its[name] for name in (*CELL_KEY, *SUMS)]
    place: tuple[Any, ...] = (its.namespace == namespace, its.partition == partition, its.account == account)
    for some in portions(account_hours_in(connection, namespace, partition, account)):
        for row in connection.execute(select(*columns).where(*place, its.hour.in_(some))):
            sums[tuple(row[: len(CELL_KEY)])] = list(row[len(CELL_KEY) :])
    measured: dict[Any, int] = {}
    columns = [measures.c[name] for name in (*MEASURE_KEY, "whole", "millionths")]
    place = (measures.c.namespace == namespace, measures.c.account == account)
    for row in connection.execute(select(*columns).where(*place)):
        measured[tuple(row[: len(MEASURE_KEY)])] = row.whole * MILLION + row.millionths
    return Cells(sums, measured)


def replace_cells(connection: Connection, namespace: str, account: str, partition: int, cells: Cells) -> None:
    """Store the sums of an account, in place of its earlier ones."""
    stored = stored_cells(connection, namespace, account, partition)
    before = stored.sums
    if before == cells.sums and stored.measured == cells.measured:
        return
    _add_to_partition(connection, namespace, partition, before, -1)
    hours = sorted({key[0] for key in before})
    days = sorted({hour // HOURS_A_DAY for hour in hours})
    weeks = sorted({day // DAYS_A_WEEK for day in days})
    for table, unit, times in (
        (account_hours, "hour", hours),
        (account_days, "day", days),
        (account_weeks, "week", weeks),
    ):
        its = table.c
        for some in portions(times):
            place = (its.namespace == namespace, its.partition == partition, its[unit].in_(some))
            connection.execute(delete(table).where(*place, its.account == account))
    its = measures.c
    connection.execute(delete(measures).where(its.namespace == namespace, its.account == account))
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


def _add_to_weeks(connection: Connection, namespace: str, partition: int, days: Mapping[Any, list[int]]) -> None:
    """Add late days to the weeks that exist, and make the weeks that are over. The days must be added before."""
    arguments = (namespace, partition)
    place = f"FROM {partitions.name} WHERE namespace = ? AND partition = ?"
    open_week = run(connection, f"SELECT open_week {place}", arguments).scalar_one()
    first_open_day = open_week * DAYS_A_WEEK
    late: dict[Any, list[int]] = {}
    for (day, *rest), cell in days.items():
        if day < first_open_day:
            _accumulate(late, (day // DAYS_A_WEEK, *rest), cell)
    _add_of_accounts(connection, account_weeks, namespace, partition, WEEK_KEY, late)
    newest_day = max(day for day, *_ in days)
    if newest_day >= first_open_day + DAYS_A_WEEK:
        _make_weeks(connection, namespace, partition, open_week, newest_day // DAYS_A_WEEK)


def _make_weeks(connection: Connection, namespace: str, partition: int, open_week: int, until: int) -> None:
    its = account_days.c
    week = its.day.op("/")(DAYS_A_WEEK)  # of integers: rounded down
    key = (its.account, its.operation, its.member)
    made = (
        select(its.namespace, its.partition, week, *key, *(func.sum(its[name]) for name in SUMS))
        .where(
            its.namespace == namespace,
            its.partition == partition,
            its.day >= open_week * DAYS_A_WEEK,
            its.day < until * DAYS_A_WEEK,
        )
        .group_by(its.namespace, its.partition, week, *key)
    )
    connection.execute(insert(account_weeks).from_select(["namespace", "partition", *WEEK_KEY, *SUMS], made))
    run(
        connection,
        f"UPDATE {partitions.name} SET open_week = ? WHERE namespace = ? AND partition = ?",
        (until, namespace, partition),
    )


def _add_to_partition(
    connection: Connection, namespace: str, partition: int, sums: Mapping[CellKey, list[int]], factor: int
) -> None:
    cells: dict[Any, list[int]] = {}
    for (hour, _, operation, _, model, operation_type, credits_type), cell in sums.items():
        its = cell if factor == 1 else [value * factor for value in cell]
        _accumulate(cells, (hour, partition, operation, model, operation_type, credits_type), its)
    _add(connection, partition_hours, ("namespace",), (namespace,), _PARTITION_KEY, cells)


def _accumulate(into: dict[Any, list[int]], key: Any, sums: list[int]) -> None:
    before = into.get(key)
    into[key] = sums if before is None else list(map(add, before, sums))


def _add_of_accounts(
    connection: Connection,
    table: Table,
    namespace: str,
    partition: int,
    key_names: Sequence[str],
    cells: Mapping[Any, list[int]],
) -> None:
    _add(connection, table, ("namespace", "partition"), (namespace, partition), key_names, cells)


def _add(
    connection: Connection,
    table: Table,
    place_names: Sequence[str],
    place: tuple[Any, ...],
    key_names: Sequence[str],
    cells: Mapping[Any, list[int]],
) -> None:
    if not cells:
        return
    # A batch has few of the twenty sums: empty columns are left out. Rows in the order of keys stay close together.
    used = [index for index, column in enumerate(zip(*cells.values(), strict=True)) if any(column)]
    rows = [(*place, *key, *[cell[index] for index in used]) for key, cell in sorted(cells.items())]
    add_rows(connection, table, (*place_names, *key_names), [SUMS[index] for index in used], rows)
