"""Anthropic Messages, plain and streamed, and the counting of their tokens."""

import re
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError, Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.anthropic.response import MessageReader
from ducto_redis.middleware.recognisers.anthropic.thinking import may_reason, with_fitting_budget
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.json_request import (
    NOTHING,
    check_limit,
    check_name,
    decode_request,
    with_field,
)
from ducto_redis.middleware.recognisers.prompt import Medium, check_settings, measure_prompt

_VERTEX = re.compile(r"/publishers/anthropic/models/([^/:]+):(?:raw|streamRaw)Predict$")
_VERTEX_COUNTING = "/publishers/anthropic/models/count-tokens:rawPredict"
_MEDIA = (b'"source"',)


class _MessagesRequest(Struct):
    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    thinking: dict[str, Any] | None = None
    speed: str | None = None
    messages: Raw = NOTHING
    system: Raw = NOTHING
    tools: list[dict[str, Any]] | None = None


_decoder = msgspec.json.Decoder(_MessagesRequest)


class AnthropicMessages(Recogniser):
    """`POST .../v1/messages`, and the same on Vertex AI (`...:rawPredict`, `...:streamRawPredict`).

    The priced model is the one that the request names, in its body or its path.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
        file_tokens: the most tokens of a document given by its id or address. A document inside the request holds a
            token per byte.
        server_tool_uses: the uses to hold for of each of the provider's own tools, such as web search, that sets no
            `max_uses`.
        server_tool_tokens: input tokens that are held for the results of each such use.
    """

    operation_type = "chat"
    path_end = "/v1/messages"

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
        return super().matches(path) or (_VERTEX.search(path) is not None and not path.endswith(_VERTEX_COUNTING))

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, the results of tools, and the most output."""
        body = decode_request(request.body, _decoder)
        if body.max_tokens is not None:
            check_limit(body.max_tokens, "max_tokens", least=0)
        model = body.model or self.model_in_path(request.path) or self._default_model
        check_name(model, "model")
        prompt_parts: list[bytes | Raw] = [body.messages, body.system]
        uses = searches = 0
        if body.tools:
            prompt_parts.append(msgspec.json.encode(body.tools))
            uses, searches = self._server_tools(body.tools)
        prompt = measure_prompt(estimates, model, request.body, prompt_parts, self._find_medium, _MEDIA)
        input_tokens = prompt.most_tokens + uses * self._server_tool_tokens
        if input_tokens > MAX_COUNT:
            raise BadRequestError("the limits on tool uses are too large", param="tools")
        # Writing to the cache costs more than plain input. A token per byte covers that; counted ones do not.
        writes_cache = estimates.count_tokens is not None and b'"cache_control"' in request.body
        estimate = UsageMetrics(
            model=model,
            input_tokens=input_tokens,
            output_tokens=estimates.output(body.max_tokens),
            cache_write_tokens=input_tokens if writes_cache else 0,
            cache_write_1h_tokens=input_tokens if writes_cache and b'"1h"' in request.body else 0,
            web_search_calls=searches,
            operation=self.operation_type,
            service_tier="fast" if body.speed == "fast" else None,
        )
        return MeteredRequest(
            estimate,
            prompt.likely_tokens,
            streams=self.streams(body.stream, request.path),
            output_limit=body.max_tokens,
            may_reason_hidden=may_reason(body.thinking, model),
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the message, plain or streamed."""
        return MessageReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with `max_tokens` lowered, and with it the budget for thinking, which must lie below."""
        if output_limit is None:
            return body
        body = with_field(body, ("max_tokens",), output_limit)
        return with_fitting_budget(body, ("thinking",), _decoder.decode(body).thinking, output_limit)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Anthropic's errors."""
        return refusal.as_anthropic()

    def model_in_path(self, path: str) -> str | None:
        """Return the model that a path names; None where it names none."""
        vertex = _VERTEX.search(path)
        return None if vertex is None else unquote(vertex[1])

    def streams(self, body_says: bool | None, path: str) -> bool:
        """Tell whether a request asks for its response in pieces."""
        return bool(body_says) or path.endswith(":streamRawPredict")

    def _server_tools(self, tools: list[dict[str, Any]]) -> tuple[int, int]:
        """Return how often the provider's own tools may be used, and how often of that to search the web."""
        uses = searches = 0
        for tool in tools:
            kind = tool.get("type")
            if not isinstance(kind, str) or not kind.startswith(("web_search_", "web_fetch_", "advisor_")):
                continue
            limit = tool.get("max_uses")
            most = limit if type(limit) is int and 0 <= limit <= MAX_COUNT else self._server_tool_uses
            uses += most
            searches += most if kind.startswith("web_search_") else 0
        return uses, searches

    def _find_medium(self, part: dict[str, Any]) -> Medium | None:
        match part:
            case {"type": "image", "source": {"type": "base64", "data": str()} as source}:
                return Medium(source, "data", self._image_tokens)
            case {"type": "image", "source": dict(source)}:
                return Medium(source, "url", self._image_tokens)
            case {"type": "document", "source": {"type": "base64", "data": str(data)} as source}:
                return Medium(source, "data", len(data))
            case {"type": "document", "source": {"type": "url" | "file"} as source}:
                return Medium(source, "url", self._file_tokens)
            case _:
                return None


class AnthropicTokenCounting(FreeRecogniser):
    """`POST .../v1/messages/count_tokens`, which is free."""

    path_end = "/v1/messages/count_tokens"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return super().matches(path) or path.endswith(_VERTEX_COUNTING)
