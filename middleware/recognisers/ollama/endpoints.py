"""Ollama's own API: chat, generation and embeddings, which streams lines of JSON unless it is told not to."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError, Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import NOTHING, check_limit, check_name, decode_request, with_field
from ducto_redis.middleware.recognisers.ollama.response import OllamaReader
from ducto_redis.middleware.recognisers.prompt import Medium, check_settings, measure_prompt

_MEDIA = (b'"images"',)


class _Options(Struct):
    num_predict: int | None = None


class _OllamaRequest(Struct):
    model: str | None = None
    stream: bool | None = None
    options: _Options | None = None
    images: list[str] | None = None
    messages: Raw = NOTHING
    prompt: Raw = NOTHING
    system: Raw = NOTHING
    tools: Raw = NOTHING
    input: Raw = NOTHING


_decoder = msgspec.json.Decoder(_OllamaRequest)


class Ollama(Recogniser):
    """`POST .../api/chat` and `.../api/generate`.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    operation_type = "chat"

    def __init__(self, *, default_model: str | None = None, image_tokens: int = 5_000) -> None:
        check_settings(image_tokens=image_tokens)
        self._default_model = default_model
        self._image_tokens = image_tokens

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith(("/api/chat", "/api/generate"))

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output."""
        body = decode_request(request.body, _decoder)
        check_name(body.model, "model")
        model = self._default_model if body.model is None else body.model
        images = msgspec.json.encode({"images": body.images}) if body.images else b""
        fields = (body.messages, body.prompt, body.system, body.tools, body.input)
        prompt_parts = [*fields, images]
        prompt = measure_prompt(estimates, model, request.body, prompt_parts, self._find_medium, _MEDIA)
        # Zero and less mean "no limit".
        asked = None if body.options is None else body.options.num_predict
        limit = asked if asked is not None and asked > 0 else None
        check_limit(limit, "num_predict")
        if prompt.most_tokens > MAX_COUNT:
            raise BadRequestError("the request is too large")
        return MeteredRequest(
            UsageMetrics(
                model=model,
                input_tokens=prompt.most_tokens,
                output_tokens=self._most_output(limit, estimates),
                operation=self.operation_type,
            ),
            prompt.likely_tokens,
            streams=body.stream is not False,
            output_limit=limit,
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return OllamaReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with `num_predict` lowered."""
        return body if output_limit is None else with_field(body, ("options", "num_predict"), output_limit)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Ollama's errors."""
        return refusal.as_ollama()

    def _most_output(self, limit: int | None, estimates: Estimates) -> int:
        return estimates.output(limit)

    def _find_medium(self, part: dict[str, Any]) -> Medium | None:
        images = part.get("images")
        if not isinstance(images, list) or not images:
            return None
        part["images"] = "".join(image for image in images if isinstance(image, str))
        return Medium(part, "images", len(images) * self._image_tokens)


class OllamaEmbed(Ollama):
    """`POST .../api/embed`.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
    """

    operation_type = "embeddings"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith("/api/embed")

    def _most_output(self, limit: int | None, estimates: Estimates) -> int:
        return 0
