"""The usage object of OpenAI's chat completions, which many other APIs have taken over."""

from collections.abc import Mapping

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, take_parts, total, usage_of

_INPUT_PARTS = {
    "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_OUTPUT_PARTS = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return what a usage object reports, and whether all of it could be used.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, Mapping):
        raise InvalidReportError("the usage is not an object")
    prompt, completion = total(report.get("prompt_tokens")), total(report.get("completion_tokens"))
    parts: dict[str, int] = {}
    whole = take_parts(report.get("prompt_tokens_details"), _INPUT_PARTS, parts)
    whole &= take_parts(report.get("completion_tokens_details"), _OUTPUT_PARTS, parts)
    usage, fits = usage_of(prompt, completion, parts)
    return usage, whole and fits
