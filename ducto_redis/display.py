"""Formats of credits and counts for people."""

from decimal import Decimal


def format_credits(credits: Decimal) -> str:
    """Return credits without exponent and without trailing zeros.

    >>> format_credits(Decimal("41.200000"))
    '41.2'
    """
    text = f"{credits:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number of things.

    >>> counted(1, "entry", "entries")
    '1 entry'
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
