"""The real google-genai client, sync and async, against a real uvicorn."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, MeteringMiddleware
from tests.middleware.conftest import Accounts
from tests.middleware.serving import serve

LIMIT = types.GenerateContentConfig(max_output_tokens=100)
USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 12, "thoughtsTokenCount": 8, "totalTokenCount": 30}


def answer(text: str, usage: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage or {"promptTokenCount": 10, "totalTokenCount": 10}}


class Model:
    """A stand-in for a model, which counts its requests, and never ends a stream that is asked to be endless."""

    def __init__(self) -> None:
        self.requests = 0
        self.left = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        method = request.path_params["method"].rpartition(":")[2]
        if method == "countTokens":
            return JSONResponse({"totalTokens": 10})
        self.requests += 1
        if method == "generateContent":
            return JSONResponse(answer("hello", USAGE, "STOP"))
        asked = (await request.body()).decode()
        pieces = self._long_pieces() if "long" in asked else self._pieces(endless="endless" in asked)
        return StreamingResponse(pieces, media_type="text/event-stream")

    async def _long_pieces(self) -> AsyncIterator[bytes]:
        for written in range(10, 1000, 10):
            usage = {"promptTokenCount": 10, "candidatesTokenCount": written}
            yield b"data: " + json.dumps(answer("x" * 40, usage)).encode() + b"\r\n\r\n"
            await asyncio.sleep(0)

    async def _pieces(self, *, endless: bool) -> AsyncIterator[bytes]:
        try:
            yield b"data: " + json.dumps(answer("x" * 20)).encode() + b"\r\n\r\n"
            if endless:
                await asyncio.Event().wait()
            yield b"data: " + json.dumps(answer("y" * 20, USAGE, "STOP")).encode() + b"\r\n\r\n"
        finally:
            self.left.set()


@pytest.fixture
async def model() -> Model:
    return Model()


@asynccontextmanager
async def serving(manager: AsyncCreditManager, model: Model, **options: Any) -> AsyncIterator[str]:
    def account(scope: Scope) -> str | None:
        key = dict(scope["headers"]).get(b"x-goog-api-key", b"").decode()
        return None if key == "nobody" else key

    app = Starlette(routes=[Route("/{version}/models/{method}", model.answer, methods=["POST"])])
    app.add_middleware(MeteringMiddleware, manager=manager, account=account, **options)
    async with serve(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def base_url(manager: AsyncCreditManager, model: Model) -> AsyncIterator[str]:
    async with serving(manager, model) as url:
        yield url


def connect(base_url: str, key: str = "u1") -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base_url))


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[genai.client.AsyncClient]:
    async with connect(base_url).aio as client:
        yield client


async def test_plain(client: genai.client.AsyncClient, accounts: Accounts) -> None:
    """A plain answer carries its cost in the headers; its output is candidates and thoughts."""
    found = await client.models.generate_content(model="m", contents="hello", config=LIMIT)
    assert found.text == "hello"
    assert found.sdk_http_response is not None
    assert (found.sdk_http_response.headers or {})["x-credits-charged"] == "0.21"
    assert await accounts.spent() == Decimal("0.21")


async def test_streamed(client: genai.client.AsyncClient, accounts: Accounts) -> None:
    """A streamed answer arrives whole, and is charged its last report."""
    stream = await client.models.generate_content_stream(model="m", contents="hello", config=LIMIT)
    assert "".join([part.text or "" async for part in stream]) == "x" * 20 + "y" * 20
    assert await accounts.settled() == Decimal("0.21")


async def test_cancelled(client: genai.client.AsyncClient, accounts: Accounts, model: Model) -> None:
    """A stream that its reader leaves is charged the prompt that it reported, and the text since."""

    async def read() -> None:
        stream = await client.models.generate_content_stream(model="m", contents="endless", config=LIMIT)
        async for _ in stream:
            arrived.set()

    arrived = asyncio.Event()
    reading = asyncio.create_task(read())
    await arrived.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await model.left.wait()
    assert await accounts.settled() == 10 * Decimal("0.001") + 5 * Decimal("0.01")
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "settle"]


async def test_ended_in_time(manager: AsyncCreditManager, model: Model, accounts: Accounts) -> None:
    """A stream that its account can't pay to the end stops as one that reached its limit, and is charged so far."""
    await manager.add_credits("poor", 1)
    config = types.GenerateContentConfig(max_output_tokens=4000)
    async with (
        serving(manager, model, holds=Holds(strategy="incremental", step_tokens=20)) as url,
        connect(url, "poor").aio as client,
    ):
        parts = [
            part
            async for part in await client.models.generate_content_stream(model="m", contents="long", config=config)
        ]
    (last,) = parts[-1].candidates or ()
    assert last.finish_reason == types.FinishReason.MAX_TOKENS
    tokens = sum(len(part.text or "") for part in parts) // 4
    assert 40 <= tokens <= 99 + 20
    await accounts.settled("poor")
    assert 1 - (await manager.get_balance("poor")).balance == 10 * Decimal("0.001") + tokens * Decimal("0.01")


async def test_counting_tokens_is_free(base_url: str, accounts: Accounts) -> None:
    """Tokens are counted for whoever asks."""
    async with connect(base_url, "nobody").aio as client:
        counted = await client.models.count_tokens(model="m", contents="hello")
    assert counted.total_tokens == 10
    assert await accounts.spent() == 0


async def test_refused(client: genai.client.AsyncClient, model: Model) -> None:
    """402 raises at once, with what a program needs, and is not tried again."""
    config = types.GenerateContentConfig(max_output_tokens=20_000)
    with pytest.raises(errors.ClientError) as refused:
        await client.models.generate_content(model="m", contents="hello", config=config)
    assert refused.value.code == 402
    (about, *_) = refused.value.details["error"]["details"]
    assert about["reason"] == "INSUFFICIENT_CREDITS"
    assert about["metadata"]["available"] == "100"
    assert model.requests == 0
    with pytest.raises(errors.ClientError, match="no price"):
        await client.models.generate_content(model="unheard-of", contents="hello")
    with pytest.raises(errors.ClientError) as refused:
        async for _ in await client.models.generate_content_stream(model="m", contents="hello", config=config):
            pass
    assert refused.value.code == 402


async def test_the_sync_client(base_url: str, accounts: Accounts) -> None:
    """The client for threads sees the same."""

    def run() -> str:
        with connect(base_url) as client:
            plain = client.models.generate_content(model="m", contents="hello", config=LIMIT)
            stream = client.models.generate_content_stream(model="m", contents="hello", config=LIMIT)
            return (plain.text or "") + "".join(part.text or "" for part in stream)

    assert await asyncio.to_thread(run) == "hello" + "x" * 20 + "y" * 20
    assert await accounts.settled() == Decimal("0.42")
