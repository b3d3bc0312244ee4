"""Formats of amounts, times and counts in explanations."""

from datetime import UTC, datetime
from decimal import Decimal

from ducto_redis.display import format_credits

INDENT = "  "


def credits(amount: Decimal) -> str:
    """Return credits without trailing zeros."""
    return format_credits(amount)


def signed(amount: Decimal) -> str:
    """Return credits with their sign, a plus included."""
    return f"+{format_credits(amount)}" if amount > 0 else format_credits(amount)


def times_text(count: int) -> str:
    """Return a number of times in words.

    >>> times_text(1), times_text(1200)
    ('once', '1,200 times')
    """
    return "once" if count == 1 else f"{count:,} times"


def moment(time: datetime) -> str:
    """Return a time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
