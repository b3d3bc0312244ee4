"""Bedrock's Converse, plain and streamed, and the counting of its tokens."""

import re
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError, Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.anthropic.thinking import may_reason, with_fitting_budget
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.bedrock.converse_response import ConverseReader
from ducto_redis.middleware.recognisers.bedrock.converse_usage import service_tier
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.json_request import (
    NOTHING,
    check_limit,
    check_name,
    decode_request,
    with_field,
)
from ducto_redis.middleware.recognisers.prompt import Medium, check_settings, measure_prompt

# A model may be named by an ARN, which has slashes.
_CONVERSE = re.compile(r"/model/(.+)/converse(-stream)?$")
_MEDIA = (b'"source"',)


class _InferenceConfig(Struct):
    max_tokens: int | None = msgspec.field(default=None, name="maxTokens")


class _ConverseRequest(Struct, rename="camel"):
    inference_config: _InferenceConfig | None = None
    service_tier: dict[str, Any] | None = None
    additional_model_request_fields: dict[str, Any] | None = None
    messages: Raw = NOTHING
    system: Raw = NOTHING
    tool_config: Raw = NOTHING


_decoder = msgspec.json.Decoder(_ConverseRequest)


class BedrockConverse(Recogniser):
    """`POST .../model/{model}/converse` and `.../converse-stream`.

    The priced model is the one in the path.

    Args:
        default_model: the priced model on a path of `routes`, which names none.
        image_tokens: the most tokens of one image.
        file_tokens: the most tokens of a document or a film. A document inside the request holds a token per byte.
    """

    operation_type = "chat"

    def __init__(
        self, *, default_model: str | None = None, image_tokens: int = 5_000, file_tokens: int = 20_000
    ) -> None:
        check_settings(image_tokens=image_tokens, file_tokens=file_tokens)
        self._default_model = default_model
        self._image_tokens = image_tokens
        self._file_tokens = file_tokens

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _CONVERSE.search(path) is not None

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output."""
        body = decode_request(request.body, _decoder)
        named = _CONVERSE.search(request.path)
        model = self._default_model if named is None else unquote(named[1])
        check_name(model, "model")
        limit = None if body.inference_config is None else body.inference_config.max_tokens
        check_limit(limit, "maxTokens")
        tier = service_tier({"serviceTier": body.service_tier})
        if not isinstance(tier, str | None):
            raise BadRequestError("the type of serviceTier must be a string", param="serviceTier")
        check_name(tier, "serviceTier")
        prompt_parts = [body.messages, body.system, body.tool_config]
        prompt = measure_prompt(estimates, model, request.body, prompt_parts, self._find_medium, _MEDIA)
        if prompt.most_tokens > MAX_COUNT:
            raise BadRequestError("the request is too large")
        # Writing to the cache costs more than plain input. A token per byte covers that; counted ones do not.
        writes_cache = estimates.count_tokens is not None and b'"cachePoint"' in request.body
        return MeteredRequest(
            UsageMetrics(
                model=model,
                input_tokens=prompt.most_tokens,
                output_tokens=estimates.output(limit),
                cache_write_tokens=prompt.most_tokens if writes_cache else 0,
                cache_write_1h_tokens=prompt.most_tokens if writes_cache and b'"1h"' in request.body else 0,
                operation=self.operation_type,
                service_tier=tier,
            ),
            prompt.likely_tokens,
            streams=named is not None and named[2] is not None,
            output_limit=limit,
            may_reason_hidden=_may_reason(body.additional_model_request_fields or {}, model),
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return ConverseReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with `maxTokens` lowered, and with it the budget for thinking of Anthropic's models."""
        if output_limit is None:
            return body
        body = with_field(body, ("inferenceConfig", "maxTokens"), output_limit)
        thinking = (_decoder.decode(body).additional_model_request_fields or {}).get("thinking")
        if not isinstance(thinking, dict):
            return body
        return with_fitting_budget(body, ("additionalModelRequestFields", "thinking"), thinking, output_limit)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Bedrock's errors."""
        return refusal.as_message()

    def refused(self, refusal: Refusal) -> Refusal:
        """Return a refusal with the header by which clients of AWS tell errors apart."""
        return refusal.for_bedrock()

    def _find_medium(self, part: dict[str, Any]) -> Medium | None:
        for kind, most_tokens in (("image", self._image_tokens), ("video", self._file_tokens), ("document", None)):
            inside = part.get(kind)
            source = inside.get("source") if isinstance(inside, dict) else None
            if not isinstance(source, dict) or "text" in source or "content" in source:
                continue
            data = source.get("bytes")
            if most_tokens is None:
                most_tokens = len(data) if isinstance(data, str) else self._file_tokens
            return Medium(source, "bytes", most_tokens)
        return None


class BedrockTokenCounting(FreeRecogniser):
    """`POST .../model/{model}/count-tokens`, which is free."""

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return "/model/" in path and path.endswith("/count-tokens")


def _may_reason(fields: dict[str, Any], model: str | None) -> bool:
    thinking = fields.get("thinking")
    asks = any("reasoning" in name.lower() for name in fields)  # as other models' fields are called
    return asks or may_reason(thinking if isinstance(thinking, dict) else None, model)
