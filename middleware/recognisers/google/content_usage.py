"""The usage metadata of Gemini: thoughts lie beside its candidates, and the results of tools beside its prompt."""

from collections.abc import Mapping
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, count, usage_of

_INPUT = {"promptTokenCount": None, "toolUsePromptTokenCount": "tool_prompt_tokens"}
_OUTPUT = {"candidatesTokenCount": None, "thoughtsTokenCount": "reasoning_tokens"}
_MODALITIES = (
    ("promptTokensDetails", "AUDIO", "audio_input_tokens"),
    ("promptTokensDetails", "IMAGE", "image_input_tokens"),
    ("toolUsePromptTokensDetails", "AUDIO", "audio_input_tokens"),
    ("toolUsePromptTokensDetails", "IMAGE", "image_input_tokens"),
    ("cacheTokensDetails", "AUDIO", "cache_read_audio_tokens"),
    ("candidatesTokensDetails", "AUDIO", "audio_output_tokens"),
    ("candidatesTokensDetails", "IMAGE", "image_output_tokens"),
)
_TIERS = {"ON_DEMAND": "standard", "ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}


def reports_tokens(report: Mapping[str, Any]) -> bool:
    """Tell whether usage metadata count anything. Some events carry only the kind of traffic."""
    return any(report.get(name) is not None for name in (*_INPUT, *_OUTPUT))


def read_usage(report: Mapping[str, Any]) -> tuple[UsageMetrics, bool]:
    """Return the usage that metadata report, and whether all of it could be used. A count that is missing is zero.

    Raises:
        InvalidReportError: where something is no count.
    """
    parts: dict[str, int] = {}
    prompt = _sum(report, _INPUT, parts)
    output = _sum(report, _OUTPUT, parts)
    if cached := _count(report, "cachedContentTokenCount"):
        parts["cache_read_tokens"] = cached
    whole = True
    for field, modality, part in _MODALITIES:
        details = report.get(field)
        if details is None:
            continue
        if not isinstance(details, list):
            whole = False
            continue
        for detail in details:
            if isinstance(detail, dict) and detail.get("modality") == modality:
                # A count of zero is left out where messages are written as JSON.
                found = count(detail.get("tokenCount", 0))
                whole &= found is not None
                if found:
                    parts[part] = parts.get(part, 0) + found
    usage, fits = usage_of(prompt, output, parts)
    return usage, whole and fits


def service_tier(report: Mapping[str, Any]) -> object:
    """Return the tier that served the request, under one name for Gemini's API and Vertex AI's; None for none."""
    tier = report.get("serviceTier")
    if isinstance(tier, str):
        return tier.lower()
    traffic = report.get("trafficType")
    return _TIERS.get(traffic, traffic.lower()) if isinstance(traffic, str) else None


def _sum(report: Mapping[str, Any], names: Mapping[str, str | None], parts: dict[str, int]) -> int:
    total = 0
    for name, part in names.items():
        found = _count(report, name)
        total += found
        if part is not None and found:
            parts[part] = found
    return total


def _count(report: Mapping[str, Any], name: str) -> int:
    value = report.get(name)
    found = 0 if value is None else count(value)
    if found is None:
        raise InvalidReportError(f"{name} is no count")
    return found
