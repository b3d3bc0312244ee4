"""Text to speech in OpenAI's shape: sound as bytes, or as a stream of events."""

from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import decode_request
from ducto_redis.middleware.recognisers.openai.media_usage import read_token_usage
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.prompt import measure_prompt
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import UsageReader
from ducto_redis.middleware.sse import ServerSentEvent

# gpt-4o-mini-tts speaks 6 tokens for a token of text, of which English has one in 4 to 5 characters.
_MOST_TOKENS_PER_CHARACTER = 4
_LIKELY_TOKENS_PER_3_CHARACTERS = 4


class _SpeechRequest(Struct):
    input: str = ""
    instructions: str | None = None
    model: str | None = None
    stream_format: str | None = None


class _Event(Struct):
    """The fields of an event that are read; the sound, nearly all of its bytes, is skipped."""

    type: Any = None
    usage: Any = None
    error: Any = None


_decoder = msgspec.json.Decoder(_SpeechRequest)
_event_decoder = msgspec.json.Decoder(_Event)


class OpenAISpeech(Recogniser):
    """`POST .../audio/speech`.

    Its characters are known before it runs. Only a stream of events reports its tokens.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
    """

    operation_type = "speech"
    path_end = "/audio/speech"

    def __init__(self, *, default_model: str | None = None) -> None:
        self._default_model = default_model

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: the characters of the text, and four tokens of sound for each."""
        body = decode_request(request.body, _decoder)
        if not body.input:
            raise BadRequestError("input must not be empty", param="input")
        model = model_of(body.model, request.path, self._default_model)
        texts = [text.encode(errors="surrogatepass") for text in (body.input, body.instructions) if text]
        prompt = measure_prompt(estimates, model, b"\n".join(texts), texts)
        spoken = len(body.input) * _MOST_TOKENS_PER_CHARACTER
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens,
            output_tokens=spoken,
            audio_output_tokens=spoken,
            input_characters=len(body.input),
            operation=self.operation_type,
        )
        # The cost of sound is known only at its end.
        streams = body.stream_format == "sse"
        return MeteredRequest(estimate, prompt.likely_tokens, streams=streams, answers=0, holds_worst_case=True)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response: sound, or a stream of events."""
        return SpeechReader(request, estimates)


class SpeechReader(UsageReader):
    """A reader of one response. Sound reports no usage: the characters are charged, and tokens for them."""

    report_fields = (b"usage", b"error")

    def document(self, body: bytes) -> None:
        """Take the whole response, which is sound."""
        response = _read(body) if body.startswith(b"{") else _Event()
        self.failed = bool(response.error)
        self._take_report(response)

    def event(self, event: ServerSentEvent) -> None:
        """Take an event that reports something."""
        response = _read(event.data)
        self.failed = self.failed or bool(response.error)
        self._take_report(response)
        self.done = self.done or response.type == "speech.audio.done"

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none."""
        characters = self.request.estimate.input_characters
        spoken = -(-characters * _LIKELY_TOKENS_PER_3_CHARACTERS // 3)
        return UsageMetrics(
            input_tokens=self.request.counted_input_tokens,
            output_tokens=spoken,
            audio_output_tokens=spoken,
            input_characters=characters,
        )

    def _take_report(self, response: _Event) -> None:
        if response.usage is None:
            return
        try:
            usage, whole = read_token_usage(response.usage, output_part="audio_output_tokens")
        except InvalidReportError:
            self.invalid = True
            return
        usage = msgspec.structs.replace(usage, input_characters=self.request.estimate.input_characters)
        self.take_report(usage, whole=whole)


def _read(text: bytes) -> _Event:
    try:
        return _event_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Event()
