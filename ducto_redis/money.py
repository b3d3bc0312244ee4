"""Credits and micro-credits.

A credit is an exact decimal with six places. Inside the engine, the journal and the ledger it is an integer number of
micro-credits, so that no addition ever rounds. Lua counts in doubles, which are exact up to 2**53 - 1: that is the
largest amount, and the largest balance, that exists.
"""

from collections.abc import Callable
from decimal import Context, Decimal
from functools import partial
from typing import TypeAlias

from ducto_redis.errors import InvalidAmountError

PLACES = 6
MICRO = 10**PLACES
MAX_MICRO = 2**53 - 1

Amount: TypeAlias = int | str | Decimal
"""What callers may pass as credits: an int, a decimal string or a Decimal. `float` is refused."""

# The caller's decimal context may round or trap; these conversions must do neither.
_EXACT = Context(prec=40)
_multiply = _EXACT.multiply
_MICRO_CREDIT = Decimal("0.000001")
_LONGEST_TEXT = 40

from_micro: Callable[[int], Decimal] = partial(_multiply, _MICRO_CREDIT)
"""Returns micro-credits as credits, an exact Decimal with six places. Every result of a charge is made of it."""


def to_micro(amount: Amount, *, zero: bool = False) -> int:
    """Return `amount` credits as micro-credits.

    Args:
        amount: credits, above zero, with at most six places.
        zero: whether 0 is allowed, as it is for the actual cost of finished work.

    Raises:
        InvalidAmountError: for a float, a bool, NaN, an infinity, more than six places, an amount below or at zero,
            or one over the limit of 9,007,199,254.740991 credits.

    >>> to_micro("41.2")
    41200000
    """
    if isinstance(amount, bool) or not isinstance(amount, int | str | Decimal):
        raise InvalidAmountError(
            f"an amount must be an int, a decimal string or a Decimal, not {type(amount).__name__}: {amount!r:.60}"
        )
    micro: int
    if isinstance(amount, int):
        if abs(amount) > MAX_MICRO:  # too long to be printed, perhaps
            raise InvalidAmountError(f"an amount must be within {from_micro(MAX_MICRO)} credits of zero")
        micro = amount * MICRO
    else:
        if isinstance(amount, str):
            amount = _parse(amount)
        if not amount.is_finite():
            raise InvalidAmountError(f"an amount must be finite, not {amount}")
        sign, digits, exponent = amount.as_tuple()
        assert isinstance(exponent, int)
        if digits == (0,):
            micro = 0
        elif len(digits) + exponent > 16:
            raise InvalidAmountError(f"an amount must be at most {from_micro(MAX_MICRO)} credits, got {amount:.3e}")
        else:
            while exponent < -PLACES and digits and digits[-1] == 0:
                digits, exponent = digits[:-1], exponent + 1
            if exponent < -PLACES:
                raise InvalidAmountError(f"an amount has at most {PLACES} decimal places, got {amount!s:.60}")
            micro = int("".join(map(str, digits)) + "0" * (exponent + PLACES))
            micro = -micro if sign else micro
    if micro < 0 or (micro == 0 and not zero):
        raise InvalidAmountError(f"an amount must be {'zero or more' if zero else 'above zero'}, got {amount!s:.60}")
    if micro > MAX_MICRO:
        raise InvalidAmountError(f"an amount must be at most {from_micro(MAX_MICRO)} credits, got {amount!s:.60}")
    return micro


def to_signed_micro(credits: Decimal) -> int:
    """Return credits of a result, which may be below zero, as micro-credits."""
    return int(_EXACT.scaleb(credits, PLACES))


def _parse(text: str) -> Decimal:
    # `int(Decimal("1e3000000"))` takes minutes, so the length is bounded before, the exponent after parsing.
    try:
        if len(text) > _LONGEST_TEXT or not text.isascii() or "_" in text:
            raise ValueError
        return Decimal(text)
    except (ValueError, ArithmeticError):
        raise InvalidAmountError(f"an amount must be a decimal number, got {text!r:.60}") from None
