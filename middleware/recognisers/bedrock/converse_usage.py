"""The usage of Bedrock's Converse: for most models the cache lies beside the input, for some inside."""

from collections.abc import Mapping

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, count, take_parts, total, usage_of

_CACHE = {"cacheReadInputTokens": "cache_read_tokens", "cacheWriteInputTokens": "cache_write_tokens"}


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return the usage that an object reports, and whether all of it could be used.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    parts: dict[str, int] = {}
    whole = take_parts(report, _CACHE, parts)
    tokens, output = total(report.get("inputTokens")), total(report.get("outputTokens"))
    cached = sum(parts.values())
    # `totalTokens` tells: it counts the cache twice where the input has it already.
    inside = count(report.get("totalTokens")) == tokens + output
    details = report.get("cacheDetails")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("ttl") == "1h":
            whole &= take_parts(detail, {"inputTokens": "cache_write_1h_tokens"}, parts)
    usage, fits = usage_of(tokens if inside else tokens + cached, output, parts)
    return usage, whole and fits


def service_tier(holder: Mapping[str, object]) -> object:
    """Return the tier that a response, or a request, names; None where it names none."""
    tier = holder.get("serviceTier")
    return tier.get("type") if isinstance(tier, dict) else None
