"""The usage object of Anthropic's messages: the cache lies beside its input, not inside."""

from collections.abc import Mapping
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, take_parts, total, usage_of

_CACHE = {
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_CACHE_CREATION = {"ephemeral_1h_input_tokens": "cache_write_1h_tokens"}
_OUTPUT_PARTS = {"thinking_tokens": "reasoning_tokens"}
_SERVER_TOOLS = {"web_search_requests": "web_search_calls", "code_execution_requests": "code_exec_calls"}
_DETAILS = (("output_tokens_details", _OUTPUT_PARTS), ("server_tool_use", _SERVER_TOOLS))


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return the usage that an object reports, and whether all of it could be used.

    Its totals are those of the response. What a compaction of the context used on the way is charged beside them, and
    stands in `iterations` only; what an advisor used does too, but belongs to another model: `has_advisor`.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    parts: dict[str, int] = {}
    whole = True
    for field, names in _DETAILS:
        if (details := report.get(field)) is not None:
            whole &= take_parts(details, names, parts)
    fresh = output = 0
    on_the_way = _iterations(report, "compaction") if "iterations" in report else ()
    for counts in (report, *on_the_way):
        fresh += total(counts.get("input_tokens"))
        output += total(counts.get("output_tokens"))
        whole &= take_parts(counts, _CACHE, parts)
        whole &= take_parts(counts.get("cache_creation"), _CACHE_CREATION, parts)
    cached = parts.get("cache_read_tokens", 0) + parts.get("cache_write_tokens", 0)
    usage, fits = usage_of(fresh + cached, output, parts)
    return usage, whole and fits


def has_advisor(report: object) -> bool:
    """Tell whether a usage object reports that another model was asked for advice, which its totals leave out."""
    return isinstance(report, dict) and bool(_iterations(report, "advisor_message"))


def _iterations(report: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    iterations = report.get("iterations")
    if not isinstance(iterations, list):
        return []
    return [item for item in iterations if isinstance(item, dict) and item.get("type") == kind]
