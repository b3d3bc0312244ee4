"""The pricing engine: from a usage to its price."""

from collections.abc import Iterable, Mapping
from copy import copy
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Self

from ducto_redis.display import format_credits
from ducto_redis.errors import PlanNotFoundError, UnpricedModelError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import MICRO, from_micro, to_micro
from ducto_redis.pricing.bounded_memo import Remembered
from ducto_redis.pricing.breakdown import (
    SEARCH_NOT_PRICED,
    CostBreakdown,
    Part,
    PricedPart,
    breakdown,
    check_limit,
    rounded_total,
)
from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.measures import REQUESTS, SEARCHES, TEXTS, TOKENS, TOOL_CALLS, UNCACHED, WORK
from ducto_redis.pricing.plans import Plan
from ducto_redis.pricing.prices import ModelPrice, ModelPrices
from ducto_redis.pricing.reading import join
from ducto_redis.pricing.resolution import DEFAULT
from ducto_redis.pricing.totals import BesidesModels
from ducto_redis.pricing.usage import check_name, check_usage, tool_call_count, usage_flags

_NO_PLAN = ""

# Without a model, these still ask for a model's price.
_need_model = attrgetter(*TOKENS, *WORK)
_searches = attrgetter(*SEARCHES)


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
        self._searches = attrgetter(*(self._searched or SEARCHES))
        self._fixed = {job: to_micro(credits, zero=True) for job, credits in document.fixed.items()}
        self._besides = BesidesModels.of(
            tools=self._tools, search=self._search, searched=self._searched, fixed=self._fixed
        )
        self._fixed_parts: dict[str, PricedPart] = {
            job: ("fixed", job, join("fixed", job), format_credits(document.fixed[job]), micro, 1)
            for job, micro in self._fixed.items()
        }
        discount = document.cache_discount
        self._discount = Formula(discount, "cache.discount", own) if discount is not None else None
        self._formulas = {name: Formula(text, join("models", name), own) for name, text in document.models.items()}
        self._cap_models = Remembered(self._find_cap_model)
        self.min_balance_micro = to_micro(document.min_balance, zero=True)
        self.signup_bonus_micro = to_micro(document.signup_bonus, zero=True)
        self.default_plan = document.default_plan
        self._set_rates({})
        # The engines of all plans share this table: whichever is asked, plans are the document's.
        self._of_plan: dict[str, PricingEngine] = {_NO_PLAN: self}
        for plan_id, plan in document.plans.items():
            self._of_plan[plan_id] = self._with_rates(plan_id, plan.rate_overrides) if plan.rate_overrides else self

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
            plan: the id of the plan whose rates apply; None for the rates of this engine.

        Raises:
            UnpricedModelError: where the document has no price for the model, tool or job.
            InvalidUsageError, InvalidIdError: for a usage that is wrong.
            ExpressionError: for a division by zero, with path and position.
            InvalidAmountError: for a total over the largest amount.
            PlanNotFoundError: for a plan that the document does not have.
        """
        if plan is not None:
            return self.for_plan(plan).calculate(usage)
        check_usage(usage, self._own_measures)
        parts, flags = self._parts(usage)
        return breakdown(parts, usage_flags(usage) + flags)

    def total(self, usage: UsageMetrics, plan: str | None = None) -> Decimal:
        """Return what `usage` costs, in credits. Arguments and errors are those of `calculate`."""
        if plan is not None:
            return self.for_plan(plan).total(usage)
        return from_micro(self._checked_total(usage))

    def exact(self, usage: UsageMetrics, plan: str | None = None) -> Fraction:
        """Return what `usage` costs before it is rounded, in credits; it may be below 0.

        Arguments and errors are those of `calculate`.
        """
        if plan is not None:
            return self.for_plan(plan).exact(usage)
        check_usage(usage, self._own_measures)
        parts, _ = self._parts(usage)
        return sum((Fraction(numerator, denominator * MICRO) for *_, numerator, denominator in parts), Fraction(0))

    def total_micro(self, usage: UsageMetrics, plan: str | None = None) -> int:
        """Return what `usage` costs, in micro-credits: the total of `calculate`, as fast as it can be had.

        Only the fields that have to do with the price are checked. Arguments and errors are those of `calculate`.
        """
        try:
            if plan is None:
                return self._totals[usage.model](usage)
            return self._of_plan[plan]._totals[usage.model](usage)
        except (ZeroDivisionError, TypeError, AttributeError, KeyError):
            # A model not seen before, a usage or plan that is wrong, or a failing formula: the careful way knows.
            return (self if plan is None else self.for_plan(plan))._first_total(usage)

    def total_micro_of(self, usages: Iterable[UsageMetrics], plan: str | None = None) -> int:
        """Return what several usages cost together, in micro-credits: the sum of their totals."""
        return check_limit(sum(self.total_micro(usage, plan) for usage in usages))

    def fixed_micro(self, job: str) -> int:
        """Return the fixed price of a job, in micro-credits.

        Raises:
            UnpricedModelError: where the document has no price for the job.
        """
        try:
            return self._fixed[job]
        except KeyError:
            raise UnpricedModelError(job, what="fixed job", priced=self._fixed) from None

    def for_plan(self, plan: str) -> "PricingEngine":
        """Return the engine that prices by a plan's rates: this document's, with the plan's overrides.

        An override that names a model, exactly, by a dated version or by a wildcard, wins over the document's entry for
        it. Engines of plans are made with the document's, so that asking for one costs nothing.

        Args:
            plan: its id; empty for the document's own rates.

        Raises:
            PlanNotFoundError: for a plan that the document does not have.

        >>> engine = PricingEngine.from_dict(
        ...     {"models": {"m": "output_tokens"}, "plans": {"pro": {"rate_overrides": {"m": "output_tokens * 0.5"}}}}
        ... )
        >>> engine.for_plan("pro").total(UsageMetrics(model="m", output_tokens=10))
        Decimal('5.000000')
        """
        try:
            return self._of_plan[plan]
        except (KeyError, TypeError):
            raise PlanNotFoundError(plan, sorted(self.document.plans)) from None

    def plan(self, plan_id: str) -> Plan:
        """Return a plan of the document.

        Raises:
            PlanNotFoundError: where it has none of this id.
        """
        try:
            return self.document.plans[plan_id]
        except (KeyError, TypeError):
            raise PlanNotFoundError(plan_id, sorted(self.document.plans)) from None

    def cap_model(self, model: str | None) -> str:
        """Return the name under which spend caps count the usage of a model.

        That is the document's entry for the model, also for a dated, `-latest` or `@version` name of it; the model's
        own name where only a wildcard or `_default` prices it. It is the same for every plan, so that a change of plan
        leaves caps alone. Empty for None.

        >>> PricingEngine.from_dict({"models": {"gpt-4o": 1, "_default": 1}}).cap_model("gpt-4o-2024-08-06")
        'gpt-4o'
        """
        return self._cap_models[model]

    def _find_cap_model(self, model: str | None) -> str:
        if model is None:
            return ""
        check_name(model, "model")
        return self.document.cap_model(model)

    def _with_rates(self, plan_id: str, overrides: Mapping[str, str]) -> "PricingEngine":
        engine = copy(self)
        path = join(join("plans", plan_id), "rate_overrides")
        engine._set_rates(
            {name: Formula(text, join(path, name), self._own_measures) for name, text in overrides.items()}
        )
        return engine

    def _set_rates(self, overrides: Mapping[str, Formula]) -> None:
        prices = ModelPrices(
            self._formulas,
            overrides,
            discount=self._discount,
            besides=self._besides,
            otherwise=self._checked_total,
        )
        self._model_prices, self._prices, self._totals = prices, prices.prices, prices.totals

    def _first_total(self, usage: UsageMetrics) -> int:
        """Return the total, and have the next one of this model from the model's own function."""
        total = self._checked_total(usage)
        self._model_prices.remember(usage.model)
        return total

    def _checked_total(self, usage: UsageMetrics) -> int:
        """Return the total of any usage, checked, part by part."""
        check_usage(usage, self._own_measures)
        parts, _ = self._parts(usage)
        return check_limit(max(rounded_total(parts), 0))

    def _parts(self, usage: UsageMetrics) -> tuple[list[PricedPart], tuple[str, ...]]:
        """Return every priced part of a checked usage, and flags."""
        parts: list[PricedPart] = []
        flags: tuple[str, ...] = ()
        model = self._prices[usage.model] if usage.model is not None or self._needs_model(usage) else None
        calls = tool_call_count(usage) if usage.tool_calls else 0
        if model is not None:
            parts.append(_part("model", usage.model or DEFAULT, model.formula, usage, calls))
            if model.discount is not None:
                rebate = _part("cache", usage.model or DEFAULT, model.discount, usage, calls)
                if rebate[4]:
                    parts.append(rebate)
        if usage.tool_calls:
            parts += self._tool_parts(usage, model)
        if self._search is not None:
            if any(self._searches(usage)):
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
        tools = self._tools
        counts: dict[str, int] = {}
        for call in usage.tool_calls:
            name = call.name
            if name not in tools:
                name = DEFAULT
                if DEFAULT not in tools:
                    if model is not None and TOOL_CALLS in model.formula.reads:
                        continue  # The model's own formula charges for it.
                    raise UnpricedModelError(call.name, what="tool", priced=tools)
            counts[name] = counts.get(name, 0) + call.count
        return [_part("tool", name, tools[name], usage, count) for name, count in counts.items()]

    def _needs_model(self, usage: UsageMetrics) -> bool:
        if usage.measures:
            return True
        if any(_need_model(usage)):
            return True
        return not (usage.tool_calls or usage.fixed_job is not None or any(_searches(usage)))


def _part(part: Part, name: str, formula: Formula, usage: UsageMetrics, tool_calls: int) -> PricedPart:
    numerator, denominator = formula.exact(usage, tool_calls)
    return part, name, formula.path, formula.text, numerator, denominator


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
