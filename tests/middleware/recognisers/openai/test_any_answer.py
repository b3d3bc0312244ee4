"""Whatever an answer holds, a reader reads it, and what it charges is a usage."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from ducto_redis.middleware import BadRequestError, Estimates, MeteredRequest, Recogniser, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import (
    OpenAIChat,
    OpenAICompletions,
    OpenAIEmbeddings,
    OpenAIImages,
    OpenAISpeech,
    OpenAITranscriptions,
    OpenAIVideos,
)
from ducto_redis.middleware.recognisers.openai.choices_response import ChoicesReader

NAMES = (
    "choices", "usage", "error", "x_groq", "delta", "message", "text", "content", "index", "finish_reason", "id",
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "reasoning_tokens", "citation_tokens", "input_tokens", "output_tokens", "input_token_details",
    "image_tokens", "seconds", "duration", "data", "type", "svg_usage", "service_tier", "tool_calls", "status",
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 50)
    | st.floats()
    | st.sampled_from(["", "hello", "\ud800", "9", "image_generation.completed", "transcript.text.done", "\x00"])
    | st.sampled_from([10**12, 10**30, 2**53, 2**63])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)
BODY = b'{"model": "m", "messages": [], "prompt": "x", "input": "x", "stream": true, "web_search_options": {}, "n": 2}'


@pytest.mark.parametrize(
    "recogniser",
    [
        OpenAIChat(), OpenAIChat(rest_is_reasoning=True), OpenAICompletions(), OpenAIEmbeddings(), OpenAIImages(),
        OpenAITranscriptions(), OpenAISpeech(), OpenAIVideos(),
    ],
    ids=lambda recogniser: type(recogniser).__name__,
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, max_size=4), st.booleans(), st.booleans())
def test_any_answer(recogniser: Recogniser, values: list[Any], is_stream: bool, complete: bool) -> None:
    """No JSON raises; no number of the charge is below zero; no part is larger than its total."""
    request = recogniser.read_request(ApiRequest(path=recogniser.path_end, body=BODY), Estimates())
    reader = recogniser.read_response(request, Estimates())
    for value in values:
        text = json.dumps(value).encode(errors="surrogatepass")
        if is_stream:
            event = ServerSentEvent(b"", text)
            reader.event(event)
            assert reader.hidden(event) in (True, False)
            assert reader.tokens_to_cover >= 0
    if values and not is_stream:
        reader.document(json.dumps(values[0]).encode())
    if isinstance(reader, ChoicesReader):
        assert reader.ending() is not None
    charge = reader.charge(complete=complete)
    if charge is None:
        return
    usage = charge.usage
    assert usage.model == "m"
    assert all(value >= 0 for value in structs.asdict(usage).values() if isinstance(value, int))
    for name in ("cache_read", "cache_write", "audio_input", "image_input", "tool_prompt"):
        assert getattr(usage, f"{name}_tokens") <= usage.input_tokens
    for name in ("reasoning", "audio_output", "image_output"):
        assert getattr(usage, f"{name}_tokens") <= usage.output_tokens


REQUESTS = st.dictionaries(
    st.sampled_from(
        ("model", "messages", "prompt", "input", "n", "best_of", "max_tokens", "stream", "stream_options", "seconds",
         "service_tier", "images", "image", "reasoning_effort", "web_search_options", "suffix", "instructions")
    ),
    VALUES,
    max_size=8,
)  # fmt: skip


@pytest.mark.parametrize(
    "recogniser",
    [
        OpenAIChat(), OpenAICompletions(), OpenAIEmbeddings(), OpenAIImages(), OpenAITranscriptions(), OpenAISpeech(),
        OpenAIVideos(),
    ],
    ids=lambda recogniser: type(recogniser).__name__,
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS)
def test_any_request(recogniser: Recogniser, body: dict[str, Any]) -> None:
    """Any request is refused as a bad one, or read, and can be given on with a lower limit."""
    encoded = json.dumps(body).encode()
    try:
        request = recogniser.read_request(ApiRequest(path=recogniser.path_end, body=encoded), Estimates())
    except BadRequestError:
        return
    assert isinstance(request, MeteredRequest)
    assert request.estimate.input_tokens >= 0
    assert request.estimate.output_tokens >= 0
    assert isinstance(json.loads(recogniser.application_body(encoded, request, 7)), dict)
