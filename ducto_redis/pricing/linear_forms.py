"""Linear forms: the values that lowering calculates with."""

import ast
from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import TypeAlias

from msgspec import Struct

from ducto_redis.pricing.syntax import binary, literal, total

Key: TypeAlias = str | int
"""A measure by name, or a calculation by number."""


class CannotLowerError(Exception):
    """The formula has no constant denominator, or fails on constants alone: it is calculated with fractions."""


class Form(Struct, frozen=True):
    """A value: `constant` and integer expressions, each times a constant. Equal measures have equal keys."""

    constant: Fraction
    terms: dict[Key, tuple[ast.expr, Fraction]] = {}

    def scaled(self, factor: Fraction) -> "Form":
        """Return this value times a constant."""
        if not factor:
            # A measure times 0 is 0, but a calculation times 0 may still divide by zero.
            if any(isinstance(key, int) for key in self.terms):
                raise CannotLowerError
            return Form(Fraction(0))
        return Form(self.constant * factor, {key: (code, each * factor) for key, (code, each) in self.terms.items()})

    def denominator(self) -> int:
        """Return the smallest number that turns every factor of this value into an integer."""
        return lcm(self.constant.denominator, *(factor.denominator for _, factor in self.terms.values()))


def add(forms: Sequence[Form], signs: Sequence[int]) -> Form:
    """Return the sum of values, each with a sign of 1 or -1."""
    constant = Fraction(0)
    terms: dict[Key, tuple[ast.expr, Fraction]] = {}
    for form, sign in zip(forms, signs, strict=True):
        constant += form.constant * sign
        for key, (code, factor) in form.terms.items():
            before = terms[key][1] if key in terms else 0
            terms[key] = (code, before + factor * sign)
    return Form(constant, {key: term for key, term in terms.items() if term[1]})


def integer(form: Form, unit: Fraction) -> ast.expr:
    """Return the integer expression `form / unit`; the unit divides every factor of the form."""
    summands: list[ast.expr] = []
    for code, factor in form.terms.values():
        times = _whole(factor / unit)
        summands.append(code if times == 1 else binary(code, "*", literal(times)))
    constant = _whole(form.constant / unit)
    if constant or not summands:
        summands.append(literal(constant))
    return total(summands)


def _whole(number: Fraction) -> int:
    assert number.denominator == 1
    return number.numerator
