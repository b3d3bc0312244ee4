"""A Litestar application whose users pay by the credit: a chat in OpenAI's shape, and an endpoint with its own price.

uvicorn litestar_app:app
curl -H 'x-user: ann' 'localhost:8000/render?seconds=2' -X POST
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, post
from litestar.middleware import DefineMiddleware
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream
from starlette.datastructures import Headers
from starlette.types import Scope

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.errors import CreditError
from ducto_redis.middleware import MeteringMiddleware, meter_of, refusal_for

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
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Open the manager with the application, and close it with it; here, publish prices and give Ann five credits."""
    async with manager:
        await manager.publish_pricing(PRICES)
        await manager.add_credits("ann", 5, type="bonus", idempotency_key="welcome-ann")
        yield


@post("/v1/chat/completions", status_code=200)
async def chat(data: JSONBody[dict[str, Any]]) -> Stream | dict[str, Any]:
    """Metered by what the answer reports. Yours calls a model here, and passes its answer on."""
    if data.get("stream"):
        return Stream(chunks(), media_type="text/event-stream")
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


async def chunks() -> AsyncIterator[str]:
    """A stream, whose last chunk reports the usage."""
    for text in ("Hel", "lo!"):
        choice = {"index": 0, "delta": {"content": text}}
        yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 9, 'completion_tokens': 3}})}\n\n"
    yield "data: [DONE]\n\n"


@post("/render", status_code=200)
async def render(request: Request[Any, Any, Any], seconds: FromQuery[int]) -> dict[str, str]:
    """Priced by the second. Who can't pay for it is answered with 402: nothing of the work has begun."""
    meter = meter_of(request)
    await meter.reserve(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    picture = "a picture"  # the work
    meter.record(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    return {"picture": picture}


def refused(request: Request[Any, Any, Any], error: CreditError) -> Response[dict[str, Any]]:
    """Litestar answers its endpoints' errors itself: this is the answer that the middleware would give."""
    refusal = refusal_for(error)
    return Response(refusal.as_openai(), status_code=refusal.status, headers=refusal.response_headers())


app = Litestar(
    [chat, render],
    middleware=[DefineMiddleware(MeteringMiddleware, manager=manager, account=payer)],
    exception_handlers={CreditError: refused},
    lifespan=[lifespan],
)
