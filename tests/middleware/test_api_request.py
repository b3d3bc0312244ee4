"""The one value that recognisers read of a request, and the headers that they and readers see."""

import httpx
import pytest

from ducto_redis.clients.metering import ClientMetering
from ducto_redis.middleware import Estimates, MeteredRequest
from ducto_redis.middleware.api_request import ApiRequest, Headers, api_request
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import CHAT, scope
from tests.middleware.sockets import handshake


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions/"),
        ("/v1/files?x/chat/completions", "/v1/files"),
        ("/v1/files#/chat/completions", "/v1/files"),
        ("/v1/files/../chat/./completions/", "/v1/chat/completions"),
        ("/v1/.well-known", "/v1/.well-known"),
        ("/v1//chat", "/v1//chat"),
    ],
)
def test_path(sent: str, path: str) -> None:
    """The path is as the API gets it behind an application that forwards any path; the one that was sent stays."""
    request = api_request(scope(sent))
    assert (request.path, request.sent_path) == (path, sent)


def test_of_a_scope() -> None:
    """All of a request that a recogniser may read is taken from its scope, once."""
    asked = scope("/v1/x", "post", {"Content-Type": "application/json"}, root_path="/v1", query_string=b"a=1")
    request = api_request(asked, b"{}")
    assert (request.method, request.root_path, request.query, request.body) == ("POST", "/v1", b"a=1", b"{}")
    assert request.headers.get(b"content-type") == b"application/json"
    assert request.scope is asked
    with pytest.raises(AttributeError):
        request.body = b""  # type: ignore[misc]


def test_of_a_handshake() -> None:
    """A WebSocket begins with a GET request."""
    request = api_request(handshake("/v1/realtime", b"model=voice"))
    assert (request.method, request.path, request.query) == ("GET", "/v1/realtime", b"model=voice")


def test_headers() -> None:
    """The first value counts, however its name is written; a header that is missing is empty."""
    headers = Headers([(b"X-Cost", b"1"), (b"x-cost", b"2")])
    assert headers.get(b"x-cost") == b"1"
    assert headers.get(b"x-other") == b""
    assert headers.get(b"x-other", b"none") == b"none"


def test_clients_build_the_same() -> None:
    """A metered client reads a request as the middleware does."""
    seen: list[ApiRequest] = []

    class Seeing(OpenAIChat):
        def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
            seen.append(request)
            return super().read_request(request, estimates)

    asked = httpx.Request("POST", f"https://api{CHAT}?a=1", headers={"X-Trace": "t"}, json={"model": "m"})
    metering = ClientMetering(httpx, "u1", [Seeing()], Estimates(), 60, 60, "pass")
    metering.read(Seeing(), asked)
    (request,) = seen
    assert (request.method, request.path, request.query) == ("POST", CHAT, b"a=1")
    assert (request.body, request.headers.get(b"x-trace")) == (asked.content, b"t")
