"""The body of a request: read whole once, given to the application again."""

from starlette.types import Message, Receive, Scope

from ducto_redis.middleware.answers import BadRequestError


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """Return the request's whole body, or None where the client has gone before its end.

    Raises:
        BadRequestError: where it is larger than `limit` bytes, or compressed.
    """
    for name, value in scope["headers"]:
        if name == b"content-length":
            if value.isdigit() and int(value[:20]) > limit:
                raise _too_large(limit)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise BadRequestError("the body must not be compressed", code="unsupported_content_encoding")
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece: bytes = message.get("body", b"")
        if not pieces and not message.get("more_body", False):  # most bodies come whole: no copy is made
            if len(piece) > limit:
                raise _too_large(limit)
            return piece
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(limit: int) -> BadRequestError:
    return BadRequestError(f"the body is larger than {limit} bytes", code="request_too_large")


class WatchedReceive:
    """A `receive` that remembers whether the application has been told that its client left."""

    def __init__(self, receive: Receive) -> None:
        self.client_left = False
        self._receive = receive

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_left = True
        return message


class ReplayedBody(WatchedReceive):
    """A `receive` that gives the body that was read, once; every later call goes to the server."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        super().__init__(receive)
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            return await super().__call__()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
