"""The usage object of OpenAI's APIs, in OpenTelemetry's meaning: totals, and parts inside them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# No answer has a billion tokens: such a number is a mistake, and charging it would empty an account.
_MOST_TOKENS = 10**9


class InvalidReportError(ValueError):
    """The object is no usage."""


class ReportedUsage(NamedTuple):
    """Tokens that an answer reports; named as in `UsageMetrics`."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0


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


def read_usage(report: object) -> tuple[ReportedUsage, bool]:
    """Return what a usage object reports, and whether all of it could be used.

    A part that is no count, or larger than its total, is left out: its tokens are then priced as plain ones.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, Mapping):
        raise InvalidReportError("the usage is not an object")
    prompt, completion = _count(report.get("prompt_tokens")), _count(report.get("completion_tokens"))
    if prompt is None or completion is None:
        raise InvalidReportError("a total is missing, or is no count")
    parts: dict[str, int] = {}
    whole = _read_parts(report.get("prompt_tokens_details"), _INPUT_PARTS, prompt, parts)
    if parts.get("cache_read_tokens", 0) + parts.get("cache_write_tokens", 0) > prompt:
        del parts["cache_write_tokens"]
        whole = False
    whole &= _read_parts(report.get("completion_tokens_details"), _OUTPUT_PARTS, completion, parts)
    return ReportedUsage(prompt, completion, **parts), whole


def _read_parts(details: Any, names: Mapping[str, str], total: int, parts: dict[str, int]) -> bool:
    if details is None:
        return True
    if not isinstance(details, Mapping):
        return False
    whole = True
    for theirs, ours in names.items():
        value = details.get(theirs)
        if value is None:
            continue
        count = _count(value)
        if count is None or count > total:
            whole = False
        elif count:
            parts[ours] = count
    return whole


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
