"""Sums of entries over a period: from roll-ups, and from the entries themselves in hours that a bound cuts."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from msgspec import Struct
from sqlalchemy import Connection, Table, func, select

from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.rollups import (
    CELL_KEY,
    DAYS_A_WEEK,
    HOUR_MS,
    HOURS_A_DAY,
    MEASURE_KEY,
    MILLION,
    Cells,
    account_days_in,
    account_hours_in,
    charges_column,
    is_moving,
    partition_of,
    portions,
)
from ducto_redis.ledger.rows import STATEMENT_COLUMNS, Movement, ledger_entry_of, usages_of
from ducto_redis.ledger.schema import (
    SUMS,
    USAGE_SUMS,
    account_days,
    account_hours,
    account_weeks,
    entries,
    measures,
    partition_hours,
    partitions,
)

BEGINNING_MS = 0
END_MS = 2**53 // HOUR_MS * HOUR_MS
"""A time after every entry."""

_ROWS_AT_A_TIME = 2000
_MOST_EPOCHS = 64
_USAGE = frozenset(USAGE_SUMS)

Group: TypeAlias = tuple[Any, ...]


class Question(Struct, frozen=True):
    """A question for sums.

    Attributes:
        bounds: milliseconds, rising: each two enclose a period, without its end.
        by: columns of the roll-ups to group by; "hour" too.
        account: an account, or None for all.
        operations: the operations to count, or None for all.
    """

    namespace: str
    bounds: Sequence[int]
    by: tuple[str, ...]
    account: str | None = None
    operations: tuple[str, ...] | None = None

    @property
    def hours(self) -> tuple[int, int]:
        """The first whole hour, and the one after the last."""
        return -(-self.bounds[0] // HOUR_MS), self.bounds[-1] // HOUR_MS

    @property
    def cut_hours(self) -> list[int]:
        """The hours that a bound lies in."""
        return sorted({bound // HOUR_MS for bound in self.bounds if bound % HOUR_MS})

    def parts_of(self, hour: int) -> list[tuple[int, int]]:
        """Return start and end of each part of a cut hour, inside the bounds."""
        start, end = max(hour * HOUR_MS, self.bounds[0]), min((hour + 1) * HOUR_MS, self.bounds[-1])
        return list(pairwise((start, *(bound for bound in self.bounds if start < bound < end), end)))

    def period(self, at_ms: int) -> int:
        """Return the number of the period of an instant."""
        return bisect_right(self.bounds, at_ms) - 1


def sums_of(connection: Connection, question: Question, names: Sequence[str]) -> dict[Group, list[int]]:
    """Return sums (columns of `SUMS`) by period and by the question's columns."""
    found: dict[Group, list[int]] = {}
    places = [SUMS.index(name) for name in names]
    for group, values in _from_rollups(connection, question, names):
        _add(found, group, values)
    if not any(name in _USAGE for name in names):
        for group, values in _movements_of_entries(connection, question, names):
            _add(found, group, values)
        return found
    for period, factor, cells in _from_entries(connection, question):
        for key, cell in cells.sums.items():
            group = (period, *_chosen(question.by, CELL_KEY, key))
            _add(found, group, [factor * cell[place] for place in places])
    return found


def measured(connection: Connection, question: Question, measure: str) -> dict[Group, int]:
    """Return the consumption of a document's own measure, in millionths. It can be grouped by `MEASURE_KEY`."""
    found: dict[Group, int] = {}
    columns = measures.c
    conditions = [
        columns.namespace == question.namespace,
        columns.measure == measure,
        *_within(columns.hour, question.hours),
    ]
    if question.account is not None:
        conditions.append(columns.account == question.account)
    for group, values in _grouped(connection, question, measures, ("whole", "millionths"), conditions):
        found[group] = found.get(group, 0) + values[0] * MILLION + values[1]
    for period, factor, cells in _from_entries(connection, question):
        for key, value in cells.measured.items():
            if key[0] == measure:
                group = (period, *_chosen(question.by, MEASURE_KEY, key))
                found[group] = found.get(group, 0) + factor * value
    return found


def hours_with_entries(connection: Connection, question: Question) -> list[int]:
    """Return the hours, rising and cut ones included, in which anything may have moved."""
    hours = question.bounds[0] // HOUR_MS, -(-question.bounds[-1] // HOUR_MS)
    if question.account is not None:
        partition = partition_of(connection, question.namespace, question.account)
        if partition is None:
            return []
        return account_hours_in(connection, question.namespace, partition, question.account, hours)
    its = partition_hours.c
    conditions = [its.namespace == question.namespace, *_within(its.hour, hours)]
    return list(connection.scalars(select(its.hour).where(*conditions).distinct().order_by(its.hour)))


def _from_rollups(
    connection: Connection, question: Question, names: Sequence[str]
) -> Iterator[tuple[Group, list[int]]]:
    for table, conditions in _tables(connection, question):
        conditions = [table.c.namespace == question.namespace, *conditions]
        if question.account is not None:
            conditions.append(table.c.account == question.account)
        if question.operations is not None:
            conditions.append(table.c.operation.in_(question.operations))
        yield from _grouped(connection, question, table, names, conditions)


def _tables(connection: Connection, question: Question) -> Iterator[tuple[Table, Sequence[Any]]]:
    """Yield the smallest tables that can answer, each with the conditions for its rows."""
    first, last = question.hours
    if first >= last:
        return
    by, account, hours = set(question.by), question.account, account_hours.c
    if account is None and not {"account", "member"} & by:
        yield partition_hours, _within(partition_hours.c.hour, (first, last))
        return
    days = -(-first // HOURS_A_DAY), last // HOURS_A_DAY
    by_days = len(question.bounds) == 2 and by <= {"account", "operation", "member"} and days[0] < days[1]
    spans = [(first, days[0] * HOURS_A_DAY), (days[1] * HOURS_A_DAY, last)] if by_days else [(first, last)]
    if account is None:
        open_weeks = _open_weeks(connection, question.namespace)
        if by_days:
            yield from _days_and_weeks(open_weeks, days)
        for span in spans:
            if span[0] < span[1]:
                yield account_hours, (hours.partition.in_(open_weeks), *_within(hours.hour, span))
        return
    partition = partition_of(connection, question.namespace, account)
    if partition is None:
        return
    if by_days:
        its = account_days.c
        for some in portions(account_days_in(connection, question.namespace, partition, account, days)):
            yield account_days, (its.partition == partition, its.day.in_(some))
    for span in spans:
        if span[0] < span[1]:
            for some in portions(account_hours_in(connection, question.namespace, partition, account, span)):
                yield account_hours, (hours.partition == partition, hours.hour.in_(some))


def _days_and_weeks(open_weeks: dict[int, int], days: tuple[int, int]) -> Iterator[tuple[Table, Sequence[Any]]]:
    """Yield whole weeks, as far as each partition has them, and the days before and after them."""
    its, of_weeks = account_days.c, account_weeks.c
    first = -(-days[0] // DAYS_A_WEEK)
    until: dict[int, list[int]] = {}
    for partition, open_week in open_weeks.items():
        until.setdefault(min(days[1] // DAYS_A_WEEK, open_week), []).append(partition)
    for last, its_partitions in sorted(until.items()):
        spans = [days]
        if first < last:
            yield account_weeks, (of_weeks.partition.in_(its_partitions), *_within(of_weeks.week, (first, last)))
            spans = [(days[0], first * DAYS_A_WEEK), (last * DAYS_A_WEEK, days[1])]
        for span in spans:
            if span[0] < span[1]:
                yield account_days, (its.partition.in_(its_partitions), *_within(its.day, span))


def _open_weeks(connection: Connection, namespace: str) -> dict[int, int]:
    """Return by partition the first week that `account_weeks` does not have."""
    its = partitions.c
    rows = connection.execute(select(its.partition, its.open_week).where(its.namespace == namespace))
    return {row.partition: row.open_week for row in rows}


def _grouped(
    connection: Connection, question: Question, table: Table, names: Sequence[str], conditions: Sequence[Any]
) -> Iterator[tuple[Group, list[int]]]:
    one_period = len(question.bounds) == 2
    columns = [table.c[name] for name in question.by]
    grouping = columns if one_period or "hour" in question.by else [*columns, table.c.hour]
    hour_at = None if one_period else (question.by.index("hour") if "hour" in question.by else len(columns))
    cut = {} if one_period else {hour: _longest(question.parts_of(hour))[0] for hour in question.cut_hours}
    statement = select(*grouping, *(func.sum(table.c[name]) for name in names)).where(*conditions).group_by(*grouping)
    if not grouping:  # without groups SQL gives one row of nothing
        statement = statement.having(func.count() > 0)
    for row in connection.execute(statement).all():
        hour = None if hour_at is None else row[hour_at]
        period = 0 if hour is None else question.period(cut.get(hour, hour * HOUR_MS))
        yield (period, *row[: len(columns)]), [int(value) for value in row[len(grouping) :]]


def _movements_of_entries(
    connection: Connection, question: Question, names: Sequence[str]
) -> Iterator[tuple[Group, list[int]]]:
    """Yield sums of movements in cut hours, computed by the database."""
    where = _journals(connection, question) if question.cut_hours else None
    if where is None:
        return
    its = entries.c
    hour = (its.entry_ms.op("/")(HOUR_MS)).label("hour")
    dimensions = {"hour": hour} | {name: func.coalesce(its[name], "") for name in CELL_KEY if name != "hour"}
    sums = {"entries": func.count(), "charges": func.sum(charges_column(its))}
    by = [dimensions[name] for name in question.by]
    columns = [*by, *(sums[name] if name in sums else func.sum(its[name]) for name in names)]
    for start, end, periods in _cut_parts(question):
        time = (its.entry_ms >= start, its.entry_ms < end)
        inner = select(*columns).where(*where, *time, is_moving(its)).group_by(*by).having(func.count() > 0)
        for row in connection.execute(inner).all():
            for period, factor in periods:
                yield (period, *row[: len(by)]), [factor * int(value) for value in row[len(by) :]]


def _from_entries(connection: Connection, question: Question) -> Iterator[tuple[int, int, Cells]]:
    """Yield sums of entries in cut hours, usage included, each with its period and its factor there."""
    where = _journals(connection, question) if question.cut_hours else None
    if where is None:
        return
    its = entries.c
    for start, end, periods in _cut_parts(question):
        cells = Cells()
        statement = select(*STATEMENT_COLUMNS).where(*where, its.entry_ms >= start, its.entry_ms < end)
        with connection.execute(statement.execution_options(yield_per=_ROWS_AT_A_TIME)) as rows:
            for row in rows:
                entry = ledger_entry_of(row)
                cells.take(entry, entry.time_ms, _movement(entry), usages_of(entry.cause))
        for period, factor in periods:
            yield period, factor, cells


def _cut_parts(question: Question) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield start and end of parts of cut hours, with the periods of their entries and the factor: 1 or -1.

    If all of an hour is asked for, its roll-up counts in the period of its longest part, and the entries of its other
    parts are subtracted there, so that fewer entries are read.
    """
    for hour in question.cut_hours:
        parts = question.parts_of(hour)
        if parts[0][0] > hour * HOUR_MS or parts[-1][1] < (hour + 1) * HOUR_MS:
            for start, end in parts:
                yield start, end, [(question.period(start), 1)]
            continue
        longest = _longest(parts)
        for start, end in parts:
            if (start, end) != longest:
                yield start, end, [(question.period(start), 1), (question.period(longest[0]), -1)]


def _longest(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(parts, key=lambda part: part[1] - part[0])


def _journals(connection: Connection, question: Question) -> list[Any] | None:
    """Return conditions that let an index find entries by time; None if there are no entries."""
    statement = select(partitions.c.partition, partitions.c.epoch).where(partitions.c.namespace == question.namespace)
    if question.account is not None:
        its_own = partition_of(connection, question.namespace, question.account)
        statement = statement.where(partitions.c.partition == its_own)
    rows = connection.execute(statement).all()
    if not rows:
        return None
    conditions = [
        entries.c.namespace == question.namespace,
        entries.c.superseded == 0,
        entries.c.partition.in_([row.partition for row in rows]),
    ]
    latest = max(row.epoch for row in rows)
    if latest < _MOST_EPOCHS:
        conditions.append(entries.c.epoch.in_(range(latest + 1)))
    if question.account is not None:
        # Hidden from the index of accounts, which would read all of the account's entries for every cut hour.
        conditions.append(func.coalesce(entries.c.account, "") == question.account)
    if question.operations is not None:
        conditions.append(entries.c.operation.in_(question.operations))
    return conditions


def _movement(entry: LedgerEntry) -> Movement:
    return Movement(
        entry.model,
        entry.operation_type,
        entry.member,
        entry.type,
        entry.charged,
        entry.allowance,
        entry.refund_of,
    )


def _within(column: Any, span: tuple[int, int]) -> tuple[Any, Any]:
    return column >= span[0], column < span[1]


def _chosen(by: Collection[str], names: Sequence[str], key: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(key[names.index(name)] for name in by)


def _add(found: dict[Group, list[int]], group: Group, values: list[int]) -> None:
    before = found.get(group)
    found[group] = values if before is None else [a + b for a, b in zip(before, values, strict=True)]
