"""Answers, as the middleware gives them to a recogniser's reader."""

import json
from collections.abc import Iterator
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import Charge, Estimates, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.reading import BodyReading

JSON = b"application/json"
EVENTS = b"text/event-stream"


def request_of(
    recogniser: Recogniser, body: Any, path: str = "/", query: bytes = b"", estimates: Estimates | None = None
) -> MeteredRequest:
    """Return what the recogniser reads from a request."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    scope = {"type": "http", "path": path, "query_string": query}
    return recogniser.read_request(api_request(scope, encoded), estimates or Estimates(default_max_tokens=50))


def reader_of(
    recogniser: Recogniser, *pieces: bytes, content_type: bytes = EVENTS, request: MeteredRequest, finish: bool = True
) -> ResponseReader:
    """Return the reader after these pieces of an answer."""
    reader = recogniser.read_response(request, Estimates())
    reading = BodyReading(reader, content_type, b"")
    for piece in pieces:
        reading.feed(piece)
    if finish:
        reading.finish()
    return reader


def charge_of(
    recogniser: Recogniser,
    *pieces: bytes,
    content_type: bytes = EVENTS,
    request: MeteredRequest,
    complete: bool = True,
) -> Charge | None:
    """Return what an answer in these pieces is charged."""
    reader = reader_of(recogniser, *pieces, content_type=content_type, request=request)
    return reader.charge(complete=complete)


def usage_of(charge: Charge | None, *flags: str) -> dict[str, Any]:
    """Return the numbers of a charge that are not zero, after checking its flags."""
    assert charge is not None
    assert charge.flags == flags
    named = ((name, getattr(charge.usage, name)) for name in UsageMetrics.__struct_fields__)
    return {name: value for name, value in named if value and name not in ("model", "operation", "service_tier")}


def event(kind: str, **fields: Any) -> bytes:
    """Return a server-sent event with its type in name and data."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def data(value: Any) -> bytes:
    """Return a server-sent event without a name."""
    return f"data: {json.dumps(value)}\n\n".encode()


def cuts_of(body: bytes) -> Iterator[list[bytes]]:
    """Yield a body in single bytes, and in two pieces cut everywhere."""
    yield [body[at : at + 1] for at in range(len(body))]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]
