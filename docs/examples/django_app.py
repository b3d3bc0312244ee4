"""A Django application whose users pay by the credit: a chat in OpenAI's shape, and an endpoint with its own price.

    uvicorn django_app:app
    curl -H 'x-user: ann' 'localhost:8000/render?seconds=2' -X POST

In a project of yours, settings, urls and views are where they are, and the end of this file is its `asgi.py`.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.routing import Mount
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


async def chat(request: ASGIRequest) -> HttpResponseBase:
    """Metered by what the answer reports. Yours calls a model here, and passes its answer on."""
    if json.loads(request.body).get("stream"):
        return StreamingHttpResponse(chunks(), content_type="text/event-stream")
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return JsonResponse({"object": "chat.completion", "choices": [choice], "usage": usage})


async def chunks() -> AsyncIterator[str]:
    """A stream, whose last chunk reports the usage."""
    for text in ("Hel", "lo!"):
        choice = {"index": 0, "delta": {"content": text}}
        yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 9, 'completion_tokens': 3}})}\n\n"
    yield "data: [DONE]\n\n"


async def render(request: ASGIRequest) -> HttpResponse:
    """Priced by the second. Who can't pay for it is answered with 402: nothing of the work has begun."""
    seconds = int(request.GET["seconds"])
    meter = meter_of(request)
    try:
        await meter.reserve(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    except CreditError as error:
        return refused(error)
    picture = "a picture"  # the work
    meter.record(UsageMetrics(model="render", measures={"gpu_seconds": seconds}))
    return JsonResponse({"picture": picture})


def refused(error: CreditError) -> HttpResponse:
    """Django answers its views' errors itself: this is the answer that the middleware would give."""
    refusal = refusal_for(error)
    return JsonResponse(refusal.as_openai(), status=refusal.status, headers=refusal.response_headers())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the manager with the server, and close it with it; here, publish prices and give Ann five credits."""
    async with manager:
        await manager.publish_pricing(PRICES)
        await manager.add_credits("ann", 5, type="bonus", idempotency_key="welcome-ann")
        yield


def payer(scope: Scope) -> str | None:
    """Who pays, as your authentication knows it; here a header says so."""
    return Headers(scope=scope).get("x-user")


settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
urlpatterns = [path("v1/chat/completions", chat), path("render", render)]

# Django takes no lifespan events, which open and close the manager: Starlette stands around it and does.
app = Starlette(
    routes=[Mount("/", get_asgi_application())],
    middleware=[Middleware(MeteringMiddleware, manager=manager, account=payer)],
    lifespan=lifespan,
)
