"""The real openai client, sync and async, against a real uvicorn."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import DONE, chunk, completion, usage_chunk
from tests.middleware.conftest import Accounts
from tests.middleware.serving import serve

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
WHOLE = {"id": "1", "created": 1, "model": "m"}

pytestmark = pytest.mark.smoke


class Model:
    """A stand-in for a model, which counts its requests and never ends a stream that asks for `n` = 2."""

    def __init__(self) -> None:
        self.requests = 0
        self.body: dict[str, Any] = {}
        self.left = asyncio.Event()

    async def complete(self, request: Request) -> Response:
        self.requests += 1
        self.body = body = await request.json()
        if not body.get("stream"):
            return JSONResponse(completion(10, 20, text="hello", **WHOLE))
        return StreamingResponse(self._pieces(endless=body.get("n") == 2), media_type="text/event-stream")

    async def _pieces(self, *, endless: bool) -> AsyncIterator[bytes]:
        try:
            yield chunk("x" * 20, **WHOLE)
            if endless:
                await asyncio.Event().wait()
            yield chunk("y" * 20, **WHOLE)
            yield usage_chunk(10, 20)
            yield DONE
        finally:
            self.left.set()


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def base_url(manager: AsyncCreditManager, model: Model) -> AsyncIterator[str]:
    def account(scope: Scope) -> str | None:
        token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        return None if token == "nobody" else token

    app = Starlette(routes=[Route("/v1/chat/completions", model.complete, methods=["POST"])])
    app.add_middleware(MeteringMiddleware, manager=manager, account=account)
    async with serve(app) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="u1", base_url=base_url) as client:
        yield client


async def test_plain(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """A plain completion carries its cost in the headers."""
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=100)
    assert raw.headers["x-credits-charged"] == "0.21"
    assert raw.headers["x-credits-remaining"] == "99.79"
    parsed = raw.parse()
    assert parsed.choices[0].message.content == "hello"
    assert await accounts.spent() == Decimal("0.21")


async def test_streamed(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """A streamed completion arrives whole, and is charged what it reports."""
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=100, stream=True)
    assert "x-credits-reserved" in stream.response.headers
    texts = [part.choices[0].delta.content for part in [part async for part in stream] if part.choices]
    assert texts == ["x" * 20, "y" * 20]
    assert await accounts.settled() == Decimal("0.21")


async def test_only_who_asks_sees_the_usage(client: openai.AsyncOpenAI, accounts: Accounts, model: Model) -> None:
    """The model always reports; the client gets the report only where it asked for it."""
    for options in (openai.omit, {"include_usage": False}, {"include_usage": True}):
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=100, stream=True, stream_options=options
        )
        parts = [part async for part in stream]
        asked = options == {"include_usage": True}
        assert [part.usage is not None for part in parts] == [False, False, True][: 3 if asked else 2]
        assert all(part.choices for part in parts[:2])
        assert model.body["stream_options"] == {"include_usage": True}
    assert await accounts.settled() == 3 * Decimal("0.21")


async def test_cancelled(client: openai.AsyncOpenAI, accounts: Accounts, model: Model) -> None:
    """A stream that the client closes is charged for what was delivered, once."""
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=100, stream=True, n=2)
    await anext(stream)
    await stream.close()
    await model.left.wait()
    # The messages are 35 bytes on the wire and the delivered text is 20, four bytes a token.
    assert await accounts.settled() == 9 * Decimal("0.001") + 5 * Decimal("0.01")
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "settle"]


async def test_refused(client: openai.AsyncOpenAI, model: Model) -> None:
    """402 raises at once, with what a program needs, and is not tried again."""
    with pytest.raises(openai.APIStatusError) as refused:
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=50_000)
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_credits"
    body: Any = refused.value.body
    assert (body["available"], body["held"]) == ("100", "0")
    assert model.requests == 0
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_errors_have_their_own_classes(client: openai.AsyncOpenAI, base_url: str) -> None:
    """The client raises the class that fits the error."""
    with pytest.raises(openai.BadRequestError, match="no price"):
        await client.chat.completions.create(model="unheard-of", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=-1)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="nobody").chat.completions.create(model="m", messages=MESSAGES)


async def test_the_sync_client(base_url: str, accounts: Accounts) -> None:
    """The client for threads sees the same."""

    def run() -> str:
        with openai.OpenAI(api_key="u1", base_url=base_url) as client:
            plain = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=100)
            stream = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=100, stream=True)
            text = "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
            with pytest.raises(openai.APIStatusError) as refused:
                client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=50_000)
            assert refused.value.status_code == 402
            return (plain.choices[0].message.content or "") + text

    assert await asyncio.to_thread(run) == "hello" + "x" * 20 + "y" * 20
    assert await accounts.settled() == Decimal("0.42")
