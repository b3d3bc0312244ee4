"""Checks of a usage before it is priced, and its flags."""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter

from ducto_redis.errors import InvalidIdError, InvalidUsageError
from ducto_redis.metrics import MAX_COUNT, Measure, ToolCall, UsageMetrics
from ducto_redis.pricing.measures import COUNTS, INPUT_PARTS, REQUESTS, TEXTS, TOOL_CALLS, UNCACHED
from ducto_redis.suggestions import did_you_mean

MAX_NAME_BYTES = 128
"""The longest name of a model, tool, fixed job, measure, operation or plan, in bytes of UTF-8."""

MEASURE_UNITS = 10**6
"""Own measures have six places: inside, they are integers of millionths."""

INPUT_EXCEEDED = "input_parts_exceed_total"
OUTPUT_EXCEEDED = "output_parts_exceed_total"

# The caller's decimal context may round or trap.
_SIX_PLACES = Context(prec=40, rounding=ROUND_HALF_UP)
_MILLIONTH = Decimal("0.000001")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NONE = 0  # Most counts are this very object, their default.
_QUICK = 2**30 - 1  # Up to here Python compares quickly.
_counts = attrgetter(*COUNTS)


def check_name(name: str, what: str) -> None:
    """Refuse a name that is empty, over 128 bytes, or holds control characters.

    Raises:
        InvalidIdError: says `what` it is that has the bad name.
    """
    if not isinstance(name, str):
        raise InvalidIdError(f"the name of a {what} must be a text, not {type(name).__name__}")
    reason = _name_mistake(name)
    if reason:
        raise InvalidIdError(f"the name of a {what} {reason}")


@lru_cache(4096)
def _name_mistake(name: str) -> str:
    try:
        length = len(name) if len(name) > MAX_NAME_BYTES else len(name.encode())
    except UnicodeEncodeError:
        return f"must be valid Unicode, got {name!r:.200}"
    if not 1 <= length <= MAX_NAME_BYTES:
        return f"has 1 to {MAX_NAME_BYTES} bytes, not {length}"
    return f"has no control characters, got {name!r:.200}" if _CONTROL.search(name) else ""


def check_usage(usage: UsageMetrics, own_measures: frozenset[str]) -> None:
    """Check every field of `usage`. `own_measures` are those that the document declares.

    Raises:
        InvalidUsageError: for a count that is not a whole number from 0 to 2**53, or a measure that is not declared.
        InvalidIdError: for a bad name.
    """
    if not isinstance(usage, UsageMetrics):
        raise InvalidUsageError(f"a usage must be a UsageMetrics, not {type(usage).__name__}")
    for count in _counts(usage):
        if count is not _NONE and (type(count) is not int or count < 0 or count > _QUICK):
            _check_counts(usage)
            break
    if usage.model is not None and not _is_right(usage.model):
        check_name(usage.model, "model")
    if usage.operation is not None:
        check_name(usage.operation, "operation")
    if usage.service_tier is not None:
        check_name(usage.service_tier, "service tier")
    if usage.fixed_job is not None:
        check_name(usage.fixed_job, "fixed job")
    for call in usage.tool_calls:
        if not isinstance(call, ToolCall):
            raise InvalidUsageError(f"tool_calls must hold ToolCall, not {type(call).__name__}")
        if not _is_right(call.name):
            check_name(call.name, "tool")
        if type(call.count) is not int or not 0 <= call.count <= MAX_COUNT:
            _check_count(call.count, f"the count of tool {call.name!r}")
    for name in usage.measures:
        if name not in own_measures:
            hint = did_you_mean(str(name), own_measures)
            raise InvalidUsageError(f"the pricing document declares no measure {name!r:.200}{hint}")
        own_measure(usage.measures, name)


def own_measure(measures: Mapping[str, Measure], name: str) -> int:
    """Return one of the document's own measures in millionths, 0 where the usage does not give it.

    A float counts as its shortest representation. Beyond six places a half is rounded up.

    Raises:
        InvalidUsageError: for anything but a number from 0 to 2**53.

    >>> own_measure({"gpu_seconds": 1.1}, "gpu_seconds")
    1100000
    """
    value = measures.get(name, 0)
    if type(value) is int:
        if not 0 <= value <= MAX_COUNT:
            raise _out_of_range(name)
        return value * MEASURE_UNITS
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidUsageError(f"{name} must be an int, a Decimal or a float, not {type(value).__name__}")
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not exact.is_finite():
        raise InvalidUsageError(f"{name} must be finite, not {value}")
    if exact and (exact.is_signed() or exact.adjusted() > 16):
        raise _out_of_range(name)
    units = int(exact.quantize(_MILLIONTH, context=_SIX_PLACES).scaleb(6, context=_SIX_PLACES))
    if units > MAX_COUNT * MEASURE_UNITS:
        raise _out_of_range(name)
    return units


def tool_call_count(usage: UsageMetrics) -> int:
    """Return how many calls of tools a checked usage holds."""
    count = 0
    for call in usage.tool_calls:
        count += call.count
    return count


def value_of(measure: str, usage: UsageMetrics, tool_calls: int) -> Fraction | str:
    """Return what a formula reads by the name `measure` from a checked usage."""
    if measure == TOOL_CALLS:
        return Fraction(tool_calls)
    if measure == REQUESTS:
        return Fraction(1)
    if measure == UNCACHED:
        return Fraction(max(usage.input_tokens - sum(getattr(usage, part) for part in INPUT_PARTS), 0))
    if measure in TEXTS:
        return getattr(usage, measure) or ""
    if measure in COUNTS:
        return Fraction(getattr(usage, measure))
    return Fraction(own_measure(usage.measures, measure), MEASURE_UNITS)


def usage_flags(usage: UsageMetrics) -> tuple[str, ...]:
    """Return a flag for each total that the parts of a usage exceed."""
    flags = []
    if (
        usage.cache_read_tokens + usage.cache_write_tokens > usage.input_tokens
        or usage.audio_input_tokens + usage.image_input_tokens > usage.input_tokens
        or usage.tool_prompt_tokens > usage.input_tokens
        or usage.cache_write_1h_tokens > usage.cache_write_tokens
        or usage.cache_read_audio_tokens > min(usage.cache_read_tokens, usage.audio_input_tokens)
    ):
        flags.append(INPUT_EXCEEDED)
    if (
        usage.reasoning_tokens > usage.output_tokens
        or usage.audio_output_tokens + usage.image_output_tokens > usage.output_tokens
    ):
        flags.append(OUTPUT_EXCEEDED)
    return tuple(flags)


def _is_right(name: str) -> bool:
    return type(name) is str and not _name_mistake(name)


def _check_counts(usage: UsageMetrics) -> None:
    for field, count in zip(COUNTS, _counts(usage), strict=True):
        _check_count(count, field)


def _check_count(value: object, name: str) -> None:
    if type(value) is not int:
        raise InvalidUsageError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= MAX_COUNT:
        raise _out_of_range(name)


def _out_of_range(name: str) -> InvalidUsageError:
    return InvalidUsageError(f"{name} must be from 0 to 2**53")
