"""The usage object of OpenAI's endpoints for pictures and sound: tokens, or seconds."""

import math

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import InvalidReportError, take_parts, total, usage_of

_INPUT_PARTS = {
    "image_tokens": "image_input_tokens",
    "audio_tokens": "audio_input_tokens",
    "cached_tokens": "cache_read_tokens",
}
_OUTPUT_PARTS = {
    "image_tokens": "image_output_tokens",
    "audio_tokens": "audio_output_tokens",
    "reasoning_tokens": "reasoning_tokens",
}
_MOST_SECONDS = 10**7


def read_token_usage(report: object, *, output_part: str | None = None) -> tuple[UsageMetrics, bool]:
    """Return the usage that an object reports, and whether all of it could be used.

    Args:
        report: the object.
        output_part: what all of the output is where the report does not divide it, such as "image_output_tokens".

    Raises:
        InvalidReportError: where it is no usage.

    >>> read_token_usage({"type": "duration", "seconds": 9.2})
    (UsageMetrics(audio_seconds=10), True)
    >>> read_token_usage({"input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 45})
    (UsageMetrics(input_tokens=14, output_tokens=45, audio_input_tokens=14), True)
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    if report.get("input_tokens") is None and report.get("seconds") is not None:
        seconds = whole_seconds(report["seconds"])
        if seconds is None:
            raise InvalidReportError("the seconds are none")
        return UsageMetrics(audio_seconds=seconds), True
    input_tokens, output_tokens = total(report.get("input_tokens")), total(report.get("output_tokens"))
    parts: dict[str, int] = {}
    whole = True
    for details, names in (("input", _INPUT_PARTS), ("output", _OUTPUT_PARTS)):
        # Pictures have "input_tokens_details", sound "input_token_details".
        found = report.get(f"{details}_tokens_details")
        whole &= take_parts(report.get(f"{details}_token_details") if found is None else found, names, parts)
    if output_part is not None and output_tokens and report.get("output_tokens_details") is None:
        parts[output_part] = output_tokens
    usage, fits = usage_of(input_tokens, output_tokens, parts)
    return usage, whole and fits


def whole_seconds(value: object) -> int | None:
    """Return a number of seconds, rounded up; None for anything else. Some providers send a string.

    >>> whole_seconds(8.1), whole_seconds("4"), whole_seconds("soon")
    (9, 4, None)
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return math.ceil(value) if 0 <= value <= _MOST_SECONDS else None
