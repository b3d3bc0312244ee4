"""What a usage must be before it is priced."""

from decimal import Decimal

import pytest

from ducto_redis.errors import InvalidIdError, InvalidUsageError
from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.pricing.measures import COUNTS
from ducto_redis.pricing.usage import check_usage, own_measure, usage_flags

OWN = frozenset({"pages"})


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("bad", [-1, 2**53 + 1, 1.0, True, Decimal(1), "1", None])
def test_counts(field: str, bad: object) -> None:
    """Every count is an int from 0 to 2**53; nothing else is taken for one."""
    check_usage(UsageMetrics(**{field: 2**53}), OWN)
    with pytest.raises(InvalidUsageError, match=field):
        check_usage(UsageMetrics(**{field: bad}), OWN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "millionths"),
    [
        (0, 0),
        (3, 3_000_000),
        (2**53, 2**53 * 10**6),
        (0.1, 100_000),
        (1e-6, 1),
        (0.30000000000000004, 300_000),
        (4.9e-7, 0),
        (5e-7, 1),
        (Decimal("1.1"), 1_100_000),
        (Decimal("0.0000025"), 3),
        (Decimal("1e-3000000"), 0),
        (Decimal("-0"), 0),
    ],
)
def test_own_measures(value: int | float | Decimal, millionths: int) -> None:
    """An own measure has six places; a float counts as it prints."""
    assert own_measure({"pages": value}, "pages") == millionths


@pytest.mark.parametrize(
    "bad",
    [
        *(-1, -0.5, Decimal("-0.1"), float("nan"), float("inf"), Decimal("nan"), Decimal("sNaN"), True, "1", None),
        *(2**53 + 1, Decimal("1e3000000"), 1e300, Decimal(2**53) + 1),
    ],
)
def test_bad_own_measures(bad: object) -> None:
    """What is no number from 0 to 2**53 is refused, and quickly."""
    with pytest.raises(InvalidUsageError):
        check_usage(UsageMetrics(measures={"pages": bad}), OWN)  # type: ignore[dict-item]


def test_unknown_measure() -> None:
    """A measure that the document does not declare is a mistake, not free."""
    with pytest.raises(InvalidUsageError, match="no measure 'page'; did you mean 'pages'"):
        check_usage(UsageMetrics(measures={"page": 1}), OWN)


@pytest.mark.parametrize(
    "usage",
    [
        UsageMetrics(model=""),
        UsageMetrics(model="m" * 129),
        UsageMetrics(model="a\nb"),
        UsageMetrics(model="\ud800"),
        UsageMetrics(model=5),  # type: ignore[arg-type]
        UsageMetrics(operation="\x7f"),
        UsageMetrics(service_tier=""),
        UsageMetrics(fixed_job=""),
        UsageMetrics(tool_calls=[ToolCall("")]),
    ],
    ids=repr,
)
def test_bad_names(usage: UsageMetrics) -> None:
    """Names are 1 to 128 bytes of Unicode without control characters."""
    with pytest.raises(InvalidIdError):
        check_usage(usage, OWN)


@pytest.mark.parametrize("calls", [[ToolCall("t", -1)], [ToolCall("t", 1.5)], ["t"]])  # type: ignore[arg-type]
def test_bad_tool_calls(calls: list[ToolCall]) -> None:
    """Calls of tools are counted by whole numbers."""
    with pytest.raises(InvalidUsageError):
        check_usage(UsageMetrics(tool_calls=calls), OWN)


def test_no_usage() -> None:
    """Only a UsageMetrics is a usage."""
    with pytest.raises(InvalidUsageError, match="dict"):
        check_usage({"model": "m"}, OWN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "flags"),
    [
        (UsageMetrics(input_tokens=10, cache_read_tokens=6, cache_write_tokens=4), ()),
        (UsageMetrics(input_tokens=10, cache_read_tokens=6, cache_write_tokens=5), ("input_parts_exceed_total",)),
        (UsageMetrics(input_tokens=1, audio_input_tokens=1, image_input_tokens=1), ("input_parts_exceed_total",)),
        (UsageMetrics(output_tokens=5, reasoning_tokens=6), ("output_parts_exceed_total",)),
        (UsageMetrics(output_tokens=5, audio_output_tokens=6), ("output_parts_exceed_total",)),
    ],
)
def test_flags(usage: UsageMetrics, flags: tuple[str, ...]) -> None:
    """Parts that exceed their total are flagged."""
    assert usage_flags(usage) == flags
