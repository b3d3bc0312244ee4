"""What frameworks need, and what they do otherwise than others."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis.errors import ConfigError
from ducto_redis.middleware import RequestMeter, meter_of
from tests.middleware.asgi import CHAT_REQUEST, DONE, call, chunk, completion, sending, usage_chunk


async def test_the_meter_of_a_request(metered: Callable[..., ASGIApp]) -> None:
    """Any object with the request's scope gives the meter of the request."""

    class OtherRequest:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

    meters: list[RequestMeter] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        meters.extend([meter_of(Request(scope)), meter_of(OtherRequest(scope)), scope["state"]["meter"]])
        await sending(b"{}")(scope, receive, send)

    await call(metered(app), path="/any")
    assert meters[0] is meters[1] is meters[2]


@pytest.mark.parametrize("scope", [{}, {"state": {}}, {"state": {"meter": 7}}])
def test_no_meter(scope: dict[str, Any]) -> None:
    """Without the middleware there is none, and the error says what is missing."""
    with pytest.raises(ConfigError, match="MeteringMiddleware"):
        meter_of(Request({"type": "http", **scope}))


async def test_headers_in_capitals(metered: Callable[..., ASGIApp]) -> None:
    """Headers may be written in capitals, as Django does: a JSON answer is held until it is charged all the same."""
    body = json.dumps(completion(10, 20)).encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    answer = await call(metered(app))
    assert answer.headers["x-credits-charged"] == "0.21"


async def test_the_length_of_a_stream_in_capitals(metered: Callable[..., ASGIApp]) -> None:
    """Where events are kept from the client, the length of the answer is taken away, however it is written."""
    pieces = [chunk("hi"), usage_chunk(), DONE]
    length = str(sum(map(len, pieces))).encode()
    app = sending(*pieces, content_type="text/event-stream", headers=[(b"Content-Length", length)])
    answer = await call(metered(app), {**CHAT_REQUEST, "stream": True})
    assert answer.body == chunk("hi") + DONE
    assert "content-length" not in answer.headers
