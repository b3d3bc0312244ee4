"""OpenAI Chat Completions, plain and streamed, and the many APIs of the same shape."""

import msgspec
from msgspec import Raw, Struct
from starlette.types import Scope

from ducto_redis.engine.ids import check_id
from ducto_redis.errors import ConfigError, InvalidIdError
from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.answers import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import (
    AnswerReader,
    MeteredRequest,
    Recogniser,
)
from ducto_redis.middleware.recognisers.openai_chat_answer import ChatAnswerReader
from ducto_redis.middleware.recognisers.openai_chat_media import find_media

_MOST_CHOICES = 1024
_NOTHING = Raw(b"")


class _ChatRequest(Struct):
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    service_tier: str | None = None
    messages: Raw = _NOTHING
    tools: Raw = _NOTHING
    functions: Raw = _NOTHING
    response_format: Raw = _NOTHING
    prediction: Raw = _NOTHING


_decoder = msgspec.json.Decoder(_ChatRequest)


class OpenAIChat(Recogniser):
    """`POST .../chat/completions`.

    The model that is priced is the one that the request names, whatever model answers.

    Args:
        default_model: the model that is priced where a request names none.
        image_tokens: the most tokens that one image may take. The default covers the models of OpenAI, Anthropic and
            Google but gpt-4o-mini, where an image counts up to 48,169.
        file_tokens: the most tokens that a file takes which is given by its id or address. One that lies in the
            request is held at a token per byte.
    """

    operation_type = "chat"
    path_end = "/chat/completions"

    def __init__(
        self, *, default_model: str | None = None, image_tokens: int = 5_000, file_tokens: int = 20_000
    ) -> None:
        for name, value in (("image_tokens", image_tokens), ("file_tokens", file_tokens)):
            if type(value) is not int or not 0 <= value <= MAX_COUNT:
                raise ConfigError(f"{name} must be a number of tokens, 0 or more, not {value!r}")
        self._default_model = default_model
        self._image_tokens = image_tokens
        self._file_tokens = file_tokens

    def read_request(self, body: bytes, scope: Scope, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output, for each of `n` choices."""
        request = _decode(body)
        model = self._default_model if request.model is None else request.model
        media = find_media(bytes(request.messages), self._image_tokens, self._file_tokens)
        prompt = [bytes(part) for part in (request.messages, request.tools, request.functions, request.response_format)]
        prompt_size = sum(map(len, prompt)) or len(body)

        def prompt_text() -> str:
            parts = [media.without_media, *prompt[1:]] if any(prompt) else [body]
            return "\n".join(part.decode() for part in parts if part)

        estimate = UsageMetrics(
            model=model,
            # The whole body bounds every field that an application may put into its prompt.
            input_tokens=estimates.held_tokens(model, len(body) - media.size, prompt_text) + media.most_tokens,
            output_tokens=self._most_output(request, estimates),
            operation=self.operation_type,
            service_tier=request.service_tier,
        )
        if max(estimate.input_tokens, estimate.output_tokens) > MAX_COUNT:
            raise BadRequestError("the limits on tokens are too large", param="max_tokens")
        counted = estimates.charged_tokens(model, prompt_size - media.size, prompt_text) + media.likely_tokens
        return MeteredRequest(estimate, counted)

    def read_answer(self, request: MeteredRequest, estimates: Estimates) -> AnswerReader:
        """Return a reader for the answer, plain or streamed."""
        return ChatAnswerReader(request, estimates)

    def _most_output(self, request: _ChatRequest, estimates: Estimates) -> int:
        limits = [limit for limit in (request.max_completion_tokens, request.max_tokens) if limit is not None]
        # Rejected tokens of a predicted output are charged as output, beside the limit.
        prediction = len(bytes(request.prediction))
        return (estimates.output(max(limits) if limits else None) + prediction) * (request.n or 1)


def _decode(body: bytes) -> _ChatRequest:
    try:
        body.decode()
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequestError(str(error), param=_field(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}", code="invalid_json") from None
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = getattr(request, name)
        most = _MOST_CHOICES if name == "n" else MAX_COUNT
        if value is not None and not 1 <= value <= most:
            raise BadRequestError(f"{name} must be between 1 and {most}", param=name)
    for name in ("model", "service_tier"):
        value = getattr(request, name)
        try:
            if value is not None:
                check_id(value, name)
        except InvalidIdError as error:
            raise BadRequestError(str(error), param=name) from None
    return request


def _field(message: str) -> str | None:
    return message.rpartition("`$.")[2].rstrip("`") if "`$." in message else None
