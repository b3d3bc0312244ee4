"""The base of recognisers for free routes."""

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.sse import ServerSentEvent


class FreeRecogniser(Recogniser):
    """A recogniser of requests that cost nothing, so that they do not count as unknown. Nothing of them is read."""

    free = True

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return a request that uses nothing."""
        return MeteredRequest(UsageMetrics())

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader that finds nothing to charge."""
        return _FreeReader()


class _FreeReader(ResponseReader):
    def document(self, body: bytes) -> None:
        """Ignore the body: nothing is charged."""

    def event(self, event: ServerSentEvent) -> None:
        """Ignore the event."""

    def charge(self, *, complete: bool) -> Charge | None:
        return None
