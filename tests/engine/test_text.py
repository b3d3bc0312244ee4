"""Times as milliseconds since 1970."""

from datetime import UTC, datetime, timedelta

from ducto_redis.engine.text import milliseconds_from, time_of


def test_a_fraction_of_a_millisecond_is_rounded_up() -> None:
    """The first whole millisecond that is not before a time is the time itself or the next one, also before 1970."""
    assert milliseconds_from(time_of(1_700_000_000_123)) == 1_700_000_000_123
    assert milliseconds_from(time_of(1_700_000_000_123) + timedelta(microseconds=1)) == 1_700_000_000_124
    assert milliseconds_from(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == 0
