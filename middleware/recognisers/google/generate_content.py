"""Gemini's generateContent, plain and streamed, at Google's API for it and on Vertex AI."""

import re
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError, Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.google.content_response import GeminiReader, GeminiRequest
from ducto_redis.middleware.recognisers.json_request import (
    NOTHING,
    check_limit,
    check_name,
    decode_request,
    with_field,
)
from ducto_redis.middleware.recognisers.prompt import (
    BASE64_BYTES_PER_SOUND_TOKEN,
    Medium,
    check_settings,
    measure_prompt,
)

_GENERATE = re.compile(r"/([^/:]+):(generateContent|streamGenerateContent)$")
_COUNTING = re.compile(r"/[^/:]+:(?:countTokens|computeTokens)$")
_MOST_CANDIDATES = 1024
_MEDIA = (b'"inlineData"', b'"inline_data"', b'"fileData"', b'"file_data"')
# Models that think unless they are told not to.
_THINKS = re.compile(r"gemini-(?!1\.|2\.0|pro\b)")
_SEARCHES = (b'"googleSearch', b'"google_search')
_SERVER_TOOLS = (
    *_SEARCHES,
    b'"urlContext"', b'"url_context"', b'"codeExecution"', b'"code_execution"', b'"fileSearch"', b'"file_search"',
    b'"googleMaps"', b'"google_maps"', b'"retrieval"',
)  # fmt: skip
_UPPER = re.compile("[A-Z]")

_object_decoder = msgspec.json.Decoder(dict[str, Raw])


class Gemini(Recogniser):
    """`POST .../models/{model}:generateContent` and `...:streamGenerateContent`.

    The priced model is the one in the path.

    Args:
        default_model: the priced model on a path of `routes`, which names none.
        image_tokens: the most tokens of one image.
        file_tokens: the most tokens of a file given by its address, and of cached content. Inside the request, sound
            and film hold a token per 32 bytes, other files a token per byte.
        server_tool_uses: the uses to hold for of the provider's own tools, such as Google Search.
        server_tool_tokens: input tokens that are held for the results of each such use.
    """

    operation_type = "chat"

    def __init__(
        self,
        *,
        default_model: str | None = None,
        image_tokens: int = 5_000,
        file_tokens: int = 20_000,
        server_tool_uses: int = 5,
        server_tool_tokens: int = 10_000,
    ) -> None:
        check_settings(
            image_tokens=image_tokens,
            file_tokens=file_tokens,
            server_tool_uses=server_tool_uses,
            server_tool_tokens=server_tool_tokens,
        )
        self._default_model = default_model
        self._image_tokens = image_tokens
        self._file_tokens = file_tokens
        self._server_tool_uses = server_tool_uses
        self._server_tool_tokens = server_tool_tokens

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _GENERATE.search(path) is not None

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, the results of tools, and the most output."""
        fields = decode_request(request.body, _object_decoder)
        named = _GENERATE.search(request.path)
        model = self._default_model if named is None else named[1]
        check_name(model, "model")
        limit, candidates, budget = _generation(fields)
        prompt_parts = [_raw(fields, name) for name in ("contents", "systemInstruction", "tools")]
        prompt = measure_prompt(estimates, model, request.body, prompt_parts, self._find_medium, _MEDIA)
        tools = _raw(fields, "tools")
        uses = self._server_tool_uses if any(mark in tools for mark in _SERVER_TOOLS) else 0
        searches = uses if any(mark in tools for mark in _SEARCHES) else 0
        cached = self._file_tokens if _raw(fields, "cachedContent") not in (b"", b"null") else 0
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens + uses * self._server_tool_tokens + cached,
            output_tokens=estimates.output(limit) * candidates,
            web_search_calls=min(searches, 1),
            search_queries=searches,
            operation=self.operation_type,
            service_tier=_tier(fields),
        )
        if max(estimate.input_tokens, estimate.output_tokens) > MAX_COUNT:
            raise BadRequestError("the token limits are too large", param="maxOutputTokens")
        streams = named is not None and named[2] == "streamGenerateContent"
        return GeminiRequest(
            estimate,
            prompt.likely_tokens,
            streams=streams,
            answers=candidates,
            output_limit=limit,
            may_reason_hidden=budget != 0 and model is not None and _THINKS.search(model) is not None,
            array=streams and parse_qs(request.query).get(b"alt") != [b"sse"],
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        assert isinstance(request, GeminiRequest)
        return GeminiReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with `maxOutputTokens` lowered. Thoughts count into it."""
        if output_limit is None:
            return body
        fields = _object_decoder.decode(body)
        config = _spelled(fields, "generationConfig")
        inside = _inside(fields, "generationConfig")
        return with_field(body, (config, _spelled(inside, "maxOutputTokens")), output_limit)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Google's errors."""
        return refusal.as_google()

    def _find_medium(self, part: dict[str, Any]) -> Medium | None:
        if isinstance(inline := part.get("inlineData", part.get("inline_data")), dict):
            kind = inline.get("mimeType", inline.get("mime_type"))
            data = inline.get("data")
            size = len(data) if isinstance(data, str) else 0
            if isinstance(kind, str) and kind.startswith("image/"):
                return Medium(inline, "data", self._image_tokens)
            # A second of film takes at most some 300 tokens, and no encoding less than 10,000 base64 characters.
            if isinstance(kind, str) and kind.startswith(("audio/", "video/")):
                return Medium(inline, "data", -(-size // BASE64_BYTES_PER_SOUND_TOKEN))
            return Medium(inline, "data", size)
        if isinstance(file := part.get("fileData", part.get("file_data")), dict):
            return Medium(file, "fileUri", self._file_tokens)
        return None


class GeminiTokenCounting(FreeRecogniser):
    """`POST .../models/{model}:countTokens` and `:computeTokens`, which are free."""

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _COUNTING.search(path) is not None


def _generation(fields: dict[str, Raw]) -> tuple[int | None, int, int | None]:
    """Return the limit on output tokens, the number of candidates, and the budget for thoughts."""
    config = _inside(fields, "generationConfig")
    limit, candidates = _number(config, "maxOutputTokens"), _number(config, "candidateCount")
    check_limit(limit, "maxOutputTokens")
    if candidates is not None and not 1 <= candidates <= _MOST_CANDIDATES:
        raise BadRequestError(f"candidateCount must be between 1 and {_MOST_CANDIDATES}", param="candidateCount")
    return limit, candidates or 1, _number(_inside(config, "thinkingConfig"), "thinkingBudget")


def _tier(fields: dict[str, Raw]) -> str | None:
    raw = _raw(fields, "serviceTier")
    tier = msgspec.json.decode(raw) if raw else None
    if not isinstance(tier, str) or tier.lower() in ("", "unspecified"):
        return None
    check_name(tier, "serviceTier")
    return tier.lower()


def _spelled(fields: dict[str, Raw], name: str) -> str:
    """Return a field's name as the request spells it: Google takes both `maxTokens` and `max_tokens`."""
    snake = _UPPER.sub(lambda letter: "_" + letter[0].lower(), name)
    return snake if snake in fields and name not in fields else name


def _raw(fields: dict[str, Raw], name: str) -> bytes:
    return bytes(fields.get(_spelled(fields, name), NOTHING))


def _inside(fields: dict[str, Raw], name: str) -> dict[str, Raw]:
    raw = _raw(fields, name)
    if raw in (b"", b"null"):
        return {}
    try:
        return _object_decoder.decode(raw)
    except msgspec.DecodeError:
        raise BadRequestError(f"{name} must be an object", param=name) from None


def _number(fields: dict[str, Raw], name: str) -> int | None:
    raw = _raw(fields, name)
    try:
        return msgspec.json.decode(raw, type=int | None) if raw else None
    except msgspec.DecodeError:
        raise BadRequestError(f"{name} must be a whole number", param=name) from None
