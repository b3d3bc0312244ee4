"""Numbers as documents and usage write them, exactly, and the one way of rounding.

Python turns the text `1e3000000` into an integer for minutes, so digits and exponent are bounded before anything is
converted.
"""

import re
from decimal import Context, Decimal
from fractions import Fraction

from ducto_redis.errors import ConfigError

MAX_DIGITS = 30
MAX_EXPONENT = 18

_LITERAL = re.compile(r"[+-]?(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?")
# The caller's decimal context may round or trap.
_EXACT = Context(prec=100)


class LiteralError(ConfigError):
    """Not a number that a document may hold."""


def decimal_literal(text: str) -> Decimal:
    """Return the number that `text` writes, exactly.

    Raises:
        LiteralError: for anything but a decimal number of at most 30 digits with an exponent within 18 of zero.

    >>> decimal_literal("2.50")
    Decimal('2.50')
    """
    match = _LITERAL.fullmatch(text)
    if match is None:
        raise LiteralError(f"{text!r:.60} is not a decimal number")
    whole, fraction, bare_fraction, exponent = match.groups()
    if len(whole or "") + len(fraction or "") + len(bare_fraction or "") > MAX_DIGITS:
        raise LiteralError(f"a number has at most {MAX_DIGITS} digits, {text!r:.60} has more")
    # Its length first: int() of a long text is slow.
    if exponent is not None and (len(exponent.lstrip("+-0")) > 2 or abs(int(exponent)) > MAX_EXPONENT):
        raise LiteralError(f"a number's exponent is from -{MAX_EXPONENT} to {MAX_EXPONENT}, {text!r:.60} has another")
    return _EXACT.create_decimal(text)


def round_half_up(numerator: int, denominator: int) -> int:
    """Return numerator / denominator as the nearest integer; a half goes away from zero, as in ROUND_HALF_UP.

    >>> round_half_up(5, 2), round_half_up(-5, 2), round_half_up(7, 3)
    (3, -3, 2)
    """
    if numerator >= 0:
        return (2 * numerator + denominator) // (2 * denominator)
    return -((denominator - 2 * numerator) // (2 * denominator))


def round_fraction(value: Fraction) -> int:
    """Return `value` as the nearest integer; a half goes away from zero."""
    return round_half_up(value.numerator, value.denominator)
