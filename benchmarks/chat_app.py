"""The application that is metered: an OpenAI-shaped chat endpoint that answers at once, plain and streamed."""

import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.setting import ACCOUNT
from ducto_redis.middleware import MeteringMiddleware

PATH = "/v1/chat/completions"
CHUNKS = 200

_USAGE = {"prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500}
_HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "gpt-4o"}
_MESSAGE = {"role": "assistant", "content": "A charge must cost the application next to nothing. " * 20}


def request_body(*, chunks: int = 0) -> bytes:
    """Return a client's request of some 4 KiB, for a stream of so many chunks; 0 for a JSON answer."""
    question = {"role": "user", "content": "How much does a charge cost the application? " * 90}
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [question], "max_tokens": 1000}
    if chunks:
        body |= {"stream": True, "stream_options": {"include_usage": True}, "chunks": chunks}
    return msgspec.json.encode(body)


def bare() -> Starlette:
    """Return the application alone."""
    return Starlette(routes=[Route(PATH, _chat, methods=["POST"])])


def metered() -> Starlette:
    """Return the application, metered for the benchmarks' account; the environment names server and namespace."""
    return metered_by(
        AsyncCreditManager.from_url(os.environ["DUCTO_REDIS_URL"], namespace=os.environ["DUCTO_NAMESPACE"])
    )


def metered_by(manager: AsyncCreditManager) -> Starlette:
    """Return the application, metered by a manager."""
    app = bare()
    app.router.lifespan_context = manager.lifespan
    app.add_middleware(MeteringMiddleware, manager=manager, account=lambda scope: ACCOUNT)
    return app


async def _chat(request: Request) -> Response:
    asked = await request.json()
    if asked.get("stream"):
        return StreamingResponse(_chunks(asked["chunks"]), media_type="text/event-stream")
    choice = {"index": 0, "message": _MESSAGE, "finish_reason": "stop"}
    answer = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
    return JSONResponse(answer)


async def _chunks(count: int) -> AsyncIterator[bytes]:
    head = {**_HEAD, "object": "chat.completion.chunk"}
    for number in range(count):
        delta = {"index": 0, "delta": {"content": f" word{number}"}, "finish_reason": None}
        yield _event({**head, "choices": [delta]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _event({**head, "choices": [], "usage": _USAGE})
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
