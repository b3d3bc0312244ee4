"""Entries of a document that price something: a name and a formula."""

from ducto_redis.pricing.exact import LiteralError
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.loading import exact_number
from ducto_redis.pricing.reading import Section, kind_of, refuse
from ducto_redis.pricing.resolution import DEFAULT, WILDCARD


def read_formula(value: object, path: str, own_measures: frozenset[str]) -> Formula:
    """Read the formula at `path`: a text, or a number for a flat price.

    Raises:
        ConfigError: for anything else.
        ExpressionError: for a text that is not a formula.
    """
    if not isinstance(value, str):
        try:
            flat = exact_number(value)
        except LiteralError as error:
            refuse(path, str(error))
        if flat is None:
            refuse(path, f"must be a formula, not {kind_of(value)}")
        value = f"{flat:f}"
    return Formula(value, path, own_measures)


def read_formulas(
    section: Section, key: str, own_measures: frozenset[str], *, wildcards: bool = False
) -> dict[str, str]:
    """Read the formulas by name at `key`, as texts. With `wildcards` a name may end in *."""

    def read(name: str, value: object, path: str) -> str:
        with section.mistakes:
            if wildcards and WILDCARD in name:
                if name == WILDCARD:
                    refuse(path, f"for all other models write {DEFAULT}")
                if name.index(WILDCARD) != len(name) - 1:
                    refuse(path, "the * stands only at the end of a model's name")
            return read_formula(value, path, own_measures).text
        # Where mistakes are collected, what mentions this name is not wrong because its formula is.
        return "0"

    return section.entries_of(key, read)
