"""Times as people type them."""

import re
from datetime import UTC, datetime, timedelta

from ducto_redis.errors import ConfigError

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str, option: str, now: datetime) -> datetime:
    """Return the time typed for an option: so long ago (`30m`, `12h`, `7d`, `4w`), a date, or a date and a time.

    Without a zone, dates and times are UTC.

    Raises:
        ConfigError: for anything else.

    >>> parse_time("7d", "--since", datetime(2026, 1, 8, tzinfo=UTC)).isoformat()
    '2026-01-01T00:00:00+00:00'
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text)
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} is so long ago, as in 12h, 7d or 4w, or a date, as in 2026-01-31 or 2026-01-31T08:00+01:00, not"
            f" {text!r:.40}"
        ) from None
