"""The pricing engine: from a usage to its price."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Self

from ducto_redis.display import format_credits
from ducto_redis.errors import ConfigError, InvalidAmountError, UnpricedModelError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import MAX_MICRO, from_micro, to_micro
from ducto_redis.pricing.breakdown import SEARCH_NOT_PRICED, CostBreakdown, Part, PricedPart, breakdown, rounded_total
from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.measures import REQUESTS, SEARCHES, TEXTS, TOKENS, TOOL_CALLS, UNCACHED
from ducto_redis.pricing.prices import ModelPrice, ModelPrices
from ducto_redis.pricing.reading import join
from ducto_redis.pricing.resolution import DEFAULT
from ducto_redis.pricing.suggestions import did_you_mean
from ducto_redis.pricing.usage import check_usage, tool_call_count, usage_flags

# Without a model, these still ask for a model's price.
_NEED_MODEL = (*TOKENS, "code_exec_calls")


class PricingEngine:
    """Prices usage by one pricing document. It never changes, and may be shared by threads.

    >>> from ducto_redis.metrics import UsageMetrics
    >>> engine = PricingEngine.from_dict({"models": {"gpt-4o": "input_tokens * 0.0025 + output_tokens * 0.01"}})
    >>> engine.total(UsageMetrics(model="gpt-4o", input_tokens=1000, output_tokens=50))
    Decimal('3.000000')
    """

    def __init__(self, document: PricingDocument) -> None:
        self.document = document
        own = self._own_measures = frozenset(document.measures)
        self._tools = {name: Formula(text, join("tools", name), own) for name, text in document.tools.items()}
        self._search = Formula(document.search, "search.costs", own) if document.search is not None else None
        self._searched = _search_fields(self._search, own)
        self._fixed = {job: to_micro(credits, zero=True) for job, credits in document.fixed.items()}
        self._fixed_parts = {
            job: PricedPart("fixed", job, join("fixed", job), format_credits(document.fixed[job]), micro, 1)
            for job, micro in self._fixed.items()
        }
        discount = document.cache_discount
        self._base = ModelPrices(
            {name: Formula(text, join("models", name), own) for name, text in document.models.items()},
            discount=Formula(discount, "cache.discount", own) if discount is not None else None,
            extras=self._searched,
            otherwise=lambda usage: self._checked_total(usage, self._base),
        )
        self._totals = self._base.totals
        self._of_plan = {
            plan_id: self._plan_prices(plan_id, plan.rate_overrides) if plan.rate_overrides else self._base
            for plan_id, plan in document.plans.items()
        }
        self.min_balance_micro = to_micro(document.min_balance, zero=True)
        self.signup_bonus_micro = to_micro(document.signup_bonus, zero=True)

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> Self:
        """Return the engine of a document given as plain Python values.

        Raises:
            ConfigError: for a document that is wrong, with the path of the mistake.
            ExpressionError: for a formula that is wrong, with path and position.
        """
        return cls(PricingDocument.from_dict(document))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the engine of a document given as JSON. Raises as `from_dict`."""
        return cls(PricingDocument.from_json(text))

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Self:
        """Return the engine of a document given as YAML 1.2 (needs the extra `yaml`). Raises as `from_dict`."""
        return cls(PricingDocument.from_yaml(text))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Return the engine of a document in a .json, .yaml or .yml file. Raises as `from_dict`."""
        return cls(PricingDocument.from_file(path))

    def calculate(self, usage: UsageMetrics, plan: str | None = None) -> CostBreakdown:
        """Return what `usage` costs, part by part.

        Args:
            usage: what was consumed.
            plan: the id of the plan whose rates apply.

        Raises:
            UnpricedModelError: where the document has no price for the model, tool or job.
            InvalidUsageError, InvalidIdError: for a usage that is wrong.
            ExpressionError: for a division by zero, with path and position.
            InvalidAmountError: for a total over the largest amount.
            ConfigError: for a plan that the document does not have.
        """
        prices = self._prices(plan)
        check_usage(usage, self._own_measures)
        parts, flags = self._parts(usage, prices)
        total = _limited(rounded_total(parts))
        return breakdown(parts, total, (*usage_flags(usage), *flags))

    def total(self, usage: UsageMetrics, plan: str | None = None) -> Decimal:
        """Return what `usage` costs, in credits. Arguments and errors are those of `calculate`."""
        prices = self._prices(plan)
        check_usage(usage, self._own_measures)
        return from_micro(self._total_micro(usage, prices))

    def total_micro(self, usage: UsageMetrics, plan: str | None = None) -> int:
        """Return what `usage` costs, in micro-credits: the total of `calculate`, as fast as it can be had.

        Only the fields that have to do with the price are checked. Arguments and errors are those of `calculate`.
        """
        try:
            if plan is None:
                return self._totals[usage.model](usage)
            return self._of_plan[plan].totals[usage.model](usage)
        except (ZeroDivisionError, TypeError, AttributeError, KeyError):
            # A usage or plan that is wrong, or a failing formula: the careful way says what it is.
            return self._checked_total(usage, self._prices(plan))

    def total_micro_of(self, usages: Iterable[UsageMetrics], plan: str | None = None) -> int:
        """Return what several usages cost together, in micro-credits: the sum of their totals."""
        return _limited(sum(self.total_micro(usage, plan) for usage in usages))

    def fixed_micro(self, job: str) -> int:
        """Return the fixed price of a job, in micro-credits.

        Raises:
            UnpricedModelError: where the document has no price for the job.
        """
        try:
            return self._fixed[job]
        except KeyError:
            raise UnpricedModelError(job, what="fixed job") from None

    def _plan_prices(self, plan_id: str, overrides: Mapping[str, str]) -> ModelPrices:
        def otherwise(usage: UsageMetrics) -> int:
            return self._checked_total(usage, self._of_plan[plan_id])

        path = join(join("plans", plan_id), "rate_overrides")
        own = self._own_measures
        formulas = {name: Formula(text, join(path, name), own) for name, text in overrides.items()}
        return self._base.overridden(formulas, otherwise)

    def _prices(self, plan: str | None) -> ModelPrices:
        if plan is None:
            return self._base
        try:
            return self._of_plan[plan]
        except KeyError:
            hint = did_you_mean(plan, self._of_plan)
            raise ConfigError(f"the pricing document has no plan {plan!r:.200}{hint}") from None

    def _total_micro(self, usage: UsageMetrics, prices: ModelPrices) -> int:
        parts, _ = self._parts(usage, prices)
        return _limited(max(rounded_total(parts), 0))

    def _checked_total(self, usage: UsageMetrics, prices: ModelPrices) -> int:
        check_usage(usage, self._own_measures)
        return self._total_micro(usage, prices)

    def _parts(self, usage: UsageMetrics, prices: ModelPrices) -> tuple[list[PricedPart], tuple[str, ...]]:
        """Return every priced part of a checked usage, and flags."""
        parts: list[PricedPart] = []
        flags: tuple[str, ...] = ()
        model = prices.prices[usage.model] if self._needs_model(usage) else None
        calls = tool_call_count(usage) if usage.tool_calls else 0
        if model is not None:
            parts.append(_part("model", usage.model or DEFAULT, model.formula, usage, calls))
            if model.discount is not None:
                rebate = _part("cache", usage.model or DEFAULT, model.discount, usage, calls)
                if rebate.numerator:
                    parts.append(rebate)
        if usage.tool_calls:
            parts += self._tool_parts(usage, model)
        if self._search is not None:
            if any(getattr(usage, field) for field in self._searched):
                parts.append(_part("search", "search", self._search, usage, calls))
        elif usage.search_queries or usage.search_results:
            read = model.formula.reads if model is not None else frozenset()
            if (usage.search_queries and "search_queries" not in read) or (
                usage.search_results and "search_results" not in read
            ):
                flags = (SEARCH_NOT_PRICED,)
        if usage.fixed_job is not None:
            self.fixed_micro(usage.fixed_job)
            parts.append(self._fixed_parts[usage.fixed_job])
        return parts, flags

    def _tool_parts(self, usage: UsageMetrics, model: ModelPrice | None) -> list[PricedPart]:
        counts: dict[str, int] = {}
        for call in usage.tool_calls:
            name = call.name if call.name in self._tools else DEFAULT
            if name == DEFAULT and DEFAULT not in self._tools:
                if model is not None and TOOL_CALLS in model.formula.reads:
                    continue  # The model's own formula charges for it.
                raise UnpricedModelError(call.name, what="tool")
            counts[name] = counts.get(name, 0) + call.count
        return [_part("tool", name, self._tools[name], usage, count) for name, count in counts.items()]

    def _needs_model(self, usage: UsageMetrics) -> bool:
        if usage.model is not None or usage.measures:
            return True
        if any(getattr(usage, field) for field in _NEED_MODEL):
            return True
        others = usage.tool_calls or usage.fixed_job is not None or any(getattr(usage, field) for field in SEARCHES)
        return not others


def _part(part: Part, name: str, formula: Formula, usage: UsageMetrics, tool_calls: int) -> PricedPart:
    numerator, denominator = formula.exact(usage, tool_calls)
    return PricedPart(part, name, formula.path, formula.text, numerator, denominator)


def _limited(micro: int) -> int:
    if micro > MAX_MICRO:
        raise InvalidAmountError(f"the price is over the largest amount, {from_micro(MAX_MICRO)} credits")
    return micro


def _search_fields(search: Formula | None, own_measures: frozenset[str]) -> tuple[str, ...]:
    """Return the fields of a usage of which one must be given for the search formula to apply."""
    if search is None:
        return ()
    fields = set(SEARCHES)
    for measure in search.reads - TEXTS - {REQUESTS}:
        if measure in own_measures:
            fields.add("measures")
        else:
            fields.add("input_tokens" if measure == UNCACHED else measure)
    return tuple(sorted(fields))
