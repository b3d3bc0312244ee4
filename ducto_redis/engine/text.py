"""The separators of the texts that are kept in Redis, and times as the milliseconds that these texts hold."""

from datetime import UTC, datetime, timedelta

RECORD_SEPARATOR = "\x1f"
"""Separates the parts of a record: a lease, a grant, a plan's terms."""

LIST_SEPARATOR = "\x1e"
"""Separates the parts of what holds records, and records of a list."""

ITEM_SEPARATOR = "\x1d"
"""Separates the items of one part."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def time_of(milliseconds: int) -> datetime:
    """Return milliseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def milliseconds_from(moment: datetime) -> int:
    """Return the first whole millisecond since 1970 that is not before `moment`, which has a time zone.

    Entries have whole milliseconds: an entry before a fraction is outside a period that starts there.
    """
    return -((EPOCH - moment) // MILLISECOND)
