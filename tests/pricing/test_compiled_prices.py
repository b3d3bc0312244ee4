"""Compiled prices are the careful ones, for any document and usage."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.errors import CreditError, InvalidIdError, InvalidUsageError, UnpricedModelError
from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.pricing import CostBreakdown, PricingEngine
from ducto_redis.pricing.breakdown import breakdown
from ducto_redis.pricing.exact import round_fraction
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.rational import evaluate
from ducto_redis.pricing.totals import BesidesModels, compile_total
from ducto_redis.pricing.usage import check_usage, usage_flags, value_of
from tests.searching import examples

_RATES = st.sampled_from(["0.0025", "0.01", "3", "(0.15 / 1000000)", "0.0000005", "1 / 3", "0", "(1 / 7 / 1000)"])
_MODEL_FORMULAS = st.one_of(
    st.builds("input_tokens * {} + output_tokens * {}".format, _RATES, _RATES),
    st.builds("uncached_input_tokens * {} + cache_read_tokens * {} + 0.5".format, _RATES, _RATES),
    st.builds("output_tokens * {} - input_tokens * {}".format, _RATES, _RATES),
    st.builds("tier(input_tokens, 1000, {}, 50000, output_tokens * {}, 9)".format, _RATES, _RATES),
    st.builds("percentile(90, input_tokens, output_tokens, 10) * {}".format, _RATES),
    st.builds("gpu_seconds * {} + input_tokens * 0.001".format, _RATES),
    st.builds("tool_calls * {} + 1".format, _RATES),
    st.builds("search_queries * {} + output_tokens".format, _RATES),
    st.builds("(input_tokens > 500) * 0.000001 + 0 * {}".format, _RATES),
    st.builds(
        'input_tokens * {} if service_tier == "priority" else output_tokens // (input_tokens - 7)'.format, _RATES
    ),
    st.just("input_tokens / output_tokens"),
)
_TOOL_FORMULAS = st.one_of(
    st.builds("tool_calls * {}".format, _RATES),
    st.builds("tool_calls * {} + 0.25".format, _RATES),
    st.just("-tool_calls"),
    st.just("tier(tool_calls, 3, 1, 2)"),
    st.builds("tool_calls * input_tokens * {}".format, _RATES),
)
_SEARCH_FORMULAS = st.one_of(
    st.builds("search_queries * {} + search_results * {}".format, _RATES, _RATES),
    st.builds("5 - uncached_input_tokens * {}".format, _RATES),
    st.builds("web_search_calls + tool_calls * {}".format, _RATES),
    st.builds("gpu_seconds * {}".format, _RATES),
    st.just("search_results / search_queries"),
    st.just("10 // search_queries"),
)
_CACHES = st.one_of(
    st.builds("-cache_read_tokens * {}".format, _RATES),
    st.just("-input_tokens / 2"),
    st.just("-reasoning_tokens * 0.001 // 1"),
)


@st.composite
def _documents(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = {
        "measures": ["gpu_seconds"],
        "models": {"m": draw(_MODEL_FORMULAS), **({"_default": "1"} if draw(st.booleans()) else {})},
        "tools": draw(st.dictionaries(st.sampled_from(["a", "b", "_default"]), _TOOL_FORMULAS)),
        "fixed": {"report": draw(st.sampled_from([2, 0.5]))},
        "plans": {"pro": {"rate_overrides": {"m": draw(_MODEL_FORMULAS)}}},
    }
    if draw(st.sampled_from([True, True, False])):
        document["search"] = {"costs": draw(_SEARCH_FORMULAS)}
    if draw(st.booleans()):
        document["cache"] = {"discount": draw(_CACHES)}
    return document


_FEW = st.integers(0, 20)


def _usages(
    counts: st.SearchStrategy[Any], models: list[str | None], tools: list[str], measures: list[dict[str, int | float]]
) -> st.SearchStrategy[UsageMetrics]:
    return st.builds(
        UsageMetrics,
        model=st.sampled_from(models),
        input_tokens=counts,
        output_tokens=counts,
        cache_read_tokens=_FEW,
        reasoning_tokens=_FEW,
        tool_calls=st.lists(st.builds(ToolCall, st.sampled_from(tools), st.integers(0, 9)), max_size=3),
        search_queries=_FEW,
        search_results=_FEW,
        web_search_calls=st.sampled_from([0, 2]),
        fixed_job=st.sampled_from([None, "report"]),
        service_tier=st.sampled_from([None, "priority"]),
        measures=st.sampled_from(measures),
    )


_RIGHT_USAGES = _usages(st.integers(0, 100_000), ["m", "m-latest"], ["a", "b", "_default"], [{}, {"gpu_seconds": 1.5}])
_ODD_USAGES = _usages(
    st.sampled_from([0, 7, 2**30 - 1, 2**30, 2**53, 2**53 + 1, -1, True, 1.0]),
    ["m", "other", None],
    ["a", "c", ""],
    [{}, {"gpu_seconds": 1}, {"gpu_seconds": -1}, {"pages": 1}],
)


def _outcome(price: Callable[[], object]) -> object:
    """What a way of pricing returns, or the error that it raises."""
    try:
        return price()
    except CreditError as error:
        return type(error), str(error)


def _careful(engine: PricingEngine, usage: UsageMetrics) -> CostBreakdown:
    """The breakdown without any function of a whole request."""
    check_usage(usage, frozenset({"gpu_seconds"}))
    parts, flags = engine._parts(usage)
    return breakdown(parts, usage_flags(usage) + flags)


@given(_documents(), _RIGHT_USAGES | _RIGHT_USAGES | _ODD_USAGES, st.sampled_from([None, "pro"]))
@examples(150, long=4000)
def test_compiled_prices_are_careful_ones(document: dict[str, Any], usage: UsageMetrics, plan: str | None) -> None:
    """For any document and usage the compiled total and breakdown, and their errors, are those of exact fractions."""
    engine = PricingEngine.from_dict(document)
    expected = _outcome(lambda: _careful(engine if plan is None else engine.for_plan(plan), usage))
    assert _outcome(lambda: engine.calculate(usage, plan)) == expected
    for _ in range(2):  # the first total of a model is priced with care, and the next by its function
        total = _outcome(lambda: engine.total_micro(usage, plan))
        if isinstance(expected, CostBreakdown):
            assert total == expected.total * 10**6
            assert total == max(round_fraction(engine.exact(usage, plan) * 10**6), 0)
            assert type(total) is int
            assert sum(line.credits for line in expected.lines) == expected.total
        elif isinstance(total, tuple):
            assert total == expected
        else:
            # Only what the price depends on is checked.
            assert isinstance(expected, tuple)
            assert issubclass(expected[0], InvalidUsageError)


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.sampled_from(["web_search", "x", "y"]), st.integers(0, 9)), max_size=4),
    _FEW,
)
@examples(50, long=1000)
def test_the_sum_of_exact_formulas(inputs: int, cached: int, calls: list[tuple[str, int]], queries: int) -> None:
    """The compiled total is the sum of every formula, each evaluated with fractions, rounded once, half up."""
    formulas = {
        "models": {"m": "input_tokens * 0.15 / 1000000"},
        "tools": {"web_search": "tool_calls / 3000", "_default": "tool_calls * 0.0000005"},
    }
    search, cache = "search_queries / 7000", "-cache_read_tokens * 0.00000007"
    engine = PricingEngine.from_dict({**formulas, "search": {"costs": search}, "cache": {"discount": cache}})
    usage = UsageMetrics(
        model="m",
        input_tokens=inputs,
        cache_read_tokens=cached,
        tool_calls=[ToolCall(*call) for call in calls],
        search_queries=queries,
    )

    def exact(text: str, count: int = 0) -> Fraction:
        formula = Formula(text, "models.m")
        return evaluate(formula.tree, {name: value_of(name, usage, count) for name in formula.reads}, "models.m")

    found = [count for name, count in calls if name == "web_search"]
    others = [count for name, count in calls if name != "web_search"]
    total = exact(formulas["models"]["m"]) + exact(cache) + (exact(search) if queries else 0)
    total += exact(formulas["tools"]["web_search"], sum(found)) + exact(formulas["tools"]["_default"], sum(others))
    for _ in range(2):
        assert engine.total_micro(usage) == max(round_fraction(total * 10**6), 0)


def _never(usage: UsageMetrics) -> Any:
    raise AssertionError(f"priced with care: {usage}")


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (UsageMetrics("m", 1000, 10), 2_600_000),
        (UsageMetrics("m", 1000, 10, cache_read_tokens=100), 2_475_000),
        (UsageMetrics("m", 1000, tool_calls=[ToolCall("web_search", 2), ToolCall("a"), ToolCall("b")]), 23_500_000),
        (UsageMetrics("m", 1000, search_queries=3, search_results=2), 4_100_000),
        (UsageMetrics("m", 1000, web_search_calls=1), 2_500_000),
    ],
)
def test_usual_requests_need_no_care(usage: UsageMetrics, micro: int) -> None:
    """A model with its rebate, tools and searches is priced by its compiled function alone."""
    model = Formula("input_tokens * 0.0025 + output_tokens * 0.01", "models.m")
    cache = Formula("-cache_read_tokens * 0.00125", "cache.discount")
    besides = BesidesModels.of(
        tools={
            "web_search": Formula("tool_calls * 10", "tools.web_search"),
            "_default": Formula("tool_calls * 0.5", "tools._default"),
        },
        search=Formula("search_queries * 0.5 + search_results * 0.05", "search.costs"),
        searched=("search_queries", "search_results", "web_search_calls"),
        fixed={"report": 5},
    )
    assert compile_total([model, cache], besides, _never)(usage) == micro


def test_a_fixed_job_beside_a_model() -> None:
    """A fixed price is added to the compiled total, before it is rounded."""
    engine = PricingEngine.from_dict({"models": {"m": "input_tokens / 3"}, "fixed": {"report": 2.5}})
    for _ in range(2):
        assert engine.total_micro(UsageMetrics("m", 2, fixed_job="report")) == 3_166_667


@pytest.mark.parametrize("tool", ["a", "_default"])
def test_errors_of_tools_after_the_first_request(tool: str) -> None:
    """A tool without a price, a bad name and a bad count are refused also where the model's function is compiled."""
    engine = PricingEngine.from_dict({"models": {"m": "1"}, "tools": {tool: "tool_calls"}})
    for _ in range(2):
        assert engine.total_micro(UsageMetrics("m", tool_calls=[ToolCall("a", 2)])) == 3_000_000
    wrong: list[tuple[Any, type[Exception]]] = [
        (ToolCall(""), InvalidIdError),
        (ToolCall(["a"]), InvalidIdError),  # type: ignore[arg-type]
        (ToolCall("a", -1), InvalidUsageError),
        (ToolCall("a", True), InvalidUsageError),
        (SimpleNamespace(name="a", count=1), InvalidUsageError),
    ]
    if tool == "a":
        wrong.append((ToolCall("b"), UnpricedModelError))
    for call, error in wrong:
        with pytest.raises(error):
            engine.total_micro(UsageMetrics("m", tool_calls=[call]))


def test_what_may_be_below_zero_is_zero() -> None:
    """A calculation that comes out below 0 costs 0 also by the model's function."""
    engine = PricingEngine.from_dict({"models": {"m": "max(0 - input_tokens, 0 - 5)"}})
    for _ in range(2):
        assert engine.total_micro(UsageMetrics("m", 9)) == 0


def test_parts_of_micro_credits_in_a_breakdown() -> None:
    """Where only a tool costs fractions of micro-credits, its line is rounded with the total."""
    engine = PricingEngine.from_dict({"models": {"m": "input_tokens"}, "tools": {"a": "tool_calls / 3"}})
    cost = engine.calculate(UsageMetrics("m", 1, tool_calls=[ToolCall("a", 2)]))
    assert [line.credits for line in cost.lines] == [Decimal(1), Decimal("0.666667")]
    assert cost.total == Decimal("1.666667")


def test_a_comparison_is_an_amount() -> None:
    """A formula that is true costs 1, as an int and not as a bool."""
    engine = PricingEngine.from_dict({"models": {"m": "(input_tokens > 5) * 0.000001"}})
    for _ in range(2):
        assert repr(engine.total_micro(UsageMetrics("m", 6))) == "1"
    assert engine.calculate(UsageMetrics("m", 6)).total == Decimal("0.000001")


def test_a_negative_tool_cannot_hide_a_count_over_the_limit() -> None:
    """What lowers a total does not bring a count over 2**53 below the limit of totals."""
    engine = PricingEngine.from_dict({"models": {"m": "input_tokens * 0.000001"}, "tools": {"a": "tool_calls * -1"}})
    assert engine.total_micro(UsageMetrics("m", 5)) == 5
    with pytest.raises(InvalidUsageError):
        engine.total_micro(UsageMetrics("m", 2**53 + 10, tool_calls=[ToolCall("a", 5)]))
