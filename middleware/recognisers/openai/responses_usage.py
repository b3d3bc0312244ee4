"""The usage object of OpenAI's Responses API: tokens, and calls of the provider's own tools."""

from collections.abc import Iterable, Mapping
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.openai.chat_usage import read_usage as read_chat_usage
from ducto_redis.middleware.recognisers.reported import InvalidReportError, count, take_parts, total, usage_of

_INPUT_PARTS = {
    "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_OTHER_INPUT_PARTS = {"cache_read_input_tokens": "cache_read_tokens"}
_OUTPUT_PARTS = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return the usage that an object reports, and whether all of it could be used.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    if "input_tokens" not in report and "prompt_tokens" in report:  # some report as for a chat completion
        return read_chat_usage(report)
    input_tokens, output_tokens = total(report.get("input_tokens")), total(report.get("output_tokens"))
    parts: dict[str, int] = {}
    inside = report.get("input_tokens_details")
    whole = take_parts(inside, _INPUT_PARTS, parts)
    if isinstance(inside, dict) and inside.get("cached_tokens") is None:
        whole &= take_parts(inside, _OTHER_INPUT_PARTS, parts)
    whole &= take_parts(report.get("output_tokens_details"), _OUTPUT_PARTS, parts)
    usage, fits = usage_of(input_tokens, output_tokens, parts)
    return usage, whole and fits


def count_calls(items: Iterable[object]) -> dict[str, int]:
    """Return the calls of the provider's own tools that are charged, of these items of an output.

    - a web search for each search; looking at a page that was found is free
    - a file search for each call
    - code for each container that ran some, however often
    - a picture for each that was made

    What failed is not charged.
    """
    web = file = images = 0
    containers: set[str] = set()
    for item in items:
        if not isinstance(item, dict) or item.get("status") == "failed":
            continue
        match item.get("type"):
            case "web_search_call":
                web += _is_search(item.get("action"))
            case "file_search_call":
                file += 1
            case "image_generation_call":
                images += 1
            case "code_interpreter_call":
                containers.add(str(item.get("container_id") or item.get("id")))
            case "shell_call" if isinstance(place := item.get("environment"), dict) and place.get("container_id"):
                containers.add(str(place["container_id"]))
    calls = {
        "web_search_calls": web,
        "file_search_calls": file,
        "code_exec_calls": len(containers),
        "images": images,
    }
    return {name: number for name, number in calls.items() if number}


def reported_searches(response: Mapping[str, Any]) -> int | None:
    """Return the web searches that the provider itself says it charges; None where it does not say."""
    match response:
        case {"tool_usage": {"web_search": {"num_requests": number}}}:
            return count(number)
        case {"usage": {"tool_calls_details": {"search_web": {"invocation": number}}}}:
            return count(number)
    return None


def _is_search(action: object) -> bool:
    # Calls of older models do not say what they did: they could only search.
    return not isinstance(action, dict) or action.get("type", "search") == "search"
