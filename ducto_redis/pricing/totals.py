"""The price of a whole request as one Python function per model, for the hot path.

Under a document with

    models: {agent: "input_tokens * 0.0025 + output_tokens * 0.01"}
    cache: {discount: "-cache_read_tokens * 0.00125"}
    tools: {web_search: "tool_calls * 10"}
    search: {costs: "search_queries * 0.0000005"}
    fixed: {report: 2}

the function of `agent` is, but for longer names of variables,

    def total(usage):
        if usage.measures: return otherwise(usage)
        input = usage.input_tokens
        output = usage.output_tokens
        cached = usage.cache_read_tokens
        if not (TYPE(input) is INT and input >= 0 and input <= 1073741823 and ...): return otherwise(usage)
        price = input * 10000 + output * 40000 + cached * -5000 + 2
        if usage.tool_calls: price += charge_tools(usage.tool_calls) * 4
        if usage.search_queries or usage.search_results or usage.web_search_calls:
            queries = usage.search_queries
            if not (TYPE(queries) is INT and ...): return otherwise(usage)
            price += queries * 2
        if usage.fixed_job is not None: price += FIXED[usage.fixed_job] * 4
        price //= 4
        if price >= 0 and price <= 1073741823: return price
        if 0 <= price <= 9007199254740991: return price
        return otherwise(usage)

Prices are counted in the largest fraction of a micro-credit that makes every part a whole number, here a half. Where it
is less than 1, all is counted twice, and half a micro-credit is added, so that the one division rounds half up.

Whatever is wrong or unusual goes to `otherwise`, which prices with care and raises the errors. Comparisons with numbers
below 2**30 are the ones that Python makes quickly, therefore the limits.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import TypeAlias

from msgspec import Struct

from ducto_redis.errors import InvalidIdError
from ducto_redis.metrics import MAX_COUNT, ToolCall, UsageMetrics
from ducto_redis.money import MAX_MICRO, MICRO
from ducto_redis.pricing.bounded_memo import Remembered
from ducto_redis.pricing.compiling import UNIT, function_of, read_measures
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.linear_forms import CannotLowerError, Form, add, integer
from ducto_redis.pricing.lowering import Lowering, variable
from ducto_redis.pricing.measures import COUNTS, INPUT_PARTS, TOOL_CALLS, UNCACHED
from ducto_redis.pricing.resolution import DEFAULT
from ducto_redis.pricing.usage import check_name

Total: TypeAlias = Callable[[UsageMetrics], int]
"""Takes a usage, returns micro-credits."""

ToolCharge: TypeAlias = Callable[[Sequence[ToolCall]], int]
"""Takes calls of tools, returns what they cost."""

_QUICK = 2**30 - 1


class BesidesModels(Struct, frozen=True):
    """The prices of a document beside its models.

    Attributes:
        search: the formula of searches, or None.
        searched: fields of a usage of which one must be given for the search formula to apply.
        fixed: micro-credits by job.
        tool_units: the units of `tools` in a micro-credit.
        tools: the price of calls together, by the tools whose formula is a rate for each call; raises KeyError for any
            other. None where no tool has such a rate.
    """

    search: Formula | None
    searched: tuple[str, ...]
    fixed: Mapping[str, int]
    tool_units: int
    tools: ToolCharge | None

    @classmethod
    def of(
        cls,
        *,
        tools: Mapping[str, Formula],
        search: Formula | None,
        searched: tuple[str, ...],
        fixed: Mapping[str, int],
    ) -> "BesidesModels":
        """Return what formulas of tools by name, the search formula and fixed prices come to."""
        exact = {name: rate for name, formula in tools.items() if (rate := _rate(formula)) is not None}
        units = lcm(*(rate.denominator for rate in exact.values()))
        rates = {name: int(rate * units) for name, rate in exact.items()}
        return cls(search, searched, fixed, units, _tool_charge(rates, tools) if rates else None)


def compile_total(formulas: Sequence[Formula], besides: BesidesModels, otherwise: Total) -> Total:
    """Return a function that sums formulas and what else a usage consumed, rounds once, half up, and checks the usage.

    It raises KeyError for what takes more care, and TypeError or AttributeError for some wrong usages.

    Args:
        formulas: the model's, and that of the cache section where it applies.
        besides: the document's other prices.
        otherwise: prices whatever the function does not: a usage outside of the limits, a total below 0 or too large,
            and everything where a formula cannot be lowered.
    """
    own_measures = formulas[0].own_measures
    reads = frozenset[str]().union(*(formula.reads for formula in formulas))
    lowering = Lowering(own_measures, UNIT)
    try:
        forms = [lowering.form(formula.tree) for formula in formulas]
        form = add(forms, [1] * len(forms)).scaled(Fraction(MICRO))
        search = _search_form(besides.search, lowering)
        counts = _counts(reads)
        may_be_below_zero = not (_is_zero_or_more(form) and (search is None or _is_zero_or_more(search)))
        limited = not may_be_below_zero and _limited_by_total(form, counts)
        units = lcm(form.denominator(), besides.tool_units, search.denominator() if search is not None else 1)
        if units > 1:
            # Below 0 this is not half up, but then the price is 0 all the same.
            form = add([form.scaled(Fraction(2 * units)), Form(Fraction(units))], [1, 1])
            units *= 2
        expressions = {"MODEL": integer(form, Fraction(1))}
        lines = [
            *_guards(reads, own_measures),
            *read_measures(reads, own_measures, counts, tool_calls="0"),
            *_checks(counts, limited=limited),
            f"price = {_sign(form)}MODEL",
            *_tools_lines(besides, units, reads),
        ]
        if besides.search is not None:
            inline = search is not None and _fits_in(besides.search.reads, reads, own_measures)
            if search is not None and inline:
                expressions["SEARCH"] = integer(search.scaled(Fraction(units)), Fraction(1))
            lines.append(f"if {' or '.join(f'usage.{field}' for field in besides.searched)}:")
            lines += _search_lines(besides.search.reads - reads, counts) if inline else ["    return otherwise(usage)"]
        lines += [
            f"if usage.fixed_job is not None: price += FIXED[usage.fixed_job]{_times(units)}",
            *([f"price //= {units}"] if units > 1 else []),
            f"if {'price >= 0 and ' if may_be_below_zero else ''}price <= {_QUICK}: return price",
            f"if 0 <= price <= {MAX_MICRO}: return price",
            "return otherwise(usage)",
        ]
        total: Total = function_of(
            "total(usage)",
            lines,
            expressions,
            own_measures,
            otherwise=otherwise,
            charge_tools=besides.tools,
            FIXED=besides.fixed,
        )
    except (CannotLowerError, RecursionError):
        return otherwise
    return total


def _search_form(search: Formula | None, lowering: Lowering) -> Form | None:
    if search is None:
        return None
    try:
        return lowering.form(search.tree).scaled(Fraction(MICRO))
    except (CannotLowerError, RecursionError):
        return None


def _fits_in(search_reads: frozenset[str], reads: frozenset[str], own_measures: frozenset[str]) -> bool:
    """Return whether a model's function can price searches too. It reads own measures and tools for the model alone."""
    return TOOL_CALLS not in search_reads and search_reads & own_measures <= reads


def _search_lines(more_reads: frozenset[str], counts: Sequence[str]) -> list[str]:
    more = [count for count in _counts(more_reads) if count not in counts]
    lines = [*read_measures(more_reads, frozenset(), more), *_checks(more, limited=False), "price += SEARCH"]
    return [f"    {line}" for line in lines]


def _guards(reads: frozenset[str], own_measures: frozenset[str]) -> list[str]:
    guards = ["not usage.measures.keys() <= OWN" if reads & own_measures else "usage.measures"]
    if TOOL_CALLS in reads:
        guards.append("usage.tool_calls")
    return [f"if {' or '.join(guards)}: return otherwise(usage)"]


def _counts(reads: frozenset[str]) -> list[str]:
    """Return the fields of a usage that formulas look at."""
    return [name for name in COUNTS if name in reads or (UNCACHED in reads and name in ("input_tokens", *INPUT_PARTS))]


def _checks(counts: Sequence[str], *, limited: bool) -> list[str]:
    checks = []
    for name in map(variable, counts):
        checks += [f"TYPE({name}) is INT", f"{name} >= 0"]
        if not limited:
            checks.append(f"{name} <= {_QUICK}")
    return [f"if not ({' and '.join(checks)}): return otherwise(usage)"] if checks else []


def _is_zero_or_more(form: Form) -> bool:
    """Return whether a value is never below 0, as far as can be seen: its measures never are."""
    return form.constant >= 0 and all(isinstance(key, str) and factor >= 0 for key, (_, factor) in form.terms.items())


def _limited_by_total(form: Form, counts: Sequence[str]) -> bool:
    """Return whether no count can pass its limit before the total, in micro-credits, passes the lower one it has."""
    return form.terms.keys() == set(counts) and all(factor >= 1 for _, factor in form.terms.values())


def _sign(form: Form) -> str:
    # What is no sum of measures may be a comparison alone, whose bool becomes an int so.
    return "" if all(isinstance(key, str) for key in form.terms) else "+"


def _tools_lines(besides: BesidesModels, units: int, reads: frozenset[str]) -> list[str]:
    if TOOL_CALLS in reads:
        return []
    if besides.tools is None:
        return ["if usage.tool_calls: return otherwise(usage)"]
    return [f"if usage.tool_calls: price += charge_tools(usage.tool_calls){_times(units // besides.tool_units)}"]


def _times(factor: int) -> str:
    return "" if factor == 1 else f" * {factor}"


def _rate(formula: Formula) -> Fraction | None:
    """Return micro-credits for one call of a tool; None where they depend on more, or are below 0."""
    try:
        form = Lowering(formula.own_measures, UNIT).form(formula.tree).scaled(Fraction(MICRO))
    except (CannotLowerError, RecursionError):
        return None
    if form.constant or not form.terms.keys() <= {TOOL_CALLS}:
        return None
    rate = form.terms[TOOL_CALLS][1] if form.terms else Fraction(0)
    return rate if rate >= 0 else None


def _tool_charge(rates: Mapping[str, int], tools: Mapping[str, Formula]) -> ToolCharge:
    def rate(name: str | None) -> int:
        try:
            check_name(name or "", "tool")
        except InvalidIdError:
            raise KeyError(name) from None
        return rates[name if name is not None and name in tools else DEFAULT]

    remembered = Remembered(rate)

    def charge(calls: Sequence[ToolCall]) -> int:
        units = 0
        for call in calls:
            count = call.count
            if type(count) is not int or not 0 <= count <= MAX_COUNT or not isinstance(call, ToolCall):
                raise KeyError(call)
            units += count * remembered[call.name]
        return units

    return charge
