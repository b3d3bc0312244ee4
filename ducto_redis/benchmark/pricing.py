"""Pricing: the engine beside the same formula, written by hand as integer Python."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from time import perf_counter

from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure, Target
from ducto_redis.benchmark.setting import Setting
from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.pricing import PricingEngine

_TWO_TERMS = {
    "models": {
        "whole": "input_tokens * (0.01 / 1000) + output_tokens * (0.03 / 1000)",
        "rounded": "input_tokens * 0.15 / 1000000 + output_tokens * 0.6 / 1000000",
    }
}
_FIVE_PARTS = {
    "models": {"agent": "input_tokens * 0.0025 + output_tokens * 0.01"},
    "cache": {"discount": "-cache_read_tokens * 0.00125"},
    "tools": {"web_search": "tool_calls * 10", "_default": "tool_calls * 0.5"},
    "search": {"costs": "search_queries * 0.5 + search_results * 0.05"},
}
_FULL_CALLS = 100_000
_FULL_BREAKDOWNS = 20_000
_USAGES = 1000

_HAND = "integers by hand"

Priced = Callable[[UsageMetrics], object]


def pricing(setting: Setting) -> Iterator[Comparison]:
    """Compare the total of a formula of two terms, and the breakdown of a usage of five parts."""
    engine = PricingEngine.from_dict(_TWO_TERMS)
    for work, model, by_hand in (
        ("price, two terms", "whole", _whole_by_hand),
        ("price, two terms, rounded", "rounded", _rounded_by_hand),
    ):
        usages = _usages(setting.seed, model)
        _must_agree(engine, usages, by_hand)
        yield _comparison(
            work,
            usages,
            setting.count(_FULL_CALLS),
            {"total_micro": engine.total_micro, _HAND: by_hand},
            [Figure("total_micro", _HAND, target=Target(at_most=2))],
        )
    engine = PricingEngine.from_dict(_FIVE_PARTS)
    agents = _agent_usages(setting.seed)
    _must_agree(engine, agents, _five_parts_by_hand)
    yield _comparison(
        "price, five parts",
        agents,
        setting.count(_FULL_BREAKDOWNS),
        {"calculate": engine.calculate, "total_micro": engine.total_micro, _HAND: _five_parts_by_hand},
        [Figure("calculate"), Figure("total_micro", _HAND)],
    )


def _comparison(
    work: str, usages: Sequence[UsageMetrics], calls: int, ways: dict[str, Priced], figures: Sequence[Figure]
) -> Comparison:
    return Comparison(
        work=work,
        unit="µs",
        contenders=[Contender(name, partial(_microseconds, priced, usages, calls)) for name, priced in ways.items()],
        figures=figures,
    )


def _microseconds(priced: Priced, usages: Sequence[UsageMetrics], calls: int) -> float:
    """Return the time of one call: the median over passes through the usages, the loop's share included."""
    passes = []
    for _ in range(max(1, calls // len(usages))):
        start = perf_counter()
        for usage in usages:
            priced(usage)
        passes.append(perf_counter() - start)
    return median(passes) / len(usages) * 1e6


def _must_agree(engine: PricingEngine, usages: Sequence[UsageMetrics], by_hand: Callable[[UsageMetrics], int]) -> None:
    for usage in usages:
        if engine.total_micro(usage) != by_hand(usage):
            raise BenchmarkError(f"the engine and the formula by hand do not agree on {usage}")


def _whole_by_hand(usage: UsageMetrics) -> int:
    return usage.input_tokens * 10 + usage.output_tokens * 30


def _rounded_by_hand(usage: UsageMetrics) -> int:
    return (usage.input_tokens * 15 + usage.output_tokens * 60 + 50) // 100


def _five_parts_by_hand(usage: UsageMetrics) -> int:
    micro = usage.input_tokens * 2500 + usage.output_tokens * 10000 - usage.cache_read_tokens * 1250
    for call in usage.tool_calls:
        micro += call.count * (10_000_000 if call.name == "web_search" else 500_000)
    return micro + usage.search_queries * 500_000 + usage.search_results * 50_000


def _usages(seed: int, model: str) -> list[UsageMetrics]:
    draw = random.Random(seed)
    return [
        UsageMetrics(model=model, input_tokens=draw.randrange(1, 200_000), output_tokens=draw.randrange(1, 8_000))
        for _ in range(_USAGES)
    ]


def _agent_usages(seed: int) -> list[UsageMetrics]:
    draw = random.Random(seed)
    return [
        UsageMetrics(
            model="agent",
            input_tokens=draw.randrange(4_000, 200_000),
            cache_read_tokens=draw.randrange(1, 4_000),
            output_tokens=draw.randrange(1, 8_000),
            tool_calls=[ToolCall("web_search", draw.randrange(1, 5)), ToolCall("python", draw.randrange(1, 5))],
            search_queries=draw.randrange(1, 5),
            search_results=draw.randrange(1, 50),
        )
        for _ in range(_USAGES)
    ]
