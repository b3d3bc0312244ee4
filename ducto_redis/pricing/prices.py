"""Prices of models by the names that requests give, compiled at first use."""

from collections.abc import Mapping

from msgspec import Struct

from ducto_redis.errors import UnpricedModelError
from ducto_redis.pricing.bounded_memo import MAX_REMEMBERED, Remembered
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.measures import INPUT_PARTS, UNCACHED
from ducto_redis.pricing.resolution import resolve_rate
from ducto_redis.pricing.totals import BesidesModels, Total, compile_total
from ducto_redis.pricing.usage import check_name


class ModelPrice(Struct, frozen=True):
    """The compiled price of a model.

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

    By the name that a request gives (None: it gives none), `prices` holds a ModelPrice. For names that are remembered,
    `totals` holds a function from usage to micro-credits.
    Looking up and remembering a name raise UnpricedModelError where there is no price, and InvalidIdError for a name
    that no model can have.
    """

    def __init__(
        self,
        formulas: Mapping[str, Formula],
        overrides: Mapping[str, Formula],
        *,
        discount: Formula | None,
        besides: BesidesModels,
        otherwise: Total,
    ) -> None:
        """Prepare prices.

        Args:
            formulas: by entry of the document.
            overrides: a plan's, by entry; where one names the model, it wins.
            discount: of the cache section.
            besides: the document's other prices.
            otherwise: prices with care what is unusual, or wrong.
        """
        self._formulas = formulas
        self._overrides = overrides
        self._discount = discount
        self._besides = besides
        self._otherwise = otherwise
        self._of_formula: dict[str, ModelPrice] = {}
        self.prices = Remembered(self._find)
        # A plain dict, which Python reads faster than one of a class of ours; `remember` fills it.
        self.totals: dict[str | None, Total] = {}

    def remember(self, name: str | None) -> None:
        """Put the function that prices the model of this name among `totals`."""
        if name not in self.totals:
            # Without a model, whether one is needed at all depends on the usage.
            total = self._otherwise if name is None else self.prices[name].total
            if len(self.totals) >= MAX_REMEMBERED:
                self.totals.clear()
            self.totals[name] = total

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
            raise UnpricedModelError(name, priced={**self._formulas, **self._overrides})
        table, entry = found
        return table[entry]

    def _price(self, formula: Formula) -> ModelPrice:
        # The rebate is for formulas that charge every input token alike; the others price cached tokens themselves.
        discount = None if formula.reads & {*INPUT_PARTS, UNCACHED} else self._discount
        formulas = [formula] if discount is None else [formula, discount]
        total = compile_total(formulas, self._besides, self._otherwise)
        return ModelPrice(formula, discount, total)
