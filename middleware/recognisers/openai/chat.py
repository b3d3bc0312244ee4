"""OpenAI Chat Completions, plain and streamed, and the many APIs of the same shape."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import NOTHING, check_limit, check_name, decode_request
from ducto_redis.middleware.recognisers.model_names import is_one_of
from ducto_redis.middleware.recognisers.openai.chat_media import MARKS, ChatMedia
from ducto_redis.middleware.recognisers.openai.chat_response import ChatResponseReader
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.openai.stream_options import (
    StreamRequest,
    asks_for_usage,
    with_lower_limit,
    with_usage_asked,
)
from ducto_redis.middleware.recognisers.prompt import check_settings, measure_prompt

_MOST_CHOICES = 1024

REASONING_MODELS = ("o[1-9]*", "gpt-[5-9]*", "codex-*", "gemini-2.5*", "gemini-[3-9]*", "grok-[4-9]*")
"""Models that charge for reasoning which a chat completion does not show."""

SEARCHING_MODELS = ("*-search-preview*", "*-search-api*")
"""Models that search the web in every request, which is charged by the call."""


class _ChatRequest(Struct):
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    service_tier: str | None = None
    stream: Any = None
    stream_options: Any = UNSET
    reasoning_effort: Any = None
    web_search_options: Any = None
    modalities: Any = None
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    functions: Raw = NOTHING
    response_format: Raw = NOTHING
    prediction: Raw = NOTHING


_decoder = msgspec.json.Decoder(_ChatRequest)


class OpenAIChat(Recogniser):
    """`POST .../chat/completions`.

    The priced model is the one that the request names, not the one that responds.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
        image_tokens: the most tokens of one image. The default covers images of up to 2560x1440 for the
            models of OpenAI, Anthropic and Google but gpt-4o-mini, where an image counts up to 48,169.
        file_tokens: the most tokens of a file given by its id or address. A file inside the request holds a token per
            byte.
        ask_for_usage: adds `stream_options.include_usage` to a request for a stream that lacks it, and hides the chunk
            with the usage from the client. Turn it off for providers that refuse the field.
        rest_is_reasoning: charges a `total_tokens` above prompt and completion as reasoning that they leave out, as
            from Gemini's endpoint of this shape.
        reasoning_models: names, or patterns such as "o3*", of models that reason without showing it. A prefix up
            to the last slash of a request's model does not count.
        searching_models: the same for models that search the web in every request.
    """

    operation_type = "chat"
    path_end = "/chat/completions"

    def __init__(
        self,
        *,
        default_model: str | None = None,
        image_tokens: int = 5_000,
        file_tokens: int = 20_000,
        ask_for_usage: bool = True,
        rest_is_reasoning: bool = False,
        reasoning_models: Sequence[str] = REASONING_MODELS,
        searching_models: Sequence[str] = SEARCHING_MODELS,
    ) -> None:
        check_settings(image_tokens=image_tokens, file_tokens=file_tokens)
        for name, patterns in (("reasoning_models", reasoning_models), ("searching_models", searching_models)):
            if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
                raise ConfigError(f"{name} must be a list of names or patterns, not {patterns!r}")
        self._default_model = default_model
        self._media = ChatMedia(image_tokens, file_tokens)
        self._ask_for_usage = ask_for_usage
        self._rest_is_reasoning = rest_is_reasoning
        self._reasoning_models = tuple(reasoning_models)
        self._searching_models = tuple(searching_models)

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output, for each of `n` choices."""
        body = decode_request(request.body, _decoder)
        model, tier, limit = body.model, body.service_tier, body.max_tokens
        if limit is not None and not 1 <= limit <= MAX_COUNT:
            check_limit(limit, "max_tokens")
        if (other := body.max_completion_tokens) is not None:
            check_limit(other, "max_completion_tokens")
            limit = other if limit is None else max(limit, other)
        answers = 1 if body.n is None else body.n
        if not 1 <= answers <= _MOST_CHOICES:
            raise BadRequestError(f"n must be between 1 and {_MOST_CHOICES}", param="n")
        if tier is not None:
            check_name(tier, "service_tier")
        if model is None:
            model = model_of(None, request.path, self._default_model)
        else:
            check_name(model, "model")
        parts = (body.messages, body.tools, body.functions, body.response_format)
        prompt = measure_prompt(estimates, model, request.body, parts, self._media.find, MARKS)
        # Rejected tokens of a predicted output are charged as output, beside the limit.
        prediction = 0 if (predicted := bytes(body.prediction)) == b"null" else len(predicted)
        most_output = (estimates.output(limit) + prediction) * answers
        if prompt.most_tokens > MAX_COUNT or most_output > MAX_COUNT:
            raise BadRequestError("the token limits are too large", param="max_tokens")
        streams = body.stream is True
        searches = body.web_search_options is not None or is_one_of(model, self._searching_models)
        effort = body.reasoning_effort
        reasons = is_one_of(model, self._reasoning_models) if effort is None else effort != "none"
        return StreamRequest(
            UsageMetrics(
                model=model,
                input_tokens=prompt.most_tokens,
                output_tokens=most_output,
                web_search_calls=1 if searches else 0,
                operation=self.operation_type,
                service_tier=tier,
            ),
            counted_input_tokens=prompt.likely_tokens,
            streams=streams,
            answers=answers,
            output_limit=limit,
            may_reason_hidden=reasons,
            # Sound, pictures and rejected predictions cannot be counted as they come.
            holds_worst_case=bool(prediction) or (body.modalities is not None and body.modalities != ["text"]),
            adds_usage=self._ask_for_usage and streams and not asks_for_usage(body.stream_options),
            has_stream_options=body.stream_options is not UNSET,
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return ChatResponseReader(request, estimates, rest_is_reasoning=self._rest_is_reasoning)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the request that asks for its usage, and sets no higher limit than the account can pay."""
        if output_limit is not None:
            # Models of OpenAI that reason refuse the older name, most other providers know no other.
            name = "max_completion_tokens" if request.may_reason_hidden else "max_tokens"
            body = with_lower_limit(body, ("max_completion_tokens", "max_tokens"), output_limit, name)
        asks = isinstance(request, StreamRequest) and request.adds_usage
        return with_usage_asked(body, request) if asks else body
