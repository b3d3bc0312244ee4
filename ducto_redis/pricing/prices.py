"""Prices of models by the names that requests give, compiled at first use."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from ducto_redis.errors import UnpricedModelError
from ducto_redis.pricing.compiling import Total, compile_total
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.measures import INPUT_PARTS, UNCACHED
from ducto_redis.pricing.resolution import resolve_rate
from ducto_redis.pricing.usage import check_name

MAX_REMEMBERED = 4096
"""How many names a table remembers. Names come from clients, who can make up any number of them."""


_Value = TypeVar("_Value")


class ModelPrice(Struct, frozen=True):
    """What prices a model.

    Attributes:
        formula: the model's own.
        discount: the cache section's, where it applies to the model.
        total: the price of a request in micro-credits.
    """

    formula: Formula
    discount: Formula | None
    total: Total


class ModelPrices:
    """The prices of a document's models, perhaps with a plan's rates in place of some.

    By the name that a request gives (None: it gives none), `prices` holds a ModelPrice and `totals` a function from
    usage to micro-credits. Looking up a name raises UnpricedModelError where there is no price, and InvalidIdError for
    a name that no model can have.
    """

    def __init__(
        self,
        formulas: Mapping[str, Formula],
        overrides: Mapping[str, Formula],
        *,
        discount: Formula | None,
        extras: Sequence[str],
        otherwise: Total,
    ) -> None:
        """Prepare prices.

        Args:
            formulas: by entry of the document.
            overrides: a plan's, by entry; where one names the model, it wins.
            discount: of the cache section.
            extras: fields of a usage that have prices of their own where they are given.
            otherwise: prices what is more than a model, or wrong.
        """
        self._formulas = formulas
        self._overrides = overrides
        self._discount = discount
        self._extras = extras
        self._otherwise = otherwise
        self._of_formula: dict[str, ModelPrice] = {}
        self.prices = Remembered(self._find)
        self.totals = Remembered(self._total)

    def _find(self, name: str | None) -> ModelPrice:
        if name is not None:
            check_name(name, "model")
        formula = self._formula(name)
        price = self._of_formula.get(formula.path)
        if price is None:
            price = self._of_formula[formula.path] = self._price(formula)
        return price

    def _formula(self, name: str | None) -> Formula:
        found = resolve_rate(name, self._formulas, self._overrides)
        if found is None:
            raise UnpricedModelError(name)
        table, entry = found
        return table[entry]

    def _total(self, name: str | None) -> Total:
        # Without a model, whether one is needed at all depends on the usage.
        return self._otherwise if name is None else self.prices[name].total

    def _price(self, formula: Formula) -> ModelPrice:
        # The rebate is for formulas that charge every input token alike; the others price cached tokens themselves.
        discount = None if formula.reads & {*INPUT_PARTS, UNCACHED} else self._discount
        formulas = [formula] if discount is None else [formula, discount]
        total = compile_total(
            [each.tree for each in formulas],
            frozenset().union(*(each.reads for each in formulas)),
            formula.own_measures,
            self._extras,
            self._otherwise,
        )
        return ModelPrice(formula, discount, total)


class Remembered(dict[str | None, _Value]):
    """What `find` returned for the names that requests gave."""

    def __init__(self, find: Callable[[str | None], _Value]) -> None:
        self._find = find

    def __missing__(self, name: str | None) -> _Value:
        value = self._find(name)
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[name] = value
        return value
