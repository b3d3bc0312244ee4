"""Windows and periods follow the local calendar exactly: over DST, missing days, month lengths and leap days."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ducto_redis.errors import ConfigError
from ducto_redis.windows import PERIODS, ROLLING_MS, WINDOWS, check_time_zone, period_bounds, window_bounds

SECOND = 1000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
CALENDAR = [window for window in WINDOWS if window != "total"]


def ms(text: str, zone: str = "UTC") -> int:
    """The milliseconds of a local time, or of one with an offset."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).timestamp() * 1000)


def shown(at_ms: int, zone: str) -> str:
    """What a clock and calendar in the zone show, with the offset."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).isoformat(timespec="minutes")


def bounds(window: str, zone: str, at: str) -> tuple[str, str]:
    start, end = window_bounds(window, zone, ms(at, zone))
    return shown(start, zone), shown(end, zone)


@pytest.mark.parametrize(
    ("window", "at", "start", "end"),
    [
        ("minute", "2024-05-15T13:45:59.999", "2024-05-15T13:45+00:00", "2024-05-15T13:46+00:00"),
        ("hour", "2024-05-15T13:45:59", "2024-05-15T13:00+00:00", "2024-05-15T14:00+00:00"),
        ("day", "2024-05-15T13:45:59", "2024-05-15T00:00+00:00", "2024-05-16T00:00+00:00"),
        ("week", "2024-05-15T13:45:59", "2024-05-13T00:00+00:00", "2024-05-20T00:00+00:00"),
        ("week", "2024-05-13T00:00", "2024-05-13T00:00+00:00", "2024-05-20T00:00+00:00"),
        ("week", "2024-05-19T23:59:59.999", "2024-05-13T00:00+00:00", "2024-05-20T00:00+00:00"),
        ("week", "2025-01-01T00:00", "2024-12-30T00:00+00:00", "2025-01-06T00:00+00:00"),
        ("month", "2024-05-15T13:45:59", "2024-05-01T00:00+00:00", "2024-06-01T00:00+00:00"),
        ("month", "2024-02-29T23:59:59.999", "2024-02-01T00:00+00:00", "2024-03-01T00:00+00:00"),
        ("month", "2023-02-28T23:59:59.999", "2023-02-01T00:00+00:00", "2023-03-01T00:00+00:00"),
        ("month", "2100-02-28T12:00", "2100-02-01T00:00+00:00", "2100-03-01T00:00+00:00"),
        ("month", "2024-12-31T23:59:59.999", "2024-12-01T00:00+00:00", "2025-01-01T00:00+00:00"),
    ],
)
def test_plain_calendar(window: str, at: str, start: str, end: str) -> None:
    """In UTC, windows are those of the calendar; weeks begin with Monday."""
    assert bounds(window, "UTC", at) == (start, end)
    assert window_bounds(window, "UTC", ms(at)) == window_bounds(window, "Etc/UTC", ms(at))


@pytest.mark.parametrize(
    ("window", "zone", "at", "start", "end"),
    [
        # 23 and 25 hours
        ("day", "Europe/Berlin", "2024-03-31T12:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"),
        ("day", "Europe/Berlin", "2024-10-27T12:00", "2024-10-27T00:00+02:00", "2024-10-28T00:00+01:00"),
        ("week", "America/New_York", "2024-11-03T01:30-05:00", "2024-10-28T00:00-04:00", "2024-11-04T00:00-05:00"),
        ("month", "America/New_York", "2024-03-10T12:00", "2024-03-01T00:00-05:00", "2024-04-01T00:00-04:00"),
        ("day", "Asia/Kolkata", "2024-05-15T02:00", "2024-05-15T00:00+05:30", "2024-05-16T00:00+05:30"),
        # midnight is skipped
        ("day", "America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"),
        ("day", "America/Sao_Paulo", "2018-11-03T23:59", "2018-11-03T00:00-03:00", "2018-11-04T01:00-02:00"),
        # and skipped by a gap that begins before it
        ("day", "America/Toronto", "1919-03-31T12:00", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
        # the hour before midnight comes twice, midnight once
        ("day", "America/Sao_Paulo", "2018-02-17T23:30-02:00", "2018-02-17T00:00-02:00", "2018-02-18T00:00-03:00"),
        ("day", "America/Sao_Paulo", "2018-02-17T23:30-03:00", "2018-02-17T00:00-02:00", "2018-02-18T00:00-03:00"),
        # midnight comes twice: the day begins with the first, and the old date that is shown again is in it
        ("day", "America/St_Johns", "2010-11-07T00:00:30-02:30", "2010-11-07T00:00-02:30", "2010-11-08T00:00-03:30"),
        ("day", "America/St_Johns", "2010-11-06T23:30-03:30", "2010-11-07T00:00-02:30", "2010-11-08T00:00-03:30"),
        ("day", "America/St_Johns", "2010-11-06T23:30-02:30", "2010-11-06T00:00-02:30", "2010-11-07T00:00-02:30"),
        # the zone left out 30 December
        ("day", "Pacific/Apia", "2011-12-29T23:59", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
        ("day", "Pacific/Apia", "2011-12-31T00:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
        ("week", "Pacific/Apia", "2011-12-31T00:00", "2011-12-26T00:00-10:00", "2012-01-02T00:00+14:00"),
        ("month", "Pacific/Apia", "2011-12-31T00:00", "2011-12-01T00:00-10:00", "2012-01-01T00:00+14:00"),
        # two different hours from 02:00
        ("hour", "Europe/Berlin", "2024-10-27T02:59+02:00", "2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"),
        ("hour", "Europe/Berlin", "2024-10-27T02:00+01:00", "2024-10-27T02:00+01:00", "2024-10-27T03:00+01:00"),
        ("hour", "Europe/Berlin", "2024-03-31T01:59+01:00", "2024-03-31T01:00+01:00", "2024-03-31T03:00+02:00"),
        # hours of zones with minutes, and clocks that move by half an hour
        ("hour", "Asia/Kolkata", "2024-05-15T13:29", "2024-05-15T13:00+05:30", "2024-05-15T14:00+05:30"),
        ("hour", "Asia/Kathmandu", "2024-05-15T13:29", "2024-05-15T13:00+05:45", "2024-05-15T14:00+05:45"),
        ("hour", "Australia/Lord_Howe", "2024-04-07T01:59+11:00", "2024-04-07T01:00+11:00", "2024-04-07T01:30+10:30"),
        ("hour", "Australia/Lord_Howe", "2024-04-07T01:30+10:30", "2024-04-07T01:30+10:30", "2024-04-07T02:00+10:30"),
        ("hour", "Australia/Lord_Howe", "2024-10-06T02:30+11:00", "2024-10-06T02:30+11:00", "2024-10-06T03:00+11:00"),
        ("day", "Australia/Lord_Howe", "2024-10-06T12:00", "2024-10-06T00:00+10:30", "2024-10-07T00:00+11:00"),
        ("hour", "America/St_Johns", "2010-11-07T00:00:59-02:30", "2010-11-07T00:00-02:30", "2010-11-06T23:01-03:30"),
        ("hour", "America/St_Johns", "2010-11-06T23:30-03:30", "2010-11-06T23:01-03:30", "2010-11-07T00:00-03:30"),
        # a clock put forward from 00:00 to 00:15, and from 23:30 to 00:00
        ("hour", "Asia/Kathmandu", "1986-01-01T00:20+05:45", "1986-01-01T00:15+05:45", "1986-01-01T01:00+05:45"),
        ("hour", "Asia/Pyongyang", "2018-05-04T23:15+08:30", "2018-05-04T23:00+08:30", "2018-05-05T00:00+09:00"),
        ("minute", "Europe/Berlin", "2024-10-27T02:59:59+02:00", "2024-10-27T02:59+02:00", "2024-10-27T02:00+01:00"),
    ],
)
def test_clock_changes(window: str, zone: str, at: str, start: str, end: str) -> None:
    """Windows on days when the clock changes have the bounds that the local clock and calendar show."""
    assert bounds(window, zone, at) == (start, end)


def test_a_clock_put_forward_within_the_hour() -> None:
    """Where the clock jumps but still shows the same hour, the hour goes on and is shorter."""
    # In Athens, 28 July 1916 had one minute before the clock went from 00:01 to 00:26:08.
    before, after = ms("1916-07-28T00:00:30", "Europe/Athens"), ms("1916-07-28T00:50", "Europe/Athens")
    start, end = window_bounds("hour", "Europe/Athens", before)
    assert window_bounds("hour", "Europe/Athens", after) == (start, end)
    assert shown(start, "Europe/Athens")[:16] == "1916-07-28T00:00"
    assert shown(end, "Europe/Athens")[:16] == "1916-07-28T01:00"
    assert end - start == HOUR - (25 * 60 + 8) * SECOND
    # The minutes on both sides are two.
    assert window_bounds("minute", "Europe/Athens", before) == (start, start + 60 * SECOND)
    assert window_bounds("minute", "Europe/Athens", start + 61 * SECOND) == (start + 60 * SECOND, start + 112 * SECOND)


ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "UTC",
]
# Instants around which clocks change, and any others.
CHANGES = [
    ms(text)
    for text in (
        "2024-03-31T01:00",
        "2024-10-27T01:00",
        "2024-03-10T07:00",
        "2024-11-03T06:00",
        "2018-02-18T02:00",
        "2018-11-04T03:00",
        "2011-12-30T10:00",
        "2010-11-07T02:31",
        "2024-04-06T15:00",
        "2024-10-05T15:30",
        "2018-05-04T15:00",
        "1985-12-31T18:30",
        "2024-02-29T12:00",
    )
]
instants = st.one_of(
    st.builds(int.__add__, st.sampled_from(CHANGES), st.integers(-2 * DAY, 2 * DAY)),
    st.builds(int.__add__, st.sampled_from(CHANGES), st.integers(-2 * HOUR, 2 * HOUR)),
    st.integers(0, ms("2200-01-01T00:00")),
)


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), instants, st.floats(0, 1))
@settings(max_examples=600, deadline=None)
def test_windows_tile_time(window: str, zone: str, at: int, share: float) -> None:
    """An instant lies in its window, all others of that window have the same one, and the next begins at its end."""
    start, end = window_bounds(window, zone, at)
    assert start <= at < end
    inside = start + int((end - 1 - start) * share)
    for other in (start, inside, end - 1):
        assert window_bounds(window, zone, other) == (start, end)
    assert window_bounds(window, zone, end)[0] == end
    assert window_bounds(window, zone, start - 1)[1] == start


def local(at: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at // 1000, ZoneInfo(zone)).replace(tzinfo=None)


@given(st.sampled_from(["day", "week", "month"]), st.sampled_from(ZONES), instants, st.floats(0, 1))
@settings(max_examples=600, deadline=None)
def test_days_begin_with_their_date(window: str, zone: str, at: int, share: float) -> None:
    """A day, week or month begins at the first instant of its first date: before it, no such date was shown."""
    start, end = window_bounds(window, zone, at)
    first = local(start, zone).date()
    before = start - 1 - int(share * DAY)
    assert local(start - 1, zone).date() < first
    assert local(before, zone).date() < first
    if window == "week" and zone != "Pacific/Apia":
        assert first.weekday() == 0
    if window == "month":
        assert first.day == 1
    last = local(end - 1, zone).date()
    if window == "day":
        assert last == first
    elif window == "month":
        assert (last.year, last.month) == (first.year, first.month)
        assert (last + timedelta(days=1)).day == 1


@given(st.sampled_from(["minute", "hour"]), st.sampled_from(ZONES), instants, st.floats(0, 1))
@settings(max_examples=600, deadline=None)
def test_hours_are_those_of_the_clock(window: str, zone: str, at: int, share: float) -> None:
    """All through an hour or minute the clock shows the same one, running forward, and it is as long as possible."""
    start, end = window_bounds(window, zone, at)
    places = 3600 if window == "hour" else 60

    def unit(moment: int) -> int:
        return (local(moment, zone) - datetime(1970, 1, 1)) // timedelta(seconds=places)

    inside = start + int((end - 1 - start) * share)
    assert unit(start) == unit(inside) == unit(end - 1)
    assert local(start, zone) <= local(inside, zone) <= local(end - 1, zone)
    for edge in (start, end):
        assert unit(edge - 1) != unit(edge) or local(edge, zone) < local(edge - 1, zone)


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), instants, st.integers(1, 40 * DAY))
@settings(max_examples=200, deadline=None)
def test_a_clock_set_back(window: str, zone: str, at: int, back: int) -> None:
    """An earlier instant has the same window or an earlier one."""
    now, before = window_bounds(window, zone, at), window_bounds(window, zone, at - back)
    assert before == now or before[1] <= now[0]


def periods(period: str, zone: str, assigned: str, count: int) -> list[str]:
    """The local dates at which the first periods begin."""
    assigned_ms = ms(assigned, zone)
    at = assigned_ms
    starts = []
    for _ in range(count):
        start, at = period_bounds(period, "assignment", zone, assigned_ms, at)
        starts.append(local(start, zone).isoformat(timespec="minutes"))
    return starts


@pytest.mark.parametrize(
    ("period", "zone", "assigned", "starts"),
    [
        ("day", "UTC", "2024-02-28T15:00", ["2024-02-28T00:00", "2024-02-29T00:00", "2024-03-01T00:00"]),
        ("week", "UTC", "2024-02-24T15:00", ["2024-02-24T00:00", "2024-03-02T00:00", "2024-03-09T00:00"]),
        ("month", "UTC", "2024-01-15T15:00", ["2024-01-15T00:00", "2024-02-15T00:00", "2024-03-15T00:00"]),
        (
            "month",
            "Europe/Berlin",
            "2024-01-31T00:00",
            ["2024-01-31T00:00", "2024-02-29T00:00", "2024-03-31T00:00", "2024-04-30T00:00", "2024-05-31T00:00"],
        ),
        ("month", "UTC", "2023-01-30T23:59", ["2023-01-30T00:00", "2023-02-28T00:00", "2023-03-30T00:00"]),
        ("month", "UTC", "2023-12-31T12:00", ["2023-12-31T00:00", "2024-01-31T00:00", "2024-02-29T00:00"]),
        ("month", "UTC", "2024-02-29T12:00", ["2024-02-29T00:00", "2024-03-29T00:00", "2024-04-29T00:00"]),
        # the first day and a later one begin late
        (
            "month",
            "America/Sao_Paulo",
            "2018-10-04T12:00",
            ["2018-10-04T00:00", "2018-11-04T01:00", "2018-12-04T00:00"],
        ),
        # a day that the zone left out
        ("month", "Pacific/Apia", "2011-11-30T12:00", ["2011-11-30T00:00", "2011-12-31T00:00", "2012-01-30T00:00"]),
        ("day", "Pacific/Apia", "2011-12-29T12:00", ["2011-12-29T00:00", "2011-12-31T00:00", "2012-01-01T00:00"]),
    ],
)
def test_anchored_periods(period: str, zone: str, assigned: str, starts: list[str]) -> None:
    """Anchored periods begin at the midnight of their day; the 31st is clamped in short months, and comes back."""
    assert periods(period, zone, assigned, len(starts)) == starts


def test_the_anchor_day_is_never_lost() -> None:
    """Over 40 years, a period that is anchored to the 31st begins on the last day of every month."""
    starts = [datetime.fromisoformat(each) for each in periods("month", "UTC", "2000-01-31T00:00", 480)]
    assert [(each + timedelta(days=1)).day for each in starts] == [1] * 480
    assert [each.year * 12 + each.month for each in starts] == list(range(2000 * 12 + 1, 2040 * 12 + 1))


@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), instants, st.integers(0, 900 * DAY), st.floats(0, 1))
@example(period="month", zone="UTC", assigned=ms("2024-01-31T12:00"), later=29 * DAY, share=0.5)
@settings(max_examples=600, deadline=None)
def test_anchored_periods_tile_time(period: str, zone: str, assigned: int, later: int, share: float) -> None:
    """From the day of the assignment on, anchored periods follow each other without gap or overlap."""
    at = assigned + later
    start, end = period_bounds(period, "assignment", zone, assigned, at)
    assert start <= at < end
    inside = start + int((end - 1 - start) * share)
    for other in (start, inside, end - 1):
        assert period_bounds(period, "assignment", zone, assigned, other) == (start, end)
    assert period_bounds(period, "assignment", zone, assigned, end)[0] == end
    first = window_bounds("day", zone, assigned)[0]
    assert start >= first
    if start > first:
        assert period_bounds(period, "assignment", zone, assigned, start - 1)[1] == start
    # Any instant of the day of the assignment anchors alike.
    assert period_bounds(period, "assignment", zone, first, at) == (start, end)


@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), instants, st.integers(0, 90 * DAY))
@settings(max_examples=200, deadline=None)
def test_before_the_assignment(period: str, zone: str, assigned: int, before: int) -> None:
    """A clock set back behind the assignment gives the first period."""
    first = period_bounds(period, "assignment", zone, assigned, assigned)
    assert first[0] == window_bounds("day", zone, assigned)[0]
    assert period_bounds(period, "assignment", zone, assigned, assigned - before) == first


@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), instants, instants)
@settings(max_examples=100, deadline=None)
def test_calendar_periods(period: str, zone: str, assigned: int, at: int) -> None:
    """A calendar period is the calendar's window, whenever the plan was assigned."""
    assert period_bounds(period, "calendar", zone, assigned, at) == window_bounds(period, zone, at)


def test_rolling_windows() -> None:
    """Every window but a total can roll; a rolling month has 30 days."""
    assert list(ROLLING_MS) == CALENDAR
    assert ROLLING_MS["month"] == 30 * DAY
    assert (
        ROLLING_MS["week"] == 7 * ROLLING_MS["day"] == 7 * 24 * ROLLING_MS["hour"] == 7 * 24 * 60 * ROLLING_MS["minute"]
    )
    with pytest.raises(TypeError):
        ROLLING_MS["total"] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+5", "EST5EDT", "America/Argentina/Buenos_Aires"])
def test_time_zones(name: str) -> None:
    """IANA names are time zones."""
    assert check_time_zone(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("berlin", "; did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "; did you mean 'Europe/Berlin'?"),
        ("Eurpoe/Berlin", "; did you mean 'Europe/Berlin'?"),
        ("New York", "; did you mean 'America/New_York'?"),
        ("utc", "; did you mean 'Etc/UTC'?"),
        ("Mars/Base", ""),
        ("", ""),
        ("Europe", None),
        ("../Europe/Berlin", None),
        ("/etc/localtime", None),
        ("localtime", None),
        ("right/Europe/Berlin", None),
        ("posix/Europe/Berlin", None),
        ("a\0b", ""),
        ("\ud800", ""),
        ("x" * 5000, ""),
    ],
)
def test_no_time_zone(name: str, hint: str | None) -> None:
    """Anything else is refused with what was expected, and the zone that was probably meant."""
    for ask in (
        check_time_zone,
        lambda zone: window_bounds("day", zone, 0),
        lambda zone: window_bounds("hour", zone, 0),
    ):
        with pytest.raises(ConfigError) as caught:
            ask(name)
        message = f"a time zone is an IANA name such as 'Europe/Berlin', not {name!r:.60}"
        assert str(caught.value).startswith(message)
        assert hint is None or str(caught.value) == message + hint


@pytest.mark.parametrize("name", [None, 5, ["UTC"], b"UTC"])
def test_no_text(name: object) -> None:
    """What is no text is no time zone."""
    with pytest.raises(ConfigError, match="a time zone is an IANA name"):
        check_time_zone(name)  # type: ignore[arg-type]


def test_utc_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no time zone database, UTC works all the same, and others say what to install."""
    monkeypatch.setattr("ducto_redis.windows.ZoneInfo", lambda name: (_ for _ in ()).throw(KeyError(name)))
    monkeypatch.setattr("ducto_redis.windows.available_timezones", set)
    assert window_bounds("day", "UTC", 0) == (0, DAY)
    with pytest.raises(ConfigError, match="pip install tzdata"):
        check_time_zone("Europe/Vaduz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: window_bounds("total", "UTC", 0), "not 'total'; a total never ends"),
        (lambda: window_bounds("mounth", "UTC", 0), "'week' or 'month', not 'mounth'; did you mean 'month'"),
        (lambda: window_bounds("year", "UTC", 0), "not 'year'"),
        (lambda: period_bounds("hour", "calendar", "UTC", 0, 0), "a period is 'day', 'week' or 'month', not 'hour'"),
        (lambda: period_bounds("total", "assignment", "UTC", 0, 0), "a period is 'day', 'week' or 'month'"),
        (lambda: period_bounds("day", "assigned", "UTC", 0, 0), "an anchor is 'calendar' or 'assignment', not"),
        (lambda: period_bounds("day", "assignment", "Mars", 0, 0), "a time zone is an IANA name"),
    ],
)
def test_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    """What is no window, period or anchor is refused with what there is."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert message in str(caught.value)


def test_far_times() -> None:
    """The arithmetic goes on before 1970 and far into the future."""
    assert window_bounds("day", "UTC", -1) == (-DAY, 0)
    assert window_bounds("hour", "Europe/Berlin", -1) == (-HOUR, 0)
    start, end = window_bounds("month", "Europe/Berlin", ms("2999-07-15T12:00"))
    assert datetime.fromtimestamp(start / 1000, UTC).isoformat() == "2999-06-30T22:00:00+00:00"
    assert end - start == 31 * DAY
