"""The engine charges exactly, adds up, and never charges 0 by accident."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.errors import (
    ExpressionError,
    InvalidAmountError,
    InvalidIdError,
    InvalidUsageError,
    PlanNotFoundError,
    UnpricedModelError,
)
from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.pricing import CostBreakdown, PricingEngine
from ducto_redis.pricing.bounded_memo import MAX_REMEMBERED
from ducto_redis.pricing.breakdown import PricedPart, rounded_parts, rounded_total
from tests.searching import examples

DOCUMENT: dict[str, object] = {
    "measures": ["gpu_seconds"],
    "models": {
        "gpt-4o": "uncached_input_tokens * 0.0025 + cache_read_tokens * 0.00125 + output_tokens * 0.01",
        "plain": "input_tokens * 0.001 + output_tokens * 0.002",
        "ratio": "input_tokens / output_tokens",
        "render": "gpu_seconds * 0.4",
        "third": "input_tokens / 3",
        "flat": 0.5,
        "tools": "1 + tool_calls",
        "negative": "input_tokens - 100",
        "long": "input_tokens * 0.001 if input_tokens <= 1000 else input_tokens * 0.002",
        "floors": "input_tokens // output_tokens",
    },
    "tools": {"web_search": "tool_calls * 10", "_default": "tool_calls * 0.5"},
    "search": {"costs": "search_queries * 0.5 + search_results * 0.05"},
    "cache": {"discount": "-cache_read_tokens * 0.0005"},
    "fixed": {"daily_report": 10, "embed_batch": 2.5},
    "min_balance": 0.5,
    "signup_bonus": 50,
    "plans": {
        "free": {},
        "pro": {"rate_overrides": {"plain": "input_tokens * 0.0005", "plain-2024-08-06": "7"}},
    },
}
ENGINE = PricingEngine.from_dict(DOCUMENT)


def priced(usage: UsageMetrics, engine: PricingEngine = ENGINE, plan: str | None = None) -> CostBreakdown:
    """The breakdown, after checking that all ways to the total agree and that everything adds up."""
    cost = engine.calculate(usage, plan)
    assert engine.total(usage, plan) == cost.total
    for _ in range(2):  # the first of a model is priced with care, the next by the model's function
        assert engine.total_micro(usage, plan) == cost.total * 10**6
    assert sum(line.credits for line in cost.lines) == cost.total
    fields = [cost.model_credits, cost.tool_credits, cost.search_credits, cost.cache_savings, cost.fixed_credits]
    if "total_below_zero" not in cost.flags:
        assert sum(fields) == cost.total
    for amount in (*fields, cost.total, *(line.credits for line in cost.lines)):
        assert amount.as_tuple().exponent == -6
    return cost


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        (UsageMetrics(model="gpt-4o", input_tokens=1000, cache_read_tokens=400, output_tokens=10), "2.1"),
        (UsageMetrics(model="gpt-4o", input_tokens=1000, cache_read_tokens=1400), "1.75"),
        (UsageMetrics(model="plain", input_tokens=1, output_tokens=1), "0.003"),
        (UsageMetrics(model="plain-latest", input_tokens=1), "0.001"),
        (UsageMetrics(model="plain", input_tokens=100, cache_read_tokens=100), "0.05"),
        (UsageMetrics(model="ratio", input_tokens=2, output_tokens=3), "0.666667"),
        (UsageMetrics(model="third", input_tokens=1), "0.333333"),
        (UsageMetrics(model="third", input_tokens=2), "0.666667"),
        (UsageMetrics(model="render", measures={"gpu_seconds": 1.1}), "0.44"),
        (UsageMetrics(model="render", measures={"gpu_seconds": Decimal("0.000003")}), "0.000001"),
        (UsageMetrics(model="render"), "0"),
        (UsageMetrics(model="flat"), "0.5"),
        (UsageMetrics(model="long", input_tokens=1000), "1"),
        (UsageMetrics(model="long", input_tokens=1001), "2.002"),
        (
            UsageMetrics(tool_calls=[ToolCall("web_search"), ToolCall("a", 2), ToolCall("b"), ToolCall("web_search")]),
            "21.5",
        ),
        (UsageMetrics(model="tools", tool_calls=[ToolCall("web_search", 3)]), "34"),
        (UsageMetrics(search_queries=2, search_results=7), "1.35"),
        (UsageMetrics(fixed_job="embed_batch"), "2.5"),
        (UsageMetrics(model="plain", input_tokens=1000, fixed_job="daily_report", search_queries=1), "11.5"),
    ],
)
def test_total(usage: UsageMetrics, total: str) -> None:
    """Every part of a usage is priced by its own formula, exactly."""
    assert priced(usage).total == Decimal(total)


def test_exact_decimals() -> None:
    """What floats get wrong is right, and less than a thousandth of a credit is charged."""
    engine = PricingEngine.from_dict({"models": {"a": "0.1 * input_tokens + 0.2 * output_tokens", "b": "0.0004"}})
    assert priced(UsageMetrics(model="a", input_tokens=1, output_tokens=1), engine).total == Decimal("0.300000")
    assert priced(UsageMetrics(model="b"), engine).total == Decimal("0.000400")


def test_lines() -> None:
    """Each part is a line with its name, path and formula."""
    usage = UsageMetrics(
        model="plain-2024-08-06",
        input_tokens=1000,
        cache_read_tokens=100,
        tool_calls=[ToolCall("web_search"), ToolCall("x", 3)],
        search_queries=2,
        fixed_job="embed_batch",
    )
    cost = priced(usage)
    assert [(line.part, line.name, line.path, line.formula, line.credits) for line in cost.lines] == [
        ("model", "plain-2024-08-06", "models.plain", "input_tokens * 0.001 + output_tokens * 0.002", Decimal(1)),
        ("cache", "plain-2024-08-06", "cache.discount", "-cache_read_tokens * 0.0005", Decimal("-0.05")),
        ("tool", "web_search", "tools.web_search", "tool_calls * 10", Decimal(10)),
        ("tool", "_default", "tools._default", "tool_calls * 0.5", Decimal("1.5")),
        ("search", "search", "search.costs", "search_queries * 0.5 + search_results * 0.05", Decimal(1)),
        ("fixed", "embed_batch", "fixed.embed_batch", "2.5", Decimal("2.5")),
    ]
    assert cost.cache_savings == Decimal("-0.05")


def test_rounded_once() -> None:
    """Two parts that would each round up together do not: only the sum is rounded, and the lines follow it."""
    engine = PricingEngine.from_dict({"models": {"m": "input_tokens * 0.0000005"}, "tools": {"t": "0.0000005"}})
    cost = priced(UsageMetrics(model="m", input_tokens=1, tool_calls=[ToolCall("t")]), engine)
    assert cost.total == Decimal("0.000001")
    assert [line.credits for line in cost.lines] == [Decimal("0.000001"), Decimal("0.000000")]
    assert priced(UsageMetrics(model="m", input_tokens=1), engine).total == Decimal("0.000001")


def test_missing_millionths_go_where_most_was_lost() -> None:
    """What rounding down took away returns to the line that lost most."""
    parts: list[PricedPart] = [("model", "m", "", "", tenths, 10) for tenths in (12, 19, 10)]
    assert rounded_parts(parts, 4) == [1, 2, 1]


@given(
    st.lists(st.fractions(-1000, 1000, max_denominator=60), min_size=1, max_size=8),
)
@examples(100, long=2000)
def test_lines_add_up(values: list[Fraction]) -> None:
    """Rounded lines add up to the rounded total, and none is a micro-credit off its exact value."""
    parts: list[PricedPart] = [("model", "m", "", "", value.numerator, value.denominator) for value in values]
    total = rounded_total(parts)
    assert abs(total - sum(values)) <= Fraction(1, 2)
    rounded = rounded_parts(parts, total)
    assert sum(rounded) == total
    assert all(abs(micro - value) <= 1 for micro, value in zip(rounded, values, strict=True))


def test_below_zero() -> None:
    """A total below 0 becomes 0 and is flagged, and a line says what was waived."""
    cost = priced(UsageMetrics(model="negative", input_tokens=40))
    assert cost.total == 0
    assert cost.flags == ("total_below_zero",)
    assert [(line.part, line.credits) for line in cost.lines] == [("model", Decimal(-60)), ("floor", Decimal(60))]
    assert priced(UsageMetrics(model="negative", input_tokens=40, fixed_job="daily_report")).total == 0


def test_rebates_only_for_formulas_that_charge_all_input_alike() -> None:
    """A formula that prices cached tokens itself gets no rebate for them."""
    cost = priced(UsageMetrics(model="gpt-4o", input_tokens=100, cache_read_tokens=100))
    assert cost.cache_savings == 0
    assert [line.part for line in cost.lines] == ["model"]
    for formula in ("input_tokens + 0 * cache_write_tokens", "input_tokens - cache_read_tokens / 2"):
        engine = PricingEngine.from_dict({"models": {"m": formula}, "cache": {"discount": "-cache_read_tokens"}})
        assert priced(UsageMetrics(model="m", input_tokens=9, cache_read_tokens=2), engine).cache_savings == 0


def test_flags() -> None:
    """Sums that do not hold are flagged and not corrected."""
    cost = priced(UsageMetrics(model="plain", input_tokens=1, cache_read_tokens=2, reasoning_tokens=1))
    assert cost.flags == ("input_parts_exceed_total", "output_parts_exceed_total")


def test_search_applies_to_searches() -> None:
    """The search formula's flat part is charged per search request only."""
    engine = PricingEngine.from_dict({"models": {"m": "1"}, "search": {"costs": "5 + input_tokens * 0"}})
    assert priced(UsageMetrics(model="m"), engine).total == 1
    assert priced(UsageMetrics(model="m", web_search_calls=1), engine).total == 6


def test_unpriced_search_is_flagged() -> None:
    """Searches that nothing prices are flagged."""
    engine = PricingEngine.from_dict({"models": {"m": "1", "s": "search_queries"}})
    assert priced(UsageMetrics(model="m", search_queries=1), engine).flags == ("search_not_priced",)
    assert priced(UsageMetrics(model="s", search_queries=1), engine).flags == ()


@pytest.mark.parametrize(
    ("usage", "what"),
    [
        (UsageMetrics(model="unknown"), "model 'unknown'"),
        (UsageMetrics(model="plain-mini"), "model 'plain-mini'"),
        (UsageMetrics(), "a request without a model"),
        (UsageMetrics(input_tokens=1), "a request without a model"),
        (UsageMetrics(input_tokens=1, fixed_job="daily_report"), "a request without a model"),
        (UsageMetrics(measures={"gpu_seconds": 1}), "a request without a model"),
        (UsageMetrics(fixed_job="daily"), "fixed job 'daily'"),
    ],
)
def test_unpriced(usage: UsageMetrics, what: str) -> None:
    """What has no price is refused, never free."""
    for price in (ENGINE.calculate, ENGINE.total, ENGINE.total_micro):
        with pytest.raises(UnpricedModelError, match=what):
            price(usage)


def test_unpriced_tools() -> None:
    """A tool without a price is refused, unless the model's own formula counts tool calls."""
    engine = PricingEngine.from_dict({"models": {"m": "1", "t": "tool_calls * 2"}, "tools": {"a": "tool_calls"}})
    with pytest.raises(UnpricedModelError, match="tool 'b'"):
        engine.calculate(UsageMetrics(model="m", tool_calls=[ToolCall("b")]))
    assert priced(UsageMetrics(model="t", tool_calls=[ToolCall("b", 3)]), engine).total == 6


def test_default_prices_requests_without_a_model() -> None:
    """With a default, tokens without a model are priced by it."""
    engine = PricingEngine.from_dict({"models": {"_default": "1 + input_tokens"}, "fixed": {"job": 5}})
    assert priced(UsageMetrics(input_tokens=2), engine).total == 3
    assert priced(UsageMetrics(fixed_job="job"), engine).total == 5
    assert priced(UsageMetrics(fixed_job="job", input_tokens=2), engine).total == 8


def test_plans() -> None:
    """A plan's rate replaces the entry of that name, and only for that plan."""
    usage = UsageMetrics(model="plain", input_tokens=1000)
    assert priced(usage, plan="pro").total == Decimal("0.5")
    assert priced(usage, plan="pro").lines[0].path == "plans.pro.rate_overrides.plain"
    assert priced(usage, plan="free").total == 1
    assert priced(UsageMetrics(model="plain-latest", input_tokens=1000), plan="pro").total == Decimal("0.5")
    assert priced(UsageMetrics(model="plain-2024-08-06"), plan="pro").total == 7
    assert priced(UsageMetrics(model="negative", input_tokens=1), plan="pro").total == 0
    for price in (ENGINE.calculate, ENGINE.total, ENGINE.total_micro):
        with pytest.raises(PlanNotFoundError, match="no plan 'prof'; it has 'free', 'pro'"):
            price(usage, "prof")


@pytest.mark.parametrize(
    ("usage", "error"),
    [
        (UsageMetrics(model="plain", input_tokens=-1), InvalidUsageError),
        (UsageMetrics(model="plain", output_tokens=-1), InvalidUsageError),
        (UsageMetrics(model="plain", input_tokens=5000, output_tokens=-1), InvalidUsageError),
        (UsageMetrics(model="long", input_tokens=2**53 + 1), InvalidUsageError),
        (UsageMetrics(model="plain", input_tokens=2**53 + 1), InvalidUsageError),
        (UsageMetrics(model="plain", input_tokens=1.0), InvalidUsageError),  # type: ignore[arg-type]
        (UsageMetrics(model="plain", input_tokens=True), InvalidUsageError),
        (UsageMetrics(model="plain", input_tokens=Decimal(1)), InvalidUsageError),  # type: ignore[arg-type]
        (UsageMetrics(model="plain", input_tokens="1"), InvalidUsageError),  # type: ignore[arg-type]
        (UsageMetrics(model="plain", measures={"gpu": 1}), InvalidUsageError),
        (UsageMetrics(model="render", measures={"gpu": 1}), InvalidUsageError),
        (UsageMetrics(model="render", measures={"gpu_seconds": -1}), InvalidUsageError),
        (UsageMetrics(model="x" * 129), InvalidIdError),
        (UsageMetrics(model=["m"]), InvalidIdError),  # type: ignore[arg-type]
        (UsageMetrics(model="plain", input_tokens=2**53), InvalidAmountError),
        (UsageMetrics(model="ratio", input_tokens=2**53, output_tokens=1), InvalidAmountError),
        (UsageMetrics(model="ratio", input_tokens=1), ExpressionError),
        (UsageMetrics(model="floors", input_tokens=1), ExpressionError),
        (None, InvalidUsageError),
    ],
    ids=repr,
)
def test_refused(usage: UsageMetrics, error: type[Exception]) -> None:
    """A wrong usage, a division by zero and a price over the limit are refused by every way to the price."""
    for model in ("plain", "long", "floors", "render"):
        ENGINE.total_micro(UsageMetrics(model, 1, 1))  # compiles the model's function
    for price in (ENGINE.calculate, ENGINE.total, ENGINE.total_micro):
        with pytest.raises(error):
            price(usage)


@pytest.mark.parametrize(
    ("formula", "usage"),
    [
        ("input_tokens + output_tokens", UsageMetrics(model="m", input_tokens=5, output_tokens=-1)),
        ("input_tokens + output_tokens", UsageMetrics(model="m", input_tokens=-1, output_tokens=5)),
        ("input_tokens + output_tokens", UsageMetrics(model="m", input_tokens=True)),
        ("input_tokens + output_tokens", UsageMetrics(model="m", output_tokens=1.0)),  # type: ignore[arg-type]
        ("input_tokens * 0.0000001", UsageMetrics(model="m", input_tokens=2**53 + 10)),
        ("input_tokens * 0.000001 - 5", UsageMetrics(model="m", input_tokens=2**53 + 10)),
        ("input_tokens // 7", UsageMetrics(model="m", input_tokens=2**53 + 10)),
        ("1 if input_tokens > 5 else 2", UsageMetrics(model="m", input_tokens=-1)),
        ("1 if input_tokens > 5 else 2", UsageMetrics(model="m", input_tokens=7.5)),  # type: ignore[arg-type]
        ("5 + uncached_input_tokens", UsageMetrics(model="m", input_tokens=5, cache_write_tokens=-1)),
        ("5 + uncached_input_tokens", UsageMetrics(model="m", cache_read_tokens=2**53 + 1)),
    ],
)
def test_hot_path_checks_what_it_reads(formula: str, usage: UsageMetrics) -> None:
    """The hot path refuses a wrong count also where the price would look right."""
    engine = PricingEngine.from_dict({"models": {"m": formula}})
    engine.total_micro(UsageMetrics("m", 10**8))  # compiles the model's function
    with pytest.raises(InvalidUsageError):
        engine.total_micro(usage)


def test_largest() -> None:
    """The largest price is 2**53 - 1 micro-credits."""
    engine = PricingEngine.from_dict({"models": {"m": "input_tokens * 0.000001"}})
    for _ in range(2):
        assert engine.total_micro(UsageMetrics(model="m", input_tokens=2**53 - 1)) == 2**53 - 1
    with pytest.raises(InvalidAmountError, match=r"9007199254\.740991"):
        engine.total_micro(UsageMetrics(model="m", input_tokens=2**53))
    with pytest.raises(InvalidAmountError):
        engine.total_micro_of([UsageMetrics(model="m", input_tokens=2**53 - 1)] * 2)


def test_division_by_zero_says_where() -> None:
    """A formula that fails names its path and the position of the division."""
    with pytest.raises(ExpressionError) as caught:
        ENGINE.total_micro(UsageMetrics(model="floors", input_tokens=1))
    assert (caught.value.path, caught.value.position) == ("models.floors", 13)


def test_several_usages() -> None:
    """Several usages cost the sum of their totals."""
    usages = [UsageMetrics(model="third", input_tokens=1), UsageMetrics(model="third", input_tokens=1)]
    assert ENGINE.total_micro_of(usages) == 666_666
    assert ENGINE.total_micro_of([]) == 0


def test_settings() -> None:
    """The document's amounts are there in micro-credits."""
    assert (ENGINE.min_balance_micro, ENGINE.signup_bonus_micro) == (500_000, 50_000_000)
    assert ENGINE.fixed_micro("embed_batch") == 2_500_000
    with pytest.raises(UnpricedModelError, match="fixed job 'x'"):
        ENGINE.fixed_micro("x")


def test_names_from_clients_are_bounded() -> None:
    """Made-up model names do not fill the memory."""
    engine = PricingEngine.from_dict({"models": {"_default": "1"}})
    for number in range(2 * MAX_REMEMBERED):
        engine.total_micro(UsageMetrics(model=f"made-up-{number}"))
        engine.cap_model(f"made-up-{number}")
        engine.calculate(UsageMetrics(model=f"made-up-{number}"))
    assert len(engine._totals) <= MAX_REMEMBERED
    assert len(engine._prices) <= MAX_REMEMBERED
    assert len(engine._cap_models) <= MAX_REMEMBERED


@given(
    tokens=st.tuples(*[st.integers(0, 10**6)] * 4),
    formula=st.sampled_from(
        [
            "input_tokens * 0.0025 + output_tokens * 0.01",
            "input_tokens / 3 + output_tokens / 7",
            "uncached_input_tokens * 0.1 + cache_read_tokens * 0.05 + cache_write_tokens * 0.2",
            "tier(input_tokens, 1000, 1, 100000, output_tokens / 7, 9)",
            "input_tokens * output_tokens * 1e-9",
            "max(0.5, round(input_tokens / 700, 2)) - output_tokens / 11",
            "input_tokens / (output_tokens + 1)",
        ]
    ),
)
@examples(100, long=2000)
def test_fast_way_agrees(tokens: tuple[int, int, int, int], formula: str) -> None:
    """The hot path and the breakdown give the same price for any usage."""
    document = {"models": {"m": formula}, "cache": {"discount": "-cache_read_tokens * 0.00001 / 3"}}
    usage = UsageMetrics("m", *tokens)
    priced(usage, PricingEngine.from_dict(document))
