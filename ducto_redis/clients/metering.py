"""Requests of metered clients of both kinds: recognised, read, and answered by ourselves where refused."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ducto_redis.clients.payer import Account
from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.background import BackgroundJob
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.error_responses import BadRequestError, Refusal, refusal_for
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.routing import MeteredPrefixes, Routes, unknown_route
from ducto_redis.middleware.settings import UnknownRoutes
from ducto_redis.payer import Payer

CREDIT_ERROR = "ducto_redis.credit_error"
"""The extension of a response that holds the error which refused its request."""

_SIGNED = "AWS4-HMAC-SHA256"


class ReadRequest:
    """One request to a provider that costs something.

    Attributes:
        recogniser: what knows its API.
        metered: what it asks for.
        reader: what will read its answer.
        body: what is sent to the provider.
    """

    def __init__(self, recogniser: Recogniser, metered: MeteredRequest, reader: ResponseReader, body: bytes) -> None:
        self.recogniser = recogniser
        self.metered = metered
        self.reader = reader
        self.body = body


class ClientMetering:
    """The settings of one metered client. It does no I/O, and knows no difference between threads and event loops.

    Args:
        http: the package of the client: httpx, or its successor httpx2, which have the same classes.
        account: who pays.
        recognisers: the APIs that are metered.
        estimates: how holds are estimated.
        ttl_seconds: how long a hold outlives a process that was killed.
        background_ttl_seconds: how long the hold stays of work that goes on after its answer.
        unknown_routes: what becomes of requests that may cost something and belong to no API that is metered.
    """

    def __init__(
        self,
        http: ModuleType,
        account: Account,
        recognisers: Sequence[Recogniser],
        estimates: Estimates,
        ttl_seconds: float,
        background_ttl_seconds: float,
        unknown_routes: UnknownRoutes,
    ) -> None:
        if unknown_routes not in ("refuse", "pass"):
            raise ConfigError(f"unknown_routes must be 'refuse' or 'pass', not {unknown_routes!r}")
        self.http = http
        self.account = account
        self.ttl_seconds = ttl_seconds
        self.background_ttl_seconds = background_ttl_seconds
        self._routes = Routes({}, recognisers)
        self._unknown_routes = unknown_routes
        self._unknown = MeteredPrefixes(["/"], MeteringCounts())
        self._continuing = [one for one in recognisers if type(one).continued is not Recogniser.continued]
        self._estimates = estimates

    def recogniser(self, request: Any) -> Recogniser | None:
        """Return what knows the API of a request; None for one that costs nothing, as far as is known."""
        recogniser = self._routes.find(_api_request(request))
        return None if recogniser is None or recogniser.free else recogniser

    def refused_unknown(self, request: Any) -> Any | None:
        """Return the refusal of a request that may cost something and belongs to no API; None where it passes."""
        asked = _api_request(request)
        if self._routes.find(asked) is not None or asked not in self._unknown:
            return None
        if self._unknown_routes == "pass":
            self._unknown.count(asked, "let pass without a charge")
            return None
        self._unknown.count(asked, "refused")
        return self._refusal(self._routes.nearest(asked), request, unknown_route(asked), {})

    def asks(self, request: Any) -> tuple[Recogniser, str] | None:
        """Return the API, and the id of the work, that a request asks about, such as a response in the background."""
        asked = _api_request(request)
        for recogniser in self._continuing:
            work_id = recogniser.continued(asked.method, asked.path)
            if work_id is not None:
                return recogniser, work_id
        return None

    def read_about_work(self, recogniser: Recogniser, work: BackgroundJob, work_id: str) -> ResponseReader:
        """Return what reads the answer to a request about work."""
        return recogniser.read_response(work.as_request(work_id), self._estimates)

    def meter_options(self, payer: Payer, recogniser: Recogniser) -> dict[str, Any]:
        """Return how the meter of a request is opened."""
        return {
            "operation_type": payer.operation_type or recogniser.operation_type,
            "ttl": self.ttl_seconds,
            "member": payer.member,
            "required_feature": payer.required_feature,
            "parent": payer.parent,
            "charges_hold": True,
        }

    def read(self, recogniser: Recogniser, request: Any) -> ReadRequest:
        """Read a request whose body is in memory. Raises BadRequestError."""
        body: bytes = request.content
        metered = recogniser.read_request(_api_request(request, body), self._estimates)
        reader = recogniser.read_response(metered, self._estimates)
        # What is signed must go out as it is.
        signed = request.headers.get("authorization", "").startswith(_SIGNED)
        return ReadRequest(
            recogniser, metered, reader, body if signed else recogniser.application_body(body, metered, None)
        )

    def to_send(self, request: Any, read: ReadRequest) -> Any:
        """Return the request that goes to the provider."""
        if read.body is request.content:
            return request
        headers = request.headers.copy()
        headers["content-length"] = str(len(read.body))
        return self.http.Request(
            request.method, request.url, headers=headers, content=read.body, extensions=request.extensions
        )

    def refused(self, recogniser: Recogniser, request: Any, error: CreditError | BadRequestError) -> Any:
        """Return a refusal as the provider would answer, so that its client raises the error that its users know."""
        return self._refusal(recogniser, request, refusal_for(error), {CREDIT_ERROR: error})

    def _refusal(
        self, recogniser: Recogniser | None, request: Any, refusal: Refusal, extensions: dict[str, Any]
    ) -> Any:
        body = refusal.as_openai() if recogniser is None else recogniser.error_body(refusal)
        refusal = refusal if recogniser is None else recogniser.refused(refusal)
        headers, content = refusal.encoded(body)
        return self.http.Response(
            refusal.status, headers=headers, content=content, request=request, extensions=extensions
        )

    def answered(self, answer: Any, stream: Any) -> Any:
        """Return the provider's answer with another stream in place of its own, which gives decoded bytes."""
        headers = answer.headers.copy()
        for name in ("content-encoding", "content-length"):
            headers.pop(name, None)
        return self.http.Response(
            answer.status_code,
            headers=headers,
            stream=stream,
            request=answer.request,
            extensions=answer.extensions,
            history=answer.history,
            default_encoding=answer.default_encoding,
        )


def _api_request(request: Any, body: bytes = b"") -> ApiRequest:
    """Return a request of an HTTP client as the middleware would read it."""
    scope = {
        "type": "http",
        "method": request.method,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "root_path": "",
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    return api_request(scope, body)
