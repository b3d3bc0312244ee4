"""OpenAI Responses, plain, streamed and in the background, and the APIs of the same shape."""

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, structs

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.json_request import (
    NOTHING,
    check_limit,
    check_name,
    decode_request,
    with_field,
)
from ducto_redis.middleware.recognisers.model_names import is_one_of
from ducto_redis.middleware.recognisers.openai.responses_media import MARKS, media_finder
from ducto_redis.middleware.recognisers.openai.responses_response import ResponsesReader
from ducto_redis.middleware.recognisers.prompt import check_settings, measure_prompt

_LIKELY_PART = 4
_CONTINUED = re.compile(r"/responses/([^/]+)(/cancel)?$")
_NO_RESPONSES = frozenset({"compact", "input_tokens"})

REASONING_MODELS = ("o[1-9]*", "gpt-[5-9]*", "codex-*", "computer-use-*", "grok-[4-9]*")
"""Models that charge for reasoning which a response does not show."""

# A tool's type, and what UsageMetrics calls the calls of it that the provider makes itself.
_SERVER_TOOLS = (
    ("web_search", "web_search_calls"),
    ("file_search", "file_search_calls"),
    ("code_interpreter", "code_exec_calls"),
    ("shell", "code_exec_calls"),
    ("image_generation", "images"),
    ("mcp", ""),
)


class _Tool(Struct):
    type: str | None = None


class _Reasoning(Struct):
    effort: str | None = None


class _ResponsesRequest(Struct):
    model: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    service_tier: str | None = None
    background: bool | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    reasoning: _Reasoning | None = None
    tools: Raw = NOTHING
    input: Raw = NOTHING
    instructions: Raw = NOTHING
    text: Raw = NOTHING
    conversation: Raw = NOTHING
    prompt: Raw = NOTHING

    @property
    def continues_context(self) -> bool:
        """True where the model also reads what the provider has stored."""
        return (
            self.previous_response_id is not None
            or any(bytes(stored) not in (b"", b"null") for stored in (self.conversation, self.prompt))
            or b'"item_reference"' in bytes(self.input)
        )


_decoder = msgspec.json.Decoder(_ResponsesRequest)
_tools_decoder = msgspec.json.Decoder(list[_Tool])


class OpenAIResponses(Recogniser):
    """`POST .../responses`, and `POST .../responses/compact`.

    A response that runs on in the background is charged by the request that shows it finished: `GET .../responses/{id}`
    or `POST .../responses/{id}/cancel`.

    Args:
        default_model: the priced model of a request that names none.
        image_tokens: the most tokens of one image.
        file_tokens: the most tokens of a file given by its id or address.
        context_tokens: input tokens that are held for context stored by the provider, where a request continues one
            (`previous_response_id`, `conversation`, a stored `prompt`).
        tool_calls: the calls of the provider's own tools to hold for, where a request allows them and does not set
            `max_tool_calls`.
        tool_tokens: input tokens that are held for the results of each such call.
        reasoning_models: names, or patterns such as "o3*", of models that reason without showing it. A prefix up
            to the last slash of a name, or "openai.", does not count.
    """

    operation_type = "chat"
    path_end = "/responses"

    def __init__(
        self,
        *,
        default_model: str | None = None,
        image_tokens: int = 5_000,
        file_tokens: int = 20_000,
        context_tokens: int = 20_000,
        tool_calls: int = 3,
        tool_tokens: int = 10_000,
        reasoning_models: Sequence[str] = REASONING_MODELS,
    ) -> None:
        check_settings(
            image_tokens=image_tokens,
            file_tokens=file_tokens,
            context_tokens=context_tokens,
            tool_calls=tool_calls,
            tool_tokens=tool_tokens,
        )
        self._default_model = default_model
        self._context_tokens = context_tokens
        self._tool_calls = tool_calls
        self._tool_tokens = tool_tokens
        self._reasoning_models = tuple(reasoning_models)
        self._find_medium = media_finder(image_tokens, file_tokens)

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path makes a response, or compacts some."""
        return path.rstrip("/").endswith((self.path_end, "/responses/compact"))

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, stored context, the results of tools, the most output."""
        body = decode_request(request.body, _decoder)
        check_limit(body.max_output_tokens, "max_output_tokens")
        check_limit(body.max_tool_calls, "max_tool_calls", least=0)
        check_name(body.model, "model")
        check_name(body.service_tier, "service_tier")
        model = self._default_model if body.model is None else body.model
        parts = (body.input, body.instructions, body.tools, body.text)
        prompt = measure_prompt(estimates, model, request.body, parts, self._find_medium, MARKS)
        context = self._context_tokens if body.continues_context else 0
        calls, tools = self._server_calls(body)
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens + context + calls * self._tool_tokens,
            output_tokens=estimates.output(body.max_output_tokens),
            operation=self.operation_type,
            service_tier=body.service_tier,
        )
        if max(estimate.input_tokens, estimate.output_tokens) > MAX_COUNT:
            raise BadRequestError("the token limits are too large", param="max_output_tokens")
        return MeteredRequest(
            structs.replace(estimate, **tools),
            prompt.likely_tokens + context // _LIKELY_PART,
            streams=bool(body.stream),
            output_limit=body.max_output_tokens,
            may_reason_hidden=self._may_reason(model, body.reasoning),
            holds_worst_case=bool(body.background),
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response: a response, its stream, or a later look at it."""
        return ResponsesReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body with a lowered `max_output_tokens`, where the account cannot pay for more."""
        return body if output_limit is None else with_field(body, ("max_output_tokens",), output_limit)

    def continued(self, method: str, path: str) -> str | None:
        """Return the id of the response that a request looks at, or cancels."""
        if "/responses/" not in path:
            return None
        found = _CONTINUED.search(path.rstrip("/"))
        if found is None or found[1] in _NO_RESPONSES or method != ("POST" if found[2] else "GET"):
            return None
        return found[1]

    def _server_calls(self, request: _ResponsesRequest) -> tuple[int, dict[str, int]]:
        """Return how many calls of the provider's own tools are held for, and by which measures."""
        if bytes(request.tools) in (b"", b"null"):
            return 0, {}
        types = [tool.type or "" for tool in decode_request(bytes(request.tools), _tools_decoder)]
        names = [name for start, name in _SERVER_TOOLS if any(kind.startswith(start) for kind in types)]
        if not names:
            return 0, {}
        calls = self._tool_calls if request.max_tool_calls is None else request.max_tool_calls
        return calls, {name: calls for name in names if name}

    def _may_reason(self, model: str | None, reasoning: _Reasoning | None) -> bool:
        if reasoning is not None and reasoning.effort is not None:
            return reasoning.effort != "none"
        return is_one_of(model, self._reasoning_models)


class OpenAIResponsesTokenCounting(FreeRecogniser):
    """`POST .../responses/input_tokens`, which costs nothing."""

    path_end = "/responses/input_tokens"
