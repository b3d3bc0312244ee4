"""The rate of each measure in a formula, where it is constant."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from ducto_redis.pricing.exact import round_fraction
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.linear_forms import CannotLowerError
from ducto_redis.pricing.lowering import Lowering
from ducto_redis.pricing.measures import TOKENS, UNCACHED

PER_TOKENS = 1_000_000
"""How many tokens a price of tokens is given for."""

PER_REQUEST = "requests"
"""The measure under which a constant part of a formula stands."""

_PLACES = 12


class Rate(Struct, frozen=True):
    """A price before and after. Credits have at most 12 places.

    Attributes:
        measure: what is priced.
        per: how many of it the prices are for: 1,000,000 of tokens, 1 of all else.
        before, after: credits.
        percent: by how much the price changed, to two places; None where it was 0.
    """

    measure: str
    per: int
    before: Decimal
    after: Decimal
    percent: Decimal | None


def linear_rates(formula: Formula) -> Mapping[str, Fraction] | None:
    """Return credits for one of each measure; None where the formula is no sum of measures times constants.

    >>> linear_rates(Formula("2 + input_tokens * 0.5 - input_tokens / 4", "models.m"))
    {'requests': Fraction(2, 1), 'input_tokens': Fraction(1, 4)}
    """
    try:
        form = Lowering(formula.own_measures, Fraction(1)).form(formula.tree)
    except (CannotLowerError, RecursionError):
        return None
    rates = {PER_REQUEST: form.constant} if form.constant else {}
    for measure, (_, factor) in form.terms.items():
        if not isinstance(measure, str):
            return None
        rates[measure] = factor
    return rates


def compare_rates(before: Mapping[str, Fraction], after: Mapping[str, Fraction]) -> tuple[Rate, ...]:
    """Return the price of each measure that either side charges for, in their order."""
    rates = []
    for measure in dict.fromkeys((*before, *after)):
        old, new = before.get(measure, Fraction(0)), after.get(measure, Fraction(0))
        per = PER_TOKENS if measure in TOKENS or measure == UNCACHED else 1
        percent = _decimal((new - old) / abs(old) * 100, 2) if old else None
        rates.append(Rate(measure, per, _decimal(old * per, _PLACES), _decimal(new * per, _PLACES), percent))
    return tuple(rates)


def _decimal(value: Fraction, places: int) -> Decimal:
    units = round_fraction(value * 10**places)
    digits = tuple(map(int, str(abs(units))))
    written = f"{Decimal((units < 0, digits, -places)):f}"
    return Decimal(written.rstrip("0").rstrip(".") if "." in written else written)
