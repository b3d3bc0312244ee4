"""The largest limit on output that an account can pay, under prices of every kind."""

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis import PricingEngine, UsageMetrics
from ducto_redis.errors import CapReachedError, InsufficientCreditsError
from ducto_redis.middleware import Estimates, MeteredRequest
from ducto_redis.middleware.holds.clamping import budget_micro, largest_limit, with_limit

ESTIMATES = Estimates(default_max_tokens=1000)


def request(output_tokens: int, **options: object) -> MeteredRequest:
    return MeteredRequest(UsageMetrics(model="m", input_tokens=10, output_tokens=output_tokens), **options)  # type: ignore[arg-type]


def largest(formula: str, asked: MeteredRequest, budget: int) -> int | None:
    """The largest limit under these prices, with so many micro-credits."""
    engine = PricingEngine.from_dict({"models": {"m": formula}})

    async def price(usage: UsageMetrics) -> int:
        return engine.total_micro(usage)

    return asyncio.run(largest_limit(asked, ESTIMATES, price, budget))


@pytest.mark.parametrize(
    ("formula", "budget", "limit"),
    [
        ("output_tokens", 57_000_000, 57),
        ("output_tokens", 57_999_999, 57),
        ("input_tokens + output_tokens", 57_000_000, 47),
        ("input_tokens + output_tokens", 10_000_000, 0),
        ("input_tokens + output_tokens", -5, 0),
        ("requests * 5", 4_000_000, 0),
        ("requests * 5", 5_000_000, 100),
        ("1 / output_tokens", 10_000, 100),
    ],
)
def test_the_largest_limit(formula: str, budget: int, limit: int) -> None:
    """What one more token would not pass; 0 where not even one does, all that was asked for where that passes."""
    assert largest(formula, request(100, output_limit=100), budget) == limit


def test_every_answer_has_the_limit() -> None:
    """With several answers each may have its share, and what no limit bounds stays in the price."""
    assert largest("output_tokens", request(4 * 100, output_limit=100, answers=4), 90_000_000) == 22
    assert largest("output_tokens", request(4 * 100 + 30, output_limit=100, answers=4), 90_000_000) == 15


def test_a_request_without_a_limit() -> None:
    """It is one of the default; one without output, as of embeddings, has no limit to lower."""
    assert largest("output_tokens", request(1000), 57_000_000) == 57
    assert largest("input_tokens", request(0), 5) is None


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(0, 300_000_000),
    asked=st.integers(1, 500),
    step=st.integers(1, 200),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
)
def test_what_is_returned_is_affordable(budget: int, asked: int, step: int, before: int, after: int) -> None:
    """Also where a price falls in a step: it costs no more than there is, and one token more would."""
    formula = f"output_tokens * {before} if output_tokens < {step} else output_tokens * {after}"
    limit = largest(formula, request(asked, output_limit=asked), budget)
    engine = PricingEngine.from_dict({"models": {"m": formula}})

    def price(tokens: int) -> int:
        lowered = with_limit(request(asked, output_limit=asked), tokens, ESTIMATES)
        assert lowered is not None
        return engine.total_micro(lowered.estimate)

    assert limit is not None
    if limit:
        assert price(limit) <= budget
    if limit < asked:
        assert price(limit + 1) > budget


def test_parts_stay_within_the_output() -> None:
    """A lowered estimate has no more reasoning or sound than output."""
    estimate = UsageMetrics(model="m", output_tokens=100, reasoning_tokens=80, audio_output_tokens=20)
    lowered = with_limit(MeteredRequest(estimate, output_limit=100), 30, ESTIMATES)
    assert lowered is not None
    assert lowered.estimate == UsageMetrics(model="m", output_tokens=30, reasoning_tokens=30, audio_output_tokens=20)
    assert lowered.output_limit == 30


def test_budgets() -> None:
    """What a refusal leaves to spend: allowance and available credits above the floor, or the rest of the cap."""
    short = InsufficientCreditsError(
        "u", needed=Decimal(9), available=Decimal("1.5"), held=Decimal(3), floor=Decimal(-2), allowance=Decimal("0.25")
    )
    assert budget_micro(short) == 3_750_000
    capped = CapReachedError(
        "u",
        cap_id="c",
        scope="account",
        window="day",
        limit=Decimal(9),
        used=Decimal(5),
        held=Decimal("1.5"),
        needed=Decimal(4),
    )
    assert budget_micro(capped) == 2_500_000
