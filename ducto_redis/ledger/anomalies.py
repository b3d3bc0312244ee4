"""Anomalies: hours in which an account was charged far more than usual."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from statistics import median

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Text, cast, func, select

from ducto_redis.analytics_results import Anomaly
from ducto_redis.engine.text import EPOCH
from ducto_redis.errors import ConfigError
from ducto_redis.ledger.rollups import HOUR_MS, HOURS_A_DAY, account_hours_in, partition_of, portions
from ducto_redis.ledger.schema import account_hours, partition_hours, partitions
from ducto_redis.money import Amount, from_micro, to_micro

_CHARGING = ("deduct", "settle", "expire", "release")
# For a normal distribution, the median distance from the median times this is the standard deviation.
_TO_DEVIATION = 1.4826
_SMALLEST_SPREAD = 0.25
_MOST_DAYS = 366
_FEW = 100
"""The number of accounts up to which their own hours are read faster than those of all."""
_ROWS_AT_A_TIME = 500


class Sensitivity(Struct, frozen=True):
    """The limits of an anomaly. `at_least` is in micro-credits."""

    history_days: int
    threshold: float
    at_least: int

    @classmethod
    def checked(cls, history_days: int, threshold: float, at_least: Amount) -> "Sensitivity":
        """Return the limits, checked. Raises ConfigError, InvalidAmountError."""
        if isinstance(history_days, bool) or not isinstance(history_days, int) or not 1 <= history_days <= _MOST_DAYS:
            raise ConfigError(f"history_days must be a number from 1 to {_MOST_DAYS}, not {history_days!r:.40}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1e9:
            raise ConfigError(f"threshold must be a number above 0, not {threshold!r:.40}")
        return cls(history_days, float(threshold), to_micro(at_least, zero=True))


def find_anomalies(
    connection: Connection, namespace: str, times: tuple[int, int], account: str | None, sensitivity: Sensitivity
) -> list[Anomaly]:
    """Return the anomalies, see `Analytics.anomalies`. An hour counts if it begins in the period."""
    its = partition_hours.c
    newest = connection.scalar(select(func.max(its.hour)).where(its.namespace == namespace))
    if newest is None:
        return []
    end = min(-(-times[1] // HOUR_MS), newest + 1)
    start = -(-times[0] // HOUR_MS) if times[0] else end - HOURS_A_DAY
    at_least = max(1, sensitivity.at_least)
    suspects = {
        name: hours
        for name, hours in _hours(connection, namespace, account, (start, end)).items()
        if max(hours.values()) >= at_least
    }
    since = start - sensitivity.history_days * HOURS_A_DAY
    found = []
    for name, first, charged in _histories(connection, namespace, suspects.keys(), (since, end)):
        usual, spread = _usual(charged, end - first)
        for hour, its_charged in suspects.get(name, {}).items():
            if its_charged >= sensitivity.at_least and its_charged > usual + sensitivity.threshold * spread:
                found.append(_anomaly(name, hour, its_charged, usual, spread))
    return sorted(found, key=lambda it: (-it.score, it.account, it.hour))


def _hours(
    connection: Connection, namespace: str, account: str | None, span: tuple[int, int]
) -> dict[str, dict[int, int]]:
    """Return the charges of each hour, by account."""
    its = account_hours.c
    found: dict[str, dict[int, int]] = {}
    for conditions in _places(connection, namespace, account, span):
        sums = select(its.account, its.hour, func.sum(its.charged)).where(*conditions)
        for name, hour, charged in connection.execute(sums.group_by(its.account, its.hour)).all():
            found.setdefault(name, {})[hour] = int(charged)
    return found


def _histories(
    connection: Connection, namespace: str, names: Collection[str], span: tuple[int, int]
) -> Iterator[tuple[str, int, list[int]]]:
    """Yield accounts, each with its first hour with charges, and the charges of that and each later such hour.

    If many accounts are asked for, the others come too.
    """
    if len(names) <= _FEW:
        for name in names:
            hours = _hours(connection, namespace, name, span)[name]
            yield name, min(hours), list(hours.values())
        return
    its = account_hours.c
    for conditions in _places(connection, namespace, None, span):
        # In the order of the table, so that nothing is sorted; one row an account is less to fetch.
        by_hour = (
            select(its.account, its.hour, func.sum(its.charged).label("charged"))
            .where(*conditions)
            .group_by(its.partition, its.hour, its.account)
            .subquery()
        )
        charged = func.aggregate_strings(cast(by_hour.c.charged, Text), ",")
        statement = select(by_hour.c.account, func.min(by_hour.c.hour), charged).group_by(by_hour.c.account)
        for name, first, values in connection.execute(statement.execution_options(yield_per=_ROWS_AT_A_TIME)):
            yield name, first, [int(value) for value in values.split(",")]


def _places(
    connection: Connection, namespace: str, account: str | None, span: tuple[int, int]
) -> Iterator[list[ColumnElement[bool]]]:
    """Yield conditions for the charges of all accounts, or of one, in a span of hours."""
    its = account_hours.c
    conditions = [its.namespace == namespace, its.operation.in_(_CHARGING)]
    if account is None:
        every = select(partitions.c.partition).where(partitions.c.namespace == namespace)
        numbers = connection.scalars(every).all()
        yield [*conditions, its.partition.in_(numbers), its.hour >= span[0], its.hour < span[1]]
        return
    partition = partition_of(connection, namespace, account)
    if partition is not None:
        for some in portions(account_hours_in(connection, namespace, partition, account, span)):
            yield [*conditions, its.partition == partition, its.account == account, its.hour.in_(some)]


def _usual(charged: list[int], hours: int) -> tuple[float, float]:
    """Return the usual charge of an hour and the spread, in micro-credits.

    Args:
        charged: the charges of the hours that have any.
        hours: the number of hours, empty ones included.
    """
    usual = spread = 0.0
    if 2 * (hours - len(charged) + charged.count(0)) <= hours:
        usual, spread = _median_and_mad(charged + [0] * (hours - len(charged)))
    if not usual and not spread:
        usual, spread = _median_and_mad([value for value in charged if value > 0] or [0])
    return usual, max(spread * _TO_DEVIATION, usual * _SMALLEST_SPREAD, 1.0)


def _median_and_mad(values: list[int]) -> tuple[float, float]:
    middle = median(values)
    return middle, median([abs(value - middle) for value in values])


def _anomaly(account: str, hour: int, charged: int, usual: float, spread: float) -> Anomaly:
    return Anomaly(
        account=account,
        hour=EPOCH + timedelta(hours=hour),
        charged=from_micro(charged),
        usual=from_micro(round(usual)),
        spread=from_micro(round(spread)),
        score=round((charged - usual) / spread, 2),
    )
