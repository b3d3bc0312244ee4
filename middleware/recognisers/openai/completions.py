"""OpenAI's older Completions, plain and streamed, which many servers of open models still offer."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import NOTHING, check_limit, decode_request
from ducto_redis.middleware.recognisers.openai.choices_response import ChoicesReader
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.openai.stream_options import (
    StreamRequest,
    asks_for_usage,
    with_lower_limit,
    with_usage_asked,
)
from ducto_redis.middleware.recognisers.openai.text_input import measure_input
from ducto_redis.middleware.recognisers.prompt import check_settings

_MOST_CHOICES = 1024


class _CompletionRequest(Struct):
    model: str | None = None
    prompt: Raw = NOTHING
    suffix: Raw = NOTHING
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    echo: Any = None
    stream: Any = None
    stream_options: Any = UNSET


_decoder = msgspec.json.Decoder(_CompletionRequest)


class _Request(StreamRequest, frozen=True):
    echoes: bool = False


class OpenAICompletions(Recogniser):
    """`POST .../completions`, which is not that of chats.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
        default_max_tokens: output tokens of one choice where a request sets no limit: the API's own default.
        ask_for_usage: as of `OpenAIChat`.
    """

    operation_type = "completion"
    path_end = "/completions"

    def __init__(
        self, *, default_model: str | None = None, default_max_tokens: int = 16, ask_for_usage: bool = True
    ) -> None:
        check_settings(default_max_tokens=default_max_tokens)
        self._default_model = default_model
        self._default_max_tokens = default_max_tokens
        self._ask_for_usage = ask_for_usage

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return super().matches(path) and not path.rstrip("/").endswith("/chat/completions")

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: for every prompt all choices that are made, shown (`n`) or not (`best_of`)."""
        body = decode_request(request.body, _decoder)
        _check(body)
        model = model_of(body.model, request.path, self._default_model)
        prompt, prompts = measure_input(estimates, model, request.body, body.prompt)
        made = max(body.n or 1, body.best_of or 1) * prompts
        limit = self._default_max_tokens if body.max_tokens is None else body.max_tokens
        most_output = estimates.output(limit) * made
        # A suffix is read like a prompt, once for each.
        most_input = prompt.most_tokens + len(bytes(body.suffix)) * prompts
        if max(most_input, most_output) > MAX_COUNT:
            raise BadRequestError("the token limits are too large", param="max_tokens")
        streams = body.stream is True
        return _Request(
            UsageMetrics(
                model=model, input_tokens=most_input, output_tokens=most_output, operation=self.operation_type
            ),
            counted_input_tokens=prompt.likely_tokens,
            streams=streams,
            answers=made,
            output_limit=limit,
            # Choices that are made but not shown cannot be counted as they come.
            holds_worst_case=made > (body.n or 1) * prompts,
            adds_usage=self._ask_for_usage and streams and not asks_for_usage(body.stream_options),
            has_stream_options=body.stream_options is not UNSET,
            echoes=body.echo is True,
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return CompletionResponseReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the request that asks for its usage, and sets no higher limit than the account can pay."""
        if output_limit is not None:
            body = with_lower_limit(body, ("max_tokens",), output_limit, "max_tokens")
        return with_usage_asked(body, request)


class CompletionResponseReader(ChoicesReader):
    """A reader of one completion: a JSON document, or the chunks of a stream."""

    chunk_object = "text_completion"

    def take_choice(self, choice: dict[str, Any]) -> None:
        """Deliver a choice's text, and reasoning where a server gives it beside the text."""
        for name in ("text", "reasoning", "reasoning_content"):
            if isinstance(text := choice.get(name), str):
                self.deliver(text)

    def cut_choice(self, index: int) -> dict[str, object]:
        """Return a choice of a chunk that ends it for want of tokens."""
        return {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none. A prompt that is echoed is no output."""
        counted = super().counted_usage()
        if not (isinstance(self.request, _Request) and self.request.echoes):
            return counted
        return structs.replace(counted, output_tokens=max(0, counted.output_tokens - counted.input_tokens))


def _check(request: _CompletionRequest) -> None:
    check_limit(request.max_tokens, "max_tokens", least=0)
    for name, value in (("n", request.n), ("best_of", request.best_of)):
        if value is not None and not 1 <= value <= _MOST_CHOICES:
            raise BadRequestError(f"{name} must be between 1 and {_MOST_CHOICES}", param=name)
