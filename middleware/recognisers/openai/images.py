"""Pictures in OpenAI's shape: made, edited and varied."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import decode_request
from ducto_redis.middleware.recognisers.multipart import is_form, read_form
from ducto_redis.middleware.recognisers.openai.media_usage import read_token_usage
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.prompt import check_settings, measure_prompt
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode
from ducto_redis.middleware.sse import ServerSentEvent

_PATHS = ("/images/generations", "/images/edits", "/images/variations")
_MOST_IMAGES = 100
_LIKELY_PART = 4
_PROMPT = ("prompt", "negative_prompt")
_ADDED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "reasoning_tokens",
    "image_input_tokens",
    "image_output_tokens",
)
_PICTURES = ("image", "images", "image[]", "mask")

_decoder = msgspec.json.Decoder(dict[str, Any])


class _Answer(Struct):
    """The fields of a response or an event that are read; the pictures, nearly all of its bytes, are skipped."""

    type: Any = None
    data: list[Raw] | None = None
    usage: Any = None
    svg_usage: Any = None
    error: Any = None


_answer_decoder = msgspec.json.Decoder(_Answer)


class OpenAIImages(Recogniser):
    """`POST .../images/generations`, `.../images/edits` and `.../images/variations`, as JSON or as a form.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
        output_tokens: the most tokens of one generated picture. The default covers every size and quality of
            gpt-image-1 (6,240 with its previews), and the larger ones of its successors.
        input_tokens: the most tokens of one picture in the request.
    """

    operation_type = "image"
    path_end = "/images/generations"

    def __init__(
        self, *, default_model: str | None = None, output_tokens: int = 16_000, input_tokens: int = 8_000
    ) -> None:
        check_settings(output_tokens=output_tokens, input_tokens=input_tokens)
        self._default_model = default_model
        self._output_tokens = output_tokens
        self._input_tokens = input_tokens

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return path.rstrip("/").endswith(_PATHS)

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: `n` pictures, the prompt, and the pictures that are given."""
        if is_form(request):
            form = read_form(request)
            fields, given = dict[str, Any](form.fields), sum(map(len, form.files.values()))
        else:
            fields = decode_request(request.body, _decoder)
            given = sum(_pictures(fields.get(name)) for name in _PICTURES)
        model = model_of(fields.get("model") or None, request.path, self._default_model)
        count = _count(fields.get("n"))
        prompts = [msgspec.json.encode(text) for name in _PROMPT if isinstance(text := fields.get(name), str) and text]
        # Only the prompts become text of a model: all else of the request are options and pictures.
        prompt = measure_prompt(estimates, model, b" ".join(prompts), prompts)
        given_tokens, made_tokens = given * self._input_tokens, count * self._output_tokens
        if max(prompt.most_tokens + given_tokens, made_tokens) > MAX_COUNT:
            raise BadRequestError("the request is too large")
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens + given_tokens,
            image_input_tokens=given_tokens,
            output_tokens=made_tokens,
            image_output_tokens=made_tokens,
            images=count,
            operation=self.operation_type,
        )
        likely = prompt.likely_tokens + -(-given_tokens // _LIKELY_PART)
        streams = fields.get("stream") in (True, "true")
        # A picture costs the same whether its stream is read to the end or not, and is not seen to grow.
        return MeteredRequest(estimate, likely, streams=streams, answers=0, holds_worst_case=True)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return ImagesReader(request, estimates)


class ImagesReader(UsageReader):
    """A reader of one response with pictures. It counts them, and their tokens where the response reports none."""

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._images: int | None = None

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = _read(body)
        self.failed = bool(response.error)
        if isinstance(response.data, list):
            self._images = len(response.data)
        self._take_report(response.usage, "image_output_tokens")
        self._take_report(response.svg_usage, None)  # of the model that draws in words

    def event(self, event: ServerSentEvent) -> None:
        """Take one event: of a finished picture, or of a preview."""
        response = _read(event.data)
        if isinstance(response.type, str) and response.type.endswith(".completed"):
            self._images = (self._images or 0) + 1
            self._take_report(response.usage, "image_output_tokens")
            self.done = self._images >= self.request.estimate.images
        self.failed = bool(response.error) and not self._images

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error."""
        if self.reported is not None and self._images is not None:
            self.reported = structs.replace(self.reported, images=self._images)
        return super().charge(complete=complete)

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none: a quarter of the most that its pictures may take."""
        asked = self.request.estimate.images
        images = asked if self._images is None else self._images
        tokens = -(-self.request.estimate.output_tokens * images // (asked * _LIKELY_PART))
        return UsageMetrics(
            input_tokens=self.request.counted_input_tokens,
            output_tokens=tokens,
            image_output_tokens=tokens,
            images=images,
        )

    def _take_report(self, report: object, output_part: str | None) -> None:
        """Add a report to those before it: in a stream each picture has its own."""
        if report is None:
            return
        try:
            usage, whole = read_token_usage(report, output_part=output_part)
        except InvalidReportError:
            self.invalid = True
            return
        known = self.reported or UsageMetrics()
        sums = {name: getattr(known, name) + getattr(usage, name) for name in _ADDED}
        self.take_report(UsageMetrics(**sums), whole=whole and not self.invalid)


def _read(text: bytes) -> _Answer:
    try:
        return _answer_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    fields = decode(text)
    if not isinstance(fields, dict):
        return _Answer()
    data = fields.get("data")
    images = [Raw(b"")] * len(data) if isinstance(data, list) else None
    return _Answer(fields.get("type"), images, fields.get("usage"), fields.get("svg_usage"), fields.get("error"))


def _pictures(value: object) -> int:
    return len(value) if isinstance(value, Sequence) and not isinstance(value, str) else int(bool(value))


def _count(value: object) -> int:
    if value is None or value == "":
        return 1
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if type(value) is not int or not 1 <= value <= _MOST_IMAGES:
        raise BadRequestError(f"n must be between 1 and {_MOST_IMAGES}", param="n")
    return value
