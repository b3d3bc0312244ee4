"""The breakdown of a request as one Python function per model, for prices in whole micro-credits.

Under a document with

    models: {agent: "input_tokens * 0.0025 + output_tokens * 0.01"}
    tools: {web_search: "tool_calls * 10"}

the function of `agent` is, but for longer names of variables,

    def itemize(usage):
        if usage.fixed_job is not None or usage.search_queries or usage.search_results: return otherwise(usage)
        input = usage.input_tokens
        output = usage.output_tokens
        total = input * 2500 + output * 10000
        model_credits = from_micro(total)
        lines = [CostLine("model", usage.model, MODEL_PATH, MODEL_TEXT, model_credits)]
        cache_savings = tool_credits = search_credits = NO_CREDITS
        if usage.tool_calls:
            tools = itemize_tools(usage.tool_calls, lines)
            total += tools
            tool_credits = from_micro(tools)
        if not 0 <= total <= 9007199254740991: return otherwise(usage)
        return CostBreakdown(model_credits=model_credits, ..., lines=tuple(lines), flags=usage_flags(usage))

Where every part is a whole number there is nothing to round. All else, and a total below 0 or too large, goes to
`otherwise`.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.money import MAX_MICRO, MICRO, from_micro
from ducto_redis.pricing.breakdown import NO_CREDITS, CostBreakdown, CostLine
from ducto_redis.pricing.compiling import UNIT, function_of, read_measures
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.linear_forms import CannotLowerError, integer
from ducto_redis.pricing.lowering import Lowering
from ducto_redis.pricing.measures import TOOL_CALLS
from ducto_redis.pricing.resolution import DEFAULT
from ducto_redis.pricing.totals import BesidesModels
from ducto_redis.pricing.usage import usage_flags

Itemize: TypeAlias = Callable[[UsageMetrics], CostBreakdown]
"""Takes a checked usage with a model, returns its breakdown."""


def compile_breakdown(model: Formula, discount: Formula | None, besides: BesidesModels, otherwise: Itemize) -> Itemize:
    """Return a function that prices a checked usage part by part.

    It raises KeyError and ZeroDivisionError for what takes more care.

    Args:
        model: the model's formula.
        discount: that of the cache section, where it applies.
        besides: the document's other prices.
        otherwise: makes the breakdowns that the function does not.
    """
    own_measures = model.own_measures
    formulas = {"MODEL": model, "CACHE": discount, "SEARCH": besides.search}
    given = {name: formula for name, formula in formulas.items() if formula is not None}
    lowering = Lowering(own_measures, UNIT)
    try:
        forms = {name: lowering.form(formula.tree).scaled(Fraction(MICRO)) for name, formula in given.items()}
        if besides.tool_units > 1 or any(form.denominator() > 1 for form in forms.values()):
            return otherwise
        reads = frozenset[str]().union(*(formula.reads for formula in given.values()))
        itemize: Itemize = function_of(
            "itemize(usage)",
            [
                f"if {' or '.join(_guards(reads, besides))}: return otherwise(usage)",
                *read_measures(reads, own_measures, tool_calls="0"),
                "total = MODEL",
                "model_credits = from_micro(total)",
                'lines = [CostLine("model", usage.model, MODEL_PATH, MODEL_TEXT, model_credits)]',
                "cache_savings = tool_credits = search_credits = NO_CREDITS",
                *(_CACHE if discount is not None else ()),
                *(_TOOLS if besides.tools is not None and TOOL_CALLS not in reads else ()),
                *(_search(besides.searched) if besides.search is not None else ()),
                f"if not 0 <= total <= {MAX_MICRO}: return otherwise(usage)",
                *_RESULT,
            ],
            {name: integer(form, Fraction(1)) for name, form in forms.items()},
            own_measures,
            otherwise=otherwise,
            from_micro=from_micro,
            tuple=tuple,
            usage_flags=usage_flags,
            itemize_tools=_tools(besides),
            CostLine=CostLine,
            CostBreakdown=CostBreakdown,
            NO_CREDITS=NO_CREDITS,
            **{f"{name}_PATH": formula.path for name, formula in given.items()},
            **{f"{name}_TEXT": formula.text for name, formula in given.items()},
        )
    except (CannotLowerError, RecursionError):
        return otherwise
    return itemize


_CACHE = (
    "cache = CACHE",
    "if cache:",
    "    total += cache",
    "    cache_savings = from_micro(cache)",
    '    lines.append(CostLine("cache", usage.model, CACHE_PATH, CACHE_TEXT, cache_savings))',
)
_TOOLS = (
    "if usage.tool_calls:",
    "    tools = itemize_tools(usage.tool_calls, lines)",
    "    total += tools",
    "    tool_credits = from_micro(tools)",
)
_RESULT = (
    "return CostBreakdown(",
    "    model_credits=model_credits,",
    "    tool_credits=tool_credits,",
    "    search_credits=search_credits,",
    "    cache_savings=cache_savings,",
    "    total=from_micro(total),",
    "    lines=tuple(lines),",
    "    flags=usage_flags(usage),",
    ")",
)


def _search(searched: Sequence[str]) -> tuple[str, ...]:
    return (
        f"if {' or '.join(f'usage.{field}' for field in searched)}:",
        "    search = SEARCH",
        "    total += search",
        "    search_credits = from_micro(search)",
        '    lines.append(CostLine("search", "search", SEARCH_PATH, SEARCH_TEXT, search_credits))',
    )


def _guards(reads: frozenset[str], besides: BesidesModels) -> list[str]:
    guards = ["usage.fixed_job is not None"]
    if besides.search is None:
        guards += ["usage.search_queries", "usage.search_results"]
    if besides.tools is None or TOOL_CALLS in reads:
        guards.append("usage.tool_calls")
    return guards


def _tools(besides: BesidesModels) -> Callable[[Sequence[ToolCall], list[CostLine]], int]:
    rates, tools = besides.tool_rates, besides.tool_formulas

    def itemize_tools(calls: Sequence[ToolCall], lines: list[CostLine]) -> int:
        """Add a line for each entry that prices some of `calls`; return what they cost together."""
        counts: dict[str, int] = {}
        for call in calls:
            name = call.name if call.name in tools else DEFAULT
            counts[name] = counts.get(name, 0) + call.count
        total = 0
        for name, count in counts.items():
            micro = count * rates[name]
            total += micro
            formula = tools[name]
            lines.append(CostLine("tool", name, formula.path, formula.text, from_micro(micro)))
        return total

    return itemize_tools
