"""The request that a recogniser reads: one value, built in one place."""

import re
from collections.abc import Sequence
from posixpath import normpath

from msgspec import Struct
from starlette.types import Scope

_END_OF_PATH = re.compile(r"[?#]")


class Headers(Struct, frozen=True, gc=False):
    """The headers of a request or a response, read-only.

    >>> Headers([(b"Content-Type", b"application/json")]).get(b"content-type")
    b'application/json'

    Attributes:
        items: names and values, as they were sent.
    """

    items: Sequence[tuple[bytes, bytes]] = ()

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """Return the first value of a header, given by its name in lower case; `default` where it is missing."""
        for sent, value in self.items:
            if sent == name or sent.lower() == name:
                return bytes(value)
        return default


class ApiRequest(Struct, frozen=True):
    """A request to an API.

    Attributes:
        method: the method, in upper case; "GET" for the handshake of a WebSocket.
        path: the path as it reaches the API behind an application that forwards any path: percent-decoded, without a
            query that was encoded into it, and with dots resolved.
        root_path: the path at which the application is mounted; empty where it is not.
        query: the query string, as it was sent.
        headers: the headers.
        body: the body, without its content encoding; empty until it has been read.
        sent_path: the path as it was sent, percent-decoded.
        scope: the ASGI scope, for recognisers with the deprecated `read_request(body, scope, estimates)`.
    """

    method: str = "POST"
    path: str = "/"
    root_path: str = ""
    query: bytes = b""
    headers: Headers = Headers()
    body: bytes = b""
    sent_path: str = "/"
    scope: Scope = {}


def api_request(scope: Scope, body: bytes = b"") -> ApiRequest:
    """Return the request that an ASGI scope describes.

    >>> request = api_request({"type": "http", "method": "post", "path": "/v1/x/../chat", "headers": []}, b"{}")
    >>> request.method, request.path, request.body
    ('POST', '/v1/chat', b'{}')

    Args:
        scope: the scope of an HTTP request, or of a WebSocket.
        body: the whole body.
    """
    path = scope["path"]
    return ApiRequest(
        # Some servers pass a method on as it was sent, and some frameworks, as Django, make POST of "post".
        scope.get("method", "GET").upper(),
        _as_forwarded(path) if "/." in path or "?" in path or "#" in path else path,
        scope.get("root_path", ""),
        scope.get("query_string", b""),
        Headers(scope.get("headers", ())),
        body,
        path,
        scope,
    )


def _as_forwarded(path: str) -> str:
    """Return a path without what begins a query once it is decoded, and with its dots resolved."""
    path = _END_OF_PATH.split(path, maxsplit=1)[0]
    return normpath(path) if "/." in path else path
