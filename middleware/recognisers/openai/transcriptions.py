"""Speech to text in OpenAI's shape: transcriptions and translations of a file with sound."""

import re
from typing import Any

import msgspec

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import decode_request
from ducto_redis.middleware.recognisers.multipart import is_form, read_form
from ducto_redis.middleware.recognisers.openai.media_usage import read_token_usage, whole_seconds
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.prompt import check_settings, measure_prompt
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode
from ducto_redis.middleware.sse import ServerSentEvent

_PATHS = ("/audio/transcriptions", "/audio/translations")
# OpenAI's models hear 10 tokens a second, and nobody speaks more than that.
_TOKENS_PER_SECOND = 10
_LIKELY_BYTES_PER_SECOND = 16_000
_LAST_TIME = re.compile(rb"--> *(?:(\d+):)?(\d+):(\d+)[.,](\d+)")

_decoder = msgspec.json.Decoder(dict[str, Any])


class _Request(MeteredRequest, frozen=True):
    likely_seconds: int = 0


class OpenAITranscriptions(Recogniser):
    """`POST .../audio/transcriptions` and `.../audio/translations`.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
        bytes_per_second: the fewest bytes of a second of sound, which bound its length. The default is the least that
            MP3 allows. The length of a WAV file is read from it.
    """

    operation_type = "transcription"
    path_end = "/audio/transcriptions"

    def __init__(self, *, default_model: str | None = None, bytes_per_second: int = 1_000) -> None:
        check_settings(bytes_per_second=bytes_per_second)
        self._default_model = default_model
        self._bytes_per_second = max(1, bytes_per_second)

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith(_PATHS)

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: the longest that the sound can be, in seconds and in tokens, and its text."""
        if is_form(request):
            form = read_form(request)
            fields: dict[str, Any] = dict(form.fields)
            sounds = [file.content for files in form.files.values() for file in files]
        else:  # of other providers: an address, or base64
            fields, sounds = decode_request(request.body, _decoder), [memoryview(request.body)]
        model = model_of(fields.get("model") or None, request.path, self._default_model)
        prompts = [text.encode() for text in (fields.get("prompt"),) if isinstance(text, str) and text]
        prompt = measure_prompt(estimates, model, b" ".join(prompts), prompts)
        most = likely = 0
        for sound in sounds:
            length = _length_of_wav(sound)
            most += -(-len(sound) // self._bytes_per_second) if length is None else length
            likely += -(-len(sound) // _LIKELY_BYTES_PER_SECOND) if length is None else length
        heard = most * _TOKENS_PER_SECOND
        if max(prompt.most_tokens + heard, most) > MAX_COUNT:
            raise BadRequestError("the file is too large", param="file")
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens + heard,
            audio_input_tokens=heard,
            output_tokens=min(estimates.output(None), heard),
            audio_seconds=most,
            operation=self.operation_type,
        )
        streams = fields.get("stream") in (True, "true", "True", "1")
        counted = prompt.likely_tokens + likely * _TOKENS_PER_SECOND
        return _Request(estimate, counted, streams=streams, answers=0, likely_seconds=likely)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response: JSON, plain text, subtitles, or a stream."""
        return TranscriptionReader(request, estimates)


class TranscriptionReader(UsageReader):
    """A reader of one transcript. One without usage is charged by its length, which it or the file states."""

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._seconds: int | None = None

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = decode(body)
        if not isinstance(response, dict):
            self.deliver(body.decode(errors="replace"))
            self._seconds = _end_of_subtitles(body)
            return
        self.failed = bool(response.get("error"))
        if isinstance(text := response.get("text"), str):
            self.deliver(text)
        self._seconds = whole_seconds(response.get("duration"))
        self._take_report(response)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event: a piece of the text, or all of it with the usage."""
        response = decode(event.data)
        if not isinstance(response, dict):
            return
        if response.get("error"):
            self.failed = True
        if isinstance(text := response.get("delta"), str):
            self.deliver(text)
        self._take_report(response)
        if response.get("type") == "transcript.text.done":
            self.done = True

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none."""
        request = self.request
        seconds, tokens = self._seconds, request.counted_input_tokens
        likely = request.likely_seconds if isinstance(request, _Request) else 0
        if seconds is None:
            seconds = likely
        else:
            tokens += (seconds - likely) * _TOKENS_PER_SECOND
        heard = seconds * _TOKENS_PER_SECOND
        return UsageMetrics(
            input_tokens=max(tokens, heard),
            audio_input_tokens=heard,
            output_tokens=self.delivered_tokens,
            audio_seconds=seconds,
        )

    def _take_report(self, response: dict[str, Any]) -> None:
        report = response.get("usage")
        if report is None:
            return
        try:
            usage, whole = read_token_usage(report)
            self.take_report(usage, whole=whole)
        except InvalidReportError:
            self.invalid = True


def _length_of_wav(sound: memoryview) -> int | None:
    """Return the seconds of a WAV file, rounded up; None for anything else."""
    head = bytes(sound[:36])
    rate = int.from_bytes(head[28:32], "little")
    if len(head) < 36 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or rate < 1:
        return None
    return -(-len(sound) // rate)


def _end_of_subtitles(text: bytes) -> int | None:
    """Return the second at which the last subtitle ends, rounded up; None for text that has none."""
    times = _LAST_TIME.findall(text)
    if not times:
        return None
    hours, minutes, seconds, fraction = (int(number or 0) for number in times[-1])
    return whole_seconds(hours * 3600 + minutes * 60 + seconds + bool(fraction))
