"""The demo's application: a chat endpoint behind MeteringMiddleware. This is all that an application needs."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis.cli.demo.setting import CUSTOMERS
from ducto_redis.cli.demo.stand_in_model import StandInModel
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware

_ACCOUNTS = {f"Bearer {customer.api_key}".encode(): customer.account for customer in CUSTOMERS}


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`, as if nobody counted."""
    body = await request.json()
    model = StandInModel(body)
    if body.get("stream"):
        return StreamingResponse(model.stream(), media_type="text/event-stream")
    return JSONResponse(await model.answer())


def payer(scope: Scope) -> str | None:
    """Return the payer of a request: the customer whose key it carries."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return _ACCOUNTS.get(headers.get(b"authorization", b""))


class RequestCount:
    """Counts the requests that arrive, so that the demo can tell whether a client has retried any."""

    def __init__(self) -> None:
        self.arrived = 0

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the same application, counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.arrived += 1
            await app(scope, receive, send)

        return counted


def make_app(manager: AsyncCreditManager) -> Starlette:
    """Return the metered application."""
    return Starlette(
        routes=[Route("/v1/chat/completions", chat_completions, methods=["POST"])],
        middleware=[Middleware(MeteringMiddleware, manager=manager, account=payer)],
        lifespan=manager.lifespan,
    )
