"""Embeddings in OpenAI's shape: input is charged, there is no output."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import NOTHING, decode_request
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.openai.text_input import measure_input
from ducto_redis.middleware.recognisers.reported import InvalidReportError, total, usage_of
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode
from ducto_redis.middleware.sse import ServerSentEvent


class _EmbeddingRequest(Struct):
    model: str | None = None
    input: Raw = NOTHING


class _Report(Struct):
    """The fields of a response that are read; its vectors, nearly all of its bytes, are skipped."""

    usage: Any = None
    error: Any = None
    data: Raw = NOTHING


_decoder = msgspec.json.Decoder(_EmbeddingRequest)
_report_decoder = msgspec.json.Decoder(_Report)


class OpenAIEmbeddings(Recogniser):
    """`POST .../embeddings`.

    Args:
        default_model: the priced model of a request that names none, in its body or its path.
    """

    operation_type = "embedding"
    path_end = "/embeddings"

    def __init__(self, *, default_model: str | None = None) -> None:
        self._default_model = default_model

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: a token per byte of a text, and the number of tokens where tokens are given."""
        body = decode_request(request.body, _decoder)
        model = model_of(body.model, request.path, self._default_model)
        prompt, _ = measure_input(estimates, model, request.body, body.input)
        if prompt.most_tokens > MAX_COUNT:
            raise BadRequestError("the input is too large", param="input")
        estimate = UsageMetrics(model=model, input_tokens=prompt.most_tokens, operation=self.operation_type)
        return MeteredRequest(estimate, prompt.likely_tokens)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response."""
        return EmbeddingsReader(request, estimates)


class EmbeddingsReader(UsageReader):
    """A reader of one response with embeddings. One that reports no usage is charged its input, as counted."""

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        try:
            response = _report_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            whole = decode(body)
            fields = whole if isinstance(whole, dict) else {}
            response = _Report(fields.get("usage"), fields.get("error"))
        self.failed = bool(response.error)
        if response.usage is not None:
            self._read_report(response.usage)

    def event(self, event: ServerSentEvent) -> None:
        """Take an event of an application that streams embeddings: it reports as it would in JSON."""
        self.document(event.data)

    def _read_report(self, report: object) -> None:
        try:
            if not isinstance(report, dict):
                raise InvalidReportError("the usage is not an object")
            # Some call it otherwise, and Voyage and Jina give the total only.
            names = ("prompt_tokens", "input_tokens", "total_tokens")
            tokens = next((report[name] for name in names if report.get(name) is not None), None)
            usage, whole = usage_of(total(tokens), 0, {})
            self.take_report(usage, whole=whole)
        except InvalidReportError:
            self.invalid = True
