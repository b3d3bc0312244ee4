"""Calendar arithmetic: when windows and allowance periods begin and end, in IANA time zones.

Times are milliseconds since 1970 in UTC; an end is not in its window. Windows of one kind follow each other without gap
or overlap:

- A day begins at the first instant that its date, or a later one, is on the local calendar. So it begins at 01:00 where
  the clock skips midnight, it begins once where the clock is set back over midnight, and a date that a zone left out
  has no window.
- Weeks begin with Monday, months with their first day.
- An hour or minute begins when the local clock's hour or minute changes, and whenever the clock is set back: the two
  hours from 02:00 to 03:00 of a night in autumn are two windows, and where a clock moves by half an hour, an hour may
  have only 30 minutes.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from ducto_redis.errors import ConfigError
from ducto_redis.suggestions import did_you_mean

TOTAL: Final = "total"
WINDOWS: Final = ("minute", "hour", "day", "week", "month", TOTAL)
PERIODS: Final = ("day", "week", "month")
ANCHORS: Final = ("calendar", "assignment")

_MINUTE = 60
_HOUR = 3600
_DAY = 86400

ROLLING_MS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "minute": _MINUTE * 1000,
        "hour": _HOUR * 1000,
        "day": _DAY * 1000,
        "week": 7 * _DAY * 1000,
        "month": 30 * _DAY * 1000,
    }
)
"""How long rolling windows are, in milliseconds. A rolling month has 30 days."""

_CLOCK_UNITS = {"minute": _MINUTE, "hour": _HOUR}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
# Listed by the database, but no zone's name: what they mean differs between machines.
_NO_ZONES = ("localtime", "posixrules", "Factory")


def check_time_zone(name: str) -> str:
    """Return `name`, the IANA name of a time zone.

    Raises:
        ConfigError: for anything else.

    >>> check_time_zone("Europe/Berlin")
    'Europe/Berlin'
    """
    if not isinstance(name, str):
        raise _no_zone(name)
    _zone(name)
    return name


def window_bounds(window: str, time_zone: str, at_ms: int) -> tuple[int, int]:
    """Return the start and end of the calendar window that holds an instant, in milliseconds.

    Args:
        window: minute, hour, day, week or month.
        time_zone: where the calendar is read, an IANA name.
        at_ms: the instant.

    Raises:
        ConfigError: for an unknown window or time zone; and for `total`, which has no bounds.

    >>> window_bounds("day", "UTC", 90_000_000)
    (86400000, 172800000)
    """
    if window in _CLOCK_UNITS:
        start, end = _clock_bounds(_zone(time_zone), at_ms // 1000, _CLOCK_UNITS[window])
        return start * 1000, end * 1000
    if window not in PERIODS:
        hint = "; a total never ends, so that it has none" if window == TOTAL else did_you_mean(window, WINDOWS)
        raise ConfigError(f"the windows with bounds are {_listed((*_CLOCK_UNITS, *PERIODS))}, not {window!r:.60}{hint}")
    day = _day_of(time_zone, at_ms // 1000)
    if window == "day":
        return _between(time_zone, day, day + 1)
    if window == "week":
        monday = day - date.fromordinal(day).weekday()
        return _between(time_zone, monday, monday + 7)
    first = date.fromordinal(day).replace(day=1)
    return _between(time_zone, first.toordinal(), _months_later(first, 1).toordinal())


def period_bounds(period: str, anchor: str, time_zone: str, assigned_ms: int, at_ms: int) -> tuple[int, int]:
    """Return the start and end of the allowance period that holds an instant, in milliseconds.

    Args:
        period: day, week or month.
        anchor: `calendar` for the calendar's days, weeks and months; `assignment` for periods that begin with the day
            of the assignment and follow each other from there. One assigned on the 31st begins on the last day of
            shorter months, and on the 31st again after them.
        time_zone: where days begin, an IANA name.
        assigned_ms: when the plan was assigned.
        at_ms: the instant. Before the assignment, the first period counts.

    Raises:
        ConfigError: for an unknown period, anchor or time zone.
    """
    if period not in PERIODS:
        raise ConfigError(f"a period is {_listed(PERIODS)}, not {period!r:.60}{did_you_mean(period, PERIODS)}")
    if anchor == "calendar":
        return window_bounds(period, time_zone, at_ms)
    if anchor != "assignment":
        raise ConfigError(f"an anchor is {_listed(ANCHORS)}, not {anchor!r:.60}{did_you_mean(anchor, ANCHORS)}")
    first = _day_of(time_zone, assigned_ms // 1000)
    day = max(first, _day_of(time_zone, at_ms // 1000))
    if period == "month":
        anchor_date, today = date.fromordinal(first), date.fromordinal(day)
        months = (today.year - anchor_date.year) * 12 + today.month - anchor_date.month
        if today < _months_later(anchor_date, months):
            months -= 1
        return _between(
            time_zone,
            _months_later(anchor_date, months).toordinal(),
            _months_later(anchor_date, months + 1).toordinal(),
        )
    length = 7 if period == "week" else 1
    start = day - (day - first) % length
    return _between(time_zone, start, start + length)


@lru_cache(1024)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # Needs no database.
    try:
        if name in _NO_ZONES or name.startswith(("posix/", "right/")):
            raise ValueError(name)
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a malformed name, an unknown one
        raise _no_zone(name, _zone_hint(name)) from None


def _no_zone(name: object, hint: str = "") -> ConfigError:
    return ConfigError(f"a time zone is an IANA name such as 'Europe/Berlin', not {name!r:.60}{hint}")


def _zone_hint(name: str) -> str:
    zones = sorted(available_timezones().difference(_NO_ZONES))
    if not zones:
        return "; this machine has no time zone database: pip install tzdata"
    city = name.casefold().rpartition("/")[2].strip().replace(" ", "_")
    for zone in zones:
        if zone.casefold().rpartition("/")[2] == city:
            return f"; did you mean {zone!r}?"
    return did_you_mean(name, zones)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}"


def _between(time_zone: str, first_day: int, last_day: int) -> tuple[int, int]:
    """Return the milliseconds at which two days begin, given by their ordinals."""
    return _day_start(time_zone, first_day) * 1000, _day_start(time_zone, last_day) * 1000


def _day_of(time_zone: str, at: int) -> int:
    """Return the ordinal of the day whose window holds an instant, in seconds."""
    day = _local(_zone(time_zone), at).toordinal()
    # A clock set back over midnight shows the old date again, but the new day has begun.
    while _day_start(time_zone, day + 1) <= at:
        day += 1
    return day


@lru_cache(4096)
def _day_start(time_zone: str, day: int) -> int:
    """Return the first instant, in seconds, at which the local calendar shows this day or a later one."""
    zone = _zone(time_zone)
    midnight = datetime.fromordinal(day)
    # The earlier of two midnights; where there is none, the instant that the clock before the gap would call midnight.
    start = _seconds(midnight.replace(tzinfo=zone))
    if _local(zone, start) == midnight:
        return start
    before, after = _seconds(midnight.replace(tzinfo=zone, fold=1)), start
    while after - before > 1:
        middle = (before + after) // 2
        if _local(zone, middle) >= midnight:
            after = middle
        else:
            before = middle
    return after


def _clock_bounds(zone: tzinfo, at: int, unit: int) -> tuple[int, int]:
    """Return the bounds, in seconds, of the hour or minute (`unit` seconds) on the local clock at an instant."""
    offset = _offset(zone, at)
    start = (at + offset) // unit * unit - offset
    end = start + unit
    before, last = _offset(zone, start), _offset(zone, end - 1)
    if before != offset:
        change = _change(zone, start, at)
        shown = (change - 1 + before) // unit
        # A clock put forward within the hour leaves it the same hour.
        same = offset > before and shown == (change + offset) // unit
        start = shown * unit - before if same else change
    if last != offset:
        change = _change(zone, at, end - 1)
        shown = (change + last) // unit
        same = last > offset and shown == (change - 1 + offset) // unit
        end = (shown + 1) * unit - last if same else change
    return start, end


def _change(zone: tzinfo, before: int, after: int) -> int:
    """Return the first second with the offset of `after`, where a zone changes once between the two."""
    old = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: tzinfo, at: int) -> int:
    """Return how many seconds the local clock is ahead of UTC."""
    return (_local(zone, at) - _local(UTC, at)) // _SECOND


def _local(zone: tzinfo, at: int) -> datetime:
    """Return what the local clock shows at an instant, in seconds."""
    return (_EPOCH + at * _SECOND).astimezone(zone).replace(tzinfo=None)


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _SECOND


def _months_later(first: date, months: int) -> date:
    """Return the same day some months later, or the last one of a shorter month."""
    years, month = divmod(first.month - 1 + months, 12)
    year = first.year + years
    following = date(year + (month == 11), (month + 1) % 12 + 1, 1)
    return date(year, month + 1, min(first.day, (following - timedelta(days=1)).day))
