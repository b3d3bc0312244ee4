"""A price can be had before it is rounded."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.money import MICRO
from ducto_redis.pricing import PricingEngine
from ducto_redis.pricing.exact import round_fraction

ENGINE = PricingEngine.from_dict(
    {
        "models": {"m": "input_tokens / 3 - output_tokens / 7"},
        "tools": {"t": "tool_calls / 11"},
        "plans": {"pro": {"rate_overrides": {"m": "input_tokens / 13"}}},
    }
)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([None, "pro"]))
@settings(max_examples=60, deadline=None)
def test_rounded_it_is_the_total(inputs: int, outputs: int, calls: int, plan: str | None) -> None:
    """The exact price, rounded once to six places and never below 0, is what is charged."""
    usage = UsageMetrics(model="m", input_tokens=inputs, output_tokens=outputs, tool_calls=[ToolCall("t", calls)])
    own = Fraction(inputs, 13) if plan else Fraction(inputs, 3) - Fraction(outputs, 7)
    exact = ENGINE.exact(usage, plan)
    assert exact == own + Fraction(calls, 11)
    assert ENGINE.total_micro(usage, plan) == max(round_fraction(exact * MICRO), 0)
