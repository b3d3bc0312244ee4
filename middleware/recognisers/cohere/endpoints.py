"""Cohere: chat, embeddings and rankings."""

from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError, Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.cohere.response import CohereReader
from ducto_redis.middleware.recognisers.json_request import (
    NOTHING,
    check_limit,
    check_name,
    decode_request,
    with_field,
)
from ducto_redis.middleware.recognisers.prompt import Medium, check_settings, measure_prompt

_MEDIA = (b'"image_url"',)
# A search unit is a query with up to 100 documents; long ones count once for every 500 tokens.
_DOCUMENTS_PER_UNIT = 100
_BYTES_PER_DOCUMENT = 2_000


class _Thinking(Struct):
    type: str | None = None


class _ChatRequest(Struct):
    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    thinking: _Thinking | None = None
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    documents: Raw = NOTHING


class _EmbedRequest(Struct):
    model: str | None = None
    texts: list[str] | None = None
    inputs: Raw = NOTHING
    images: list[str] | None = None


class _RerankRequest(Struct):
    model: str | None = None
    query: str = ""
    documents: list[Any] = []


_chat_decoder = msgspec.json.Decoder(_ChatRequest)
_embed_decoder = msgspec.json.Decoder(_EmbedRequest)
_rerank_decoder = msgspec.json.Decoder(_RerankRequest)


class _Cohere(Recogniser):
    """The base of the recognisers of Cohere's routes.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    def __init__(self, *, default_model: str | None = None, image_tokens: int = 5_000) -> None:
        check_settings(image_tokens=image_tokens)
        self._default_model = default_model
        self._image_tokens = image_tokens

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return CohereReader(request, estimates)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Cohere's errors."""
        return refusal.as_message()

    def _model(self, named: str | None) -> str | None:
        check_name(named, "model")
        return self._default_model if named is None else named

    def _find_medium(self, part: dict[str, Any]) -> Medium | None:
        image = part.get("image_url")
        if isinstance(image, dict):
            return Medium(image, "url", self._image_tokens)
        return Medium(part, "image_url", self._image_tokens) if isinstance(image, str) else None


class CohereChat(_Cohere):
    """`POST .../v2/chat`, plain and streamed. It reads version 1 too, where `routes` names it.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    operation_type = "chat"
    path_end = "/v2/chat"

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output."""
        body = decode_request(request.body, _chat_decoder)
        check_limit(body.max_tokens, "max_tokens")
        model = self._model(body.model)
        prompt_parts = [body.messages, body.tools, body.documents]
        prompt = measure_prompt(estimates, model, request.body, prompt_parts, self._find_medium, _MEDIA)
        thinks = "reasoning" in (model or "") if body.thinking is None else body.thinking.type != "disabled"
        return MeteredRequest(
            _usage(model, prompt.most_tokens, estimates.output(body.max_tokens), self.operation_type),
            prompt.likely_tokens,
            streams=bool(body.stream),
            output_limit=body.max_tokens,
            may_reason_hidden=thinks,
        )

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with `max_tokens` lowered."""
        return body if output_limit is None else with_field(body, ("max_tokens",), output_limit)


class CohereEmbed(_Cohere):
    """`POST .../v2/embed`, and `.../v1/embed`.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    operation_type = "embeddings"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith(("/v1/embed", "/v2/embed"))

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as input."""
        body = decode_request(request.body, _embed_decoder)
        model = self._model(body.model)
        texts = msgspec.json.encode(body.texts) if body.texts else b""
        images = msgspec.json.encode([{"image_url": image} for image in body.images or ()])
        prompt = measure_prompt(estimates, model, request.body, [body.inputs, texts, images], self._find_medium, _MEDIA)
        return MeteredRequest(_usage(model, prompt.most_tokens, 0, self.operation_type), prompt.likely_tokens)


class CohereRerank(_Cohere):
    """`POST .../v2/rerank`, and `.../v1/rerank`: priced by `search_queries`, which are Cohere's search units.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    operation_type = "rerank"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith(("/v1/rerank", "/v2/rerank"))

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the search units that so many documents may take."""
        body = decode_request(request.body, _rerank_decoder)
        model = self._model(body.model)
        documents = len(body.documents) + len(request.body) // _BYTES_PER_DOCUMENT
        units = max(1, -(-documents // _DOCUMENTS_PER_UNIT))
        # Other providers' rankings of this shape charge tokens instead.
        prompt = measure_prompt(estimates, model, request.body, [])
        return MeteredRequest(
            _usage(model, prompt.most_tokens, 0, self.operation_type, search_queries=units), prompt.likely_tokens
        )


def _usage(model: str | None, input_tokens: int, output_tokens: int, operation: str, **more: int) -> UsageMetrics:
    if max(input_tokens, output_tokens) > MAX_COUNT:
        raise BadRequestError("the token limits are too large", param="max_tokens")
    usage = UsageMetrics(model=model, input_tokens=input_tokens, output_tokens=output_tokens, operation=operation)
    return structs.replace(usage, **more)
