"""The usage object of OpenAI's chat completions, which many other APIs have taken over."""

from collections.abc import Iterable, Mapping

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.reported import MOST, InvalidReportError, count, take_parts, total, usage_of

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
# Perplexity, OpenRouter, Anthropic behind proxies, LiteLLM.
_SEARCHES = (
    ("num_search_queries",),
    ("server_tool_use_details", "web_search_requests"),
    ("server_tool_use", "web_search_requests"),
    ("prompt_tokens_details", "web_search_requests"),
)
# What OpenAI reports itself: where nothing else is reported, nothing else is looked for.
_USUAL = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_USUAL_DETAILS = frozenset({*_INPUT_PARTS, "text_tokens"})
# Where else providers report a part, for responses whose details lack it: DeepSeek; Moonshot and Anthropic; Databricks;
# xAI; LiteLLM. Mistral's num_cached_tokens is none of these: what it bills as cached stands in the details.
_ELSEWHERE = {
    "cache_read_tokens": (
        ("prompt_cache_hit_tokens",),
        ("cached_tokens",),
        ("cache_read_input_tokens",),
        ("cached_prompt_text_tokens",),
    ),
    "cache_write_tokens": (
        ("prompt_tokens_details", "cache_creation_tokens"),
        ("cache_creation_input_tokens",),
    ),
    "cache_write_1h_tokens": (
        ("prompt_tokens_details", "cache_creation_token_details", "ephemeral_1h_input_tokens"),
        ("cache_creation", "ephemeral_1h_input_tokens"),
    ),
    "reasoning_tokens": (("reasoning_tokens",),),
    "search_results": (("num_sources_used",),),
    "tool_prompt_tokens": (("citation_tokens",),),
    "web_search_calls": _SEARCHES,
}


def read_usage(report: object, *, rest_is_reasoning: bool = False) -> tuple[UsageMetrics, bool]:
    """Return the usage that an object reports, and whether all of it could be used.

    Args:
        report: the object.
        rest_is_reasoning: whether a `total_tokens` above prompt and completion means reasoning that they leave out.

    Raises:
        InvalidReportError: where a total is missing, or is no count.

    >>> read_usage({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}})
    (UsageMetrics(input_tokens=9, output_tokens=3, cache_read_tokens=8), True)
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    prompt, completion = report.get("prompt_tokens"), report.get("completion_tokens")
    everything = report.get("total_tokens")
    if not (
        (type(prompt) is int and 0 <= prompt <= MOST)
        and (type(completion) is int and 0 <= completion <= MOST)
        and (type(everything) is int and 0 <= everything <= MOST)
    ):
        prompt, everything = total(prompt), count(everything)
        if completion is None and everything is not None:  # some leave out a zero
            completion = everything - prompt
        completion = total(completion)
    parts: dict[str, int] = {}
    details = report.get("prompt_tokens_details")
    whole = details is None or take_parts(details, _INPUT_PARTS, parts)
    if (outputs := report.get("completion_tokens_details")) is not None:
        whole &= take_parts(outputs, _OUTPUT_PARTS, parts)
    if not (_USUAL.issuperset(report) and (not isinstance(details, dict) or _USUAL_DETAILS.issuperset(details))):
        for name, places in _ELSEWHERE.items():
            if name not in parts and (found := _first(report, places)):
                parts[name] = found
        if citations := parts.get("tool_prompt_tokens"):
            # Perplexity's deep research charges what it read and thought beside prompt and completion.
            prompt += citations
            completion += parts.get("reasoning_tokens", 0)
    if everything is not None and everything > prompt + completion:
        prompt, completion = _with_outside(prompt, completion, everything, parts, rest_is_reasoning)
    if not parts:
        return UsageMetrics(input_tokens=prompt, output_tokens=completion), whole
    usage, fits = usage_of(prompt, completion, parts)
    return usage, whole and fits


def reported_searches(report: Mapping[str, object]) -> int | None:
    """Return the web searches that a usage object reports; None where it says nothing of them."""
    return _first(report, _SEARCHES)


def _with_outside(
    prompt: int, completion: int, everything: int, parts: dict[str, int], rest_is_reasoning: bool
) -> tuple[int, int]:
    """Add to the totals the parts that lie outside of them, as far as `total_tokens` proves it.

    xAI reports a completion without its reasoning, and proxies of Anthropic a prompt without what was cached.
    """
    rest = everything - prompt - completion
    reasoning = parts.get("reasoning_tokens", 0)
    cached = parts.get("cache_read_tokens", 0) + parts.get("cache_write_tokens", 0)
    if rest == reasoning:
        return prompt, completion + reasoning
    if rest == cached:
        return prompt + cached, completion
    if rest == cached + reasoning:
        return prompt + cached, completion + reasoning
    if rest_is_reasoning:
        parts["reasoning_tokens"] = reasoning + rest
        return prompt, completion + rest
    return prompt, completion


def _first(report: Mapping[str, object], places: Iterable[tuple[str, ...]]) -> int | None:
    """Return the first count that stands in one of these places."""
    for place in places:
        value: object = report
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if (found := count(value)) is not None:
            return found
    return None
