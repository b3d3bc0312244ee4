"""A Starlette application whose users pay by the credit: a chat in OpenAI's shape, and an endpoint with its own price.

uvicorn starlette_app:app
curl -H 'x-user: ann' 'localhost:8000/render?seconds=2' -X POST
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.middleware import MeteringMiddleware, meter_of

PRICES = {
    "version": 1,
    "measures": ["gpu_seconds"],
    "models": {"gpt-4o": "input_tokens * 0.0025 + output_tokens * 0.01", "render": "gpu_seconds * 0.1"},
}

manager = AsyncCreditManager.from_url(os.environ.get("DUCTO_REDIS_URL", "memory://"))


def payer(scope: Scope) -> str | None:
    """Who pays, as your authentication knows it; here a header says so."""
    return Headers(scope=scope).get("x-user")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the manager with the application, and close it with it; here, publish prices and give Ann five credits."""
    async with manager:
        await manager.publish_pricing(PRICES)
        await manager.add_credits("ann", 5, type="bonus", idempotency_key="welcome-ann")
        yield


async def chat(request: Request) -> Response:
    """Metered by what the answer reports. Yours calls a model here, and passes its answer on."""
    question = await request.json()
    if question.get("stream"):
        return StreamingResponse(chunks(), media_type="text/event-stream")
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})


async def chunks() -> AsyncIterator[str]:
    """A stream, whose last chunk reports the usage."""
    for text in ("Hel", "lo!"):
        choice = {"index": 0, "delta": {"content": text}}
        yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 9, 'completion_tokens': 3}})}\n\n"
    yield "data: [DONE]\n\n"


async def render(request: Request) -> JSONResponse:
    """Priced by the second. Who can't pay for it is answered with 402: nothing of the work has begun."""
    seconds = int(request.query_params["seconds"])
    meter = meter_of(request)
    await meter.reserve(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    picture = "a picture"  # the work
    meter.record(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    return JSONResponse({"picture": picture})


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/render", render, methods=["POST"]),
    ],
    middleware=[Middleware(MeteringMiddleware, manager=manager, account=payer)],
    lifespan=lifespan,
)
