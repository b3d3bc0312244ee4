"""Hours in which an account was charged far more than is usual for it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from msgspec import Struct
from sqlalchemy import Connection, func, select

from ducto_redis.analytics_results import Anomaly
from ducto_redis.errors import ConfigError
from ducto_redis.ledger.rollups import HOUR_MS, HOURS_A_DAY
from ducto_redis.ledger.schema import account_hours, partition_hours
from ducto_redis.money import Amount, from_micro, to_micro

_CHARGING = ("deduct", "settle", "expire", "release")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of values with a normal distribution, the median distance from the median by this is the standard deviation.
_TO_DEVIATION = 1.4826
_SMALLEST_SPREAD = 0.25
_MOST_DAYS = 366


class Sensitivity(Struct, frozen=True):
    """What counts as far above. `at_least` is in micro-credits."""

    history_days: int
    threshold: float
    at_least: int

    @classmethod
    def checked(cls, history_days: int, threshold: float, at_least: Amount) -> "Sensitivity":
        """Raises ConfigError, InvalidAmountError."""
        if isinstance(history_days, bool) or not isinstance(history_days, int) or not 1 <= history_days <= _MOST_DAYS:
            raise ConfigError(f"history_days is a number from 1 to {_MOST_DAYS}, not {history_days!r:.40}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1e9:
            raise ConfigError(f"threshold is a number above 0, not {threshold!r:.40}")
        return cls(history_days, float(threshold), to_micro(at_least, zero=True))


def find_anomalies(
    connection: Connection, namespace: str, times: tuple[int, int], account: str | None, sensitivity: Sensitivity
) -> list[Anomaly]:
    """See `Analytics.anomalies`. Hours count where they begin in the time."""
    its = partition_hours.c
    newest = connection.scalar(select(func.max(its.hour)).where(its.namespace == namespace))
    if newest is None:
        return []
    end = min(-(-times[1] // HOUR_MS), newest + 1)
    start = -(-times[0] // HOUR_MS) if times[0] else end - HOURS_A_DAY
    found = []
    for name, hours in _hours(connection, namespace, account, start - sensitivity.history_days * HOURS_A_DAY, end):
        candidates = {hour: charged for hour, charged in hours.items() if hour >= start}
        if candidates and max(candidates.values()) >= max(1, sensitivity.at_least):
            usual, spread = _usual(hours, end)
            for hour, charged in candidates.items():
                if charged >= sensitivity.at_least and charged > usual + sensitivity.threshold * spread:
                    found.append(_anomaly(name, hour, charged, usual, spread))
    return sorted(found, key=lambda it: (-it.score, it.account, it.hour))


def _hours(
    connection: Connection, namespace: str, account: str | None, first: int, last: int
) -> Iterator[tuple[str, dict[int, int]]]:
    its = account_hours.c
    conditions = [its.namespace == namespace, its.hour >= first, its.hour < last, its.operation.in_(_CHARGING)]
    if account is not None:
        conditions.append(its.account == account)
    statement = select(its.account, its.hour, func.sum(its.charged)).where(*conditions).group_by(its.account, its.hour)
    by_account: dict[str, dict[int, int]] = {}
    for name, hour, charged in connection.execute(statement.execution_options(yield_per=2000)):
        by_account.setdefault(name, {})[hour] = int(charged)
    yield from by_account.items()


def _usual(hours: dict[int, int], end: int) -> tuple[float, float]:
    """What is usual in an hour, and the spread, in micro-credits."""
    charged = list(hours.values())
    every = charged + [0] * (end - min(hours) - len(charged))
    usual, spread = _median_and_mad(every)
    if not usual and not spread:
        usual, spread = _median_and_mad([value for value in charged if value > 0] or [0])
    return usual, max(spread * _TO_DEVIATION, usual * _SMALLEST_SPREAD, 1.0)


def _median_and_mad(values: list[int]) -> tuple[float, float]:
    middle = median(values)
    return middle, median([abs(value - middle) for value in values])


def _anomaly(account: str, hour: int, charged: int, usual: float, spread: float) -> Anomaly:
    return Anomaly(
        account=account,
        hour=_EPOCH + timedelta(hours=hour),
        charged=from_micro(charged),
        usual=from_micro(round(usual)),
        spread=from_micro(round(spread)),
        score=round((charged - usual) / spread, 2),
    )
