"""Films in OpenAI's shape: jobs that are charged by the second when they are taken on."""

import re
from typing import Any

import msgspec

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import decode_request
from ducto_redis.middleware.recognisers.multipart import is_form, read_form
from ducto_redis.middleware.recognisers.openai.media_usage import whole_seconds
from ducto_redis.middleware.recognisers.openai.model_in_path import model_of
from ducto_redis.middleware.recognisers.prompt import check_settings
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode
from ducto_redis.middleware.sse import ServerSentEvent

_PATH = re.compile(r"/videos(?:/edits|/extensions|/[^/]+/remix)?$")
_MOST_SECONDS = 3600

_decoder = msgspec.json.Decoder(dict[str, Any])


class OpenAIVideos(Recogniser):
    """`POST .../videos`, and changes of a film: `.../videos/edits`, `/extensions` and `/{id}/remix`.

    A job is charged when the provider accepts it, by the seconds that the response names. Refund one that fails
    afterwards.

    Args:
        default_model: the priced model of a request that names none, as one that changes a film.
        default_seconds: the length of a film where a request names none.
    """

    operation_type = "video"
    path_end = "/videos"

    def __init__(self, *, default_model: str | None = None, default_seconds: int = 4) -> None:
        check_settings(default_seconds=default_seconds)
        self._default_model = default_model
        self._default_seconds = default_seconds

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _PATH.search(path.rstrip("/")) is not None

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the seconds that are asked for."""
        fields: dict[str, Any] = (
            dict(read_form(request).fields) if is_form(request) else decode_request(request.body, _decoder)
        )
        model, asked = model_of(fields.get("model") or None, request.path, self._default_model), fields.get("seconds")
        seconds = self._default_seconds if asked is None else whole_seconds(asked)
        if seconds is None or not 1 <= seconds <= _MOST_SECONDS:
            raise BadRequestError(f"seconds must be between 1 and {_MOST_SECONDS}", param="seconds")
        return MeteredRequest(UsageMetrics(model=model, video_seconds=seconds, operation=self.operation_type))

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response."""
        return VideoReader(request, estimates)


class VideoReader(UsageReader):
    """A reader of the response that accepts a job."""

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = decode(body)
        if not isinstance(response, dict):
            return
        self.failed = bool(response.get("error")) or response.get("status") == "failed"
        seconds = whole_seconds(response.get("seconds"))
        if seconds:
            self.take_report(UsageMetrics(video_seconds=seconds))

    def event(self, event: ServerSentEvent) -> None:
        """Ignore the event: jobs are not streamed."""

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the seconds of the job; None for one that was not taken on."""
        return None if self.failed else super().charge(complete=complete)

    def counted_usage(self) -> UsageMetrics:
        """Return the requested seconds."""
        return UsageMetrics(video_seconds=self.request.estimate.video_seconds)
