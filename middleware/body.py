"""The body of a request: read whole once; the application may get another one."""

from starlette.types import Receive, Scope

from ducto_redis.middleware.error_responses import BadRequestError


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """Return the whole body of the request, or None where the client left before its end.

    Raises:
        BadRequestError: where it is larger than `limit` bytes, or compressed.
    """
    for name, value in scope["headers"]:
        if name == b"content-length":
            if value.isdigit() and int(value[:20]) > limit:
                raise _too_large(limit)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise BadRequestError("the body must not be compressed", code="unsupported_content_encoding")
    pieces: list[bytes] | None = None
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
        if pieces is None:
            if not more:  # most bodies come whole: no copy is made
                return piece
            pieces = []
        pieces.append(piece)
        if not more:
            return b"".join(pieces)


def _too_large(limit: int) -> BadRequestError:
    return BadRequestError(f"the body is larger than {limit} bytes", code="request_too_large")


def scope_for(scope: Scope, length: int, *, uncompressed: bool) -> Scope:
    """Return the scope for an application that gets another body than the request's.

    Args:
        scope: the request's, which stays as it is.
        length: bytes of the other body.
        uncompressed: whether the response must not be compressed on its way here, since not all of it may go on.
    """
    headers = [(name, b"%d" % length if name == b"content-length" else value) for name, value in scope["headers"]]
    if uncompressed:
        headers = [header for header in headers if header[0] != b"accept-encoding"]
        headers.append((b"accept-encoding", b"identity"))
    return {**scope, "headers": headers}
