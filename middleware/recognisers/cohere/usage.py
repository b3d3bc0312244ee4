"""The usage of Cohere's responses: what is billed, not all that the model read."""

from collections.abc import Mapping
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, count, usage_of

_CALLS = {"search_units": "search_queries", "images": "images"}


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return the usage that the `usage` (or `meta`) of a response reports, and whether all of it could be used.

    `billed_units` count; `tokens`, with what Cohere adds to a prompt itself, only where they are missing. What was read
    from the cache is a part of `tokens`.

    Raises:
        InvalidReportError: where nothing is reported, or something is no count.
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    billed, tokens = report.get("billed_units"), report.get("tokens")
    parts: dict[str, int] = {}
    if isinstance(billed, dict):
        units = billed
    elif isinstance(tokens, dict):
        units = tokens
        parts["cache_read_tokens"] = _count(report, "cached_tokens")
    elif "total_tokens" in report:  # rankings of other providers
        return usage_of(_count(report, "total_tokens"), 0, parts)
    else:
        raise InvalidReportError("neither billed units nor tokens are reported")
    parts |= {ours: _count(units, theirs) for theirs, ours in _CALLS.items()}
    return usage_of(_count(units, "input_tokens"), _count(units, "output_tokens"), parts)


def _count(units: Mapping[Any, Any], name: str) -> int:
    value = units.get(name)
    if isinstance(value, float) and value.is_integer():  # the API declares them as numbers with a fraction
        value = int(value)
    found = 0 if value is None else count(value)
    if found is None:
        raise InvalidReportError(f"{name} is no count")
    return found
