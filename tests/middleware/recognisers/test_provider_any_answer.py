"""Whatever a request or an answer of these providers holds, it is read, or the request is refused."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from ducto_redis.middleware import BadRequestError, Estimates, Recogniser, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.recognisers import (
    AnthropicMessages,
    BedrockConverse,
    BedrockInvoke,
    CohereChat,
    CohereEmbed,
    CohereRerank,
    Gemini,
    GeminiEmbeddings,
    GenaiPrices,
    Ollama,
    VertexPredict,
)

RECOGNISERS = {
    AnthropicMessages(): "/v1/messages",
    Gemini(): "/v1/models/m:streamGenerateContent",
    GeminiEmbeddings(): "/v1/models/m:embedContent",
    VertexPredict(): "/v1/models/m:predict",
    BedrockConverse(): "/model/m/converse-stream",
    BedrockInvoke(): "/model/m/invoke-with-response-stream",
    CohereChat(): "/v2/chat",
    CohereEmbed(): "/v2/embed",
    CohereRerank(): "/v2/rerank",
    Ollama(): "/api/chat",
    GenaiPrices("google"): "/x",
    GenaiPrices("mistral", "ocr", measures={"input_document_pages": 1}): "/x",
}
KINDS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
    "message_stop", "error", "text", "tool_use", "thinking", "compaction", "advisor_message", "message-start",
    "content-start", "content-delta", "content-end", "message-end", "stream-end", "text-generation", "AUDIO", "IMAGE",
    "1h", "base64", "image", "enabled", "web_search_20250305", "image/png", "audio/wav",
)  # fmt: skip
NAMES = (
    "type", "index", "message", "delta", "content", "content_block", "usage", "error", "text", "thinking", "input",
    "name", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "cache_creation", "ephemeral_1h_input_tokens", "output_tokens_details", "thinking_tokens", "server_tool_use",
    "web_search_requests", "iterations", "service_tier", "speed", "candidates", "parts", "usageMetadata",
    "promptTokenCount", "functionCall", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount",
    "cachedContentTokenCount", "modality", "promptTokensDetails", "candidatesTokensDetails", "tokenCount",
    "groundingMetadata", "webSearchQueries", "trafficType", "finishReason", "output", "inputTokens", "outputTokens",
    "totalTokens", "cacheReadInputTokens", "cacheDetails", "ttl", "cacheWriteInputTokens", "contentBlockIndex",
    "start", "toolUse", "stopReason", "serviceTier", "bytes", "results", "inputTextTokenCount", "tokenCount",
    "amazon-bedrock-invocationMetrics", "inputTokenCount", "billed_units", "tokens", "search_units", "images", "meta",
    "event_type", "response", "eval_count", "prompt_eval_count", "done", "embeddings", "embedding", "statistics",
    "token_count", "predictions", "bytesBase64Encoded", "mimeType", "metadata", "billableCharacterCount",
    "usage_info", "pages_processed",
)  # fmt: skip
REQUEST_NAMES = (
    "model", "messages", "max_tokens", "stream", "tools", "system", "speed", "max_uses", "contents",
    "generationConfig", "generation_config", "maxOutputTokens", "max_output_tokens", "candidateCount",
    "thinkingConfig", "thinkingBudget", "inferenceConfig", "maxTokens", "additionalModelRequestFields", "serviceTier",
    "source", "data", "inlineData", "fileData", "mimeType", "document", "video", "options", "num_predict", "prompt",
    "instances", "parameters", "sampleCount", "documents", "query", "texts", "inputs", "image_url", "budget_tokens",
    "cachedContent", *NAMES[:10],
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 50)
    | st.floats()
    | st.sampled_from([*KINDS, "", "\ud800", "\x00", "x" * 200])
    | st.sampled_from([10**12, 10**30, 2**53, 2**63])
)


def values(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=8),
        max_leaves=30,
    )


BODY = (
    b'{"model": "m", "messages": [], "input": "x", "instances": [], "query": "x", "documents": ["x"], "stream": true}'
)


@pytest.mark.parametrize("recogniser", RECOGNISERS, ids=lambda recogniser: type(recogniser).__name__)
@settings(max_examples=10, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), values(NAMES), max_size=8), max_size=4), st.booleans())
def test_any_answer(recogniser: Recogniser, answers: list[Any], is_stream: bool) -> None:
    """No JSON raises; no number of the charge is below zero; no part is larger than its total."""
    estimates = Estimates()
    request = recogniser.read_request(ApiRequest(path=RECOGNISERS[recogniser], body=BODY), estimates)
    reader = recogniser.read_response(request, estimates)
    for answer in answers:
        text = json.dumps(answer).encode()
        if is_stream:
            reader.event(ServerSentEvent(b"", text))
            inside = b64encode(text).decode() if len(text) % 2 else text.decode()
            reader.event(ServerSentEvent(b"chunk", json.dumps({"bytes": inside}).encode()))
            assert reader.tokens_to_cover >= 0
            assert reader.knows_usage in (True, False)
            assert isinstance(reader.ending(), bytes | None)
    if not is_stream:
        reader.document(json.dumps(answers[0] if answers else None).encode())
    charge = reader.charge(complete=False)
    if charge is None:
        return
    usage = charge.usage
    assert all(value >= 0 for value in structs.asdict(usage).values() if isinstance(value, int))
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
    for name in ("audio_input", "image_input", "tool_prompt"):
        assert getattr(usage, f"{name}_tokens") <= usage.input_tokens
    for name in ("reasoning", "audio_output", "image_output"):
        assert getattr(usage, f"{name}_tokens") <= usage.output_tokens


@pytest.mark.parametrize("recogniser", RECOGNISERS, ids=lambda recogniser: type(recogniser).__name__)
@settings(max_examples=10, deadline=None)
@given(st.dictionaries(st.sampled_from(REQUEST_NAMES), values(REQUEST_NAMES), max_size=8), st.integers(1, 5000))
def test_any_request(recogniser: Recogniser, asked: dict[str, Any], limit: int) -> None:
    """A request is read, and its limit can be lowered, or it is refused as a bad one."""
    body, scope, estimates = json.dumps(asked).encode(), {"path": RECOGNISERS[recogniser]}, Estimates()
    try:
        request = recogniser.read_request(api_request(scope, body), estimates)
    except BadRequestError:
        return
    estimate = request.estimate
    assert min(estimate.input_tokens, estimate.output_tokens, estimate.search_queries, estimate.images) >= 0
    assert request.counted_input_tokens >= 0
    lowered = recogniser.application_body(body, request, limit)
    if lowered != body:
        assert recogniser.read_request(api_request(scope, lowered), estimates).output_limit == limit
