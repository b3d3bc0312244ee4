"""A FastAPI application whose users pay by the credit: a chat in OpenAI's shape, and an endpoint with its own price.

uvicorn fastapi_app:app
curl -H 'x-user: ann' 'localhost:8000/render?seconds=2' -X POST
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Scope

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.middleware import MeteringMiddleware, RequestMeter, meter_of

PRICES = {
    "version": 1,
    "measures": ["gpu_seconds"],
    "models": {"gpt-4o": "input_tokens * 0.0025 + output_tokens * 0.01", "render": "gpu_seconds * 0.1"},
}

manager = AsyncCreditManager.from_url(os.environ.get("DUCTO_REDIS_URL", "memory://"))

Meter = Annotated[RequestMeter, Depends(meter_of)]


def payer(scope: Scope) -> str | None:
    """Who pays, as your authentication knows it; here a header says so."""
    return Headers(scope=scope).get("x-user")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the manager with the application, and close it with it; here, publish prices and give Ann five credits."""
    async with manager:
        await manager.publish_pricing(PRICES)
        await manager.add_credits("ann", 5, type="bonus", idempotency_key="welcome-ann")
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(MeteringMiddleware, manager=manager, account=payer)


@app.post("/v1/chat/completions", response_model=None)
async def chat(question: dict[str, Any]) -> Response | dict[str, Any]:
    """Metered by what the answer reports. Yours calls a model here, and passes its answer on."""
    if question.get("stream"):
        return StreamingResponse(chunks(), media_type="text/event-stream")
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


@app.post("/render")
async def render(seconds: int, meter: Meter) -> dict[str, str]:
    """Priced by the second. Who can't pay for it is answered with 402: nothing of the work has begun."""
    await meter.reserve(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    picture = "a picture"  # the work
    meter.record(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    return {"picture": picture}
