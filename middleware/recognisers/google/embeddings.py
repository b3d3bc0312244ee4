"""Gemini's embeddings, and the predictions of Vertex AI: embeddings again, and images."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.google.content_usage import read_usage, reports_tokens
from ducto_redis.middleware.recognisers.json_request import NOTHING, check_limit, check_name, decode_request
from ducto_redis.middleware.recognisers.prompt import measure_prompt
from ducto_redis.middleware.recognisers.reported import InvalidReportError, count, usage_of
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode
from ducto_redis.middleware.sse import ServerSentEvent

_EMBED = re.compile(r"/([^/:]+):(?:embedContent|batchEmbedContents)$")
_PREDICT = re.compile(r"/models/([^/:]+):predict$")
_MOST_IMAGES = 1024
_USUAL_IMAGES = 4


class _Parameters(Struct):
    sample_count: int | None = msgspec.field(default=None, name="sampleCount")


class _PredictRequest(Struct):
    instances: Raw = NOTHING
    parameters: _Parameters | None = None


_decoder = msgspec.json.Decoder(_PredictRequest)
_any_decoder = msgspec.json.Decoder(dict[str, Raw])


class GeminiEmbeddings(Recogniser):
    """`POST .../models/{model}:embedContent` and `...:batchEmbedContents`. The model is the one in the path."""

    operation_type = "embeddings"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _EMBED.search(path) is not None

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as input."""
        decode_request(request.body, _any_decoder)
        return _request(_EMBED, self.operation_type, request, estimates)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response."""
        return PredictionReader(request, estimates)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Google's errors."""
        return refusal.as_google()


class VertexPredict(GeminiEmbeddings):
    """`POST .../publishers/google/models/{model}:predict`: images, priced by `images`, and embeddings."""

    operation_type = "predict"

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _PREDICT.search(path) is not None

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as input, and all the images that it asks for."""
        asked = decode_request(request.body, _decoder)
        samples = None if asked.parameters is None else asked.parameters.sample_count
        check_limit(samples, "sampleCount")
        metered = _request(_PREDICT, self.operation_type, request, estimates)
        if b'"prompt"' not in bytes(asked.instances):
            return metered
        images = _USUAL_IMAGES if samples is None else min(samples, _MOST_IMAGES)
        return structs.replace(metered, estimate=structs.replace(metered.estimate, images=images))


class PredictionReader(UsageReader):
    """A reader of one response: embeddings report tokens or characters, or nothing; images are counted."""

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._images = 0
        self._characters = 0

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = decode(body)
        if not isinstance(response, dict):
            return
        self.failed = bool(response.get("error"))
        metadata = response.get("metadata")
        if isinstance(metadata, dict):
            self._characters = count(metadata.get("billableCharacterCount")) or 0
        predictions = _objects(response.get("predictions"))
        self._images = sum(1 for prediction in predictions if _is_image(prediction))
        report = response.get("usageMetadata")
        embeddings = [
            *_objects(response.get("embeddings")),
            *_objects([response.get("embedding")]),
            *_objects([prediction.get("embeddings") for prediction in predictions]),
        ]
        tokens = [_statistics(embedding) for embedding in embeddings]
        try:
            if isinstance(report, dict) and reports_tokens(report):
                usage, whole = read_usage(report)
                self.take_report(usage, whole=whole)
            elif tokens and None not in tokens:
                self.take_report(usage_of(sum(found or 0 for found in tokens), 0, {})[0])
            elif self._images:
                self.take_report(UsageMetrics())
        except InvalidReportError:
            self.invalid = True

    def event(self, event: ServerSentEvent) -> None:
        """Ignore the event: these responses are not streamed."""

    def charge(self, *, complete: bool) -> Charge | None:
        """Return what was reported, and the images; the input as counted, where nothing was reported."""
        charge = super().charge(complete=complete)
        if charge is None:
            return None
        return Charge(
            structs.replace(charge.usage, images=self._images, input_characters=self._characters), charge.flags
        )


def _request(pattern: re.Pattern[str], operation: str, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
    named = pattern.search(request.path)
    model = None if named is None else named[1]
    check_name(model, "model")
    prompt = measure_prompt(estimates, model, request.body, [])
    estimate = UsageMetrics(model=model, input_tokens=prompt.most_tokens, operation=operation)
    return MeteredRequest(estimate, prompt.likely_tokens)


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _is_image(prediction: Mapping[str, Any]) -> bool:
    kind = prediction.get("mimeType", "image/png")
    return (
        isinstance(kind, str)
        and kind.startswith("image/")
        and not {"bytesBase64Encoded", "gcsUri"}.isdisjoint(prediction)
    )


def _statistics(embedding: Mapping[str, Any]) -> int | None:
    """Return the tokens that an embedding took; None where it does not say."""
    statistics = embedding.get("statistics")
    if not isinstance(statistics, dict):
        return None
    value = statistics.get("token_count", statistics.get("tokenCount"))
    return count(int(value) if isinstance(value, float) and value.is_integer() else value)
