"""The real anthropic client, sync and async, against a real uvicorn."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import anthropic
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, MeteringMiddleware
from tests.middleware.conftest import Accounts
from tests.middleware.serving import serve

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 1, "output_tokens": 20}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


class Model:
    """A stand-in for a model, which counts its requests, and never ends the stream of a user who is "endless"."""

    def __init__(self) -> None:
        self.requests = 0
        self.limits: list[int] = []
        self.left = asyncio.Event()

    async def complete(self, request: Request) -> Response:
        self.requests += 1
        body = await request.json()
        self.limits.append(body["max_tokens"])
        if not body.get("stream"):
            content = [{"type": "text", "text": "hello"}]
            return JSONResponse({**HEAD, "content": content, "stop_reason": "end_turn", "usage": USAGE})
        user = body.get("metadata", {}).get("user_id")
        pieces = self._long_pieces() if user == "long" else self._pieces(endless=user == "endless")
        return StreamingResponse(pieces, media_type="text/event-stream")

    async def count(self, request: Request) -> Response:
        return JSONResponse({"input_tokens": 10})

    async def _long_pieces(self) -> AsyncIterator[bytes]:
        start = {**USAGE, "output_tokens": 1}
        yield event("message_start", message={**HEAD, "content": [], "stop_reason": None, "usage": start})
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for _ in range(100):
            yield delta("x" * 40)
            await asyncio.sleep(0)

    async def _pieces(self, *, endless: bool) -> AsyncIterator[bytes]:
        try:
            start = {**USAGE, "output_tokens": 1}
            yield event("message_start", message={**HEAD, "content": [], "stop_reason": None, "usage": start})
            yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            yield event("ping")
            yield delta("x" * 20)
            if endless:
                await asyncio.Event().wait()
            yield delta("y" * 20)
            yield event("content_block_stop", index=0)
            stop = {"stop_reason": "end_turn", "stop_sequence": None}
            yield event("message_delta", delta=stop, usage={"output_tokens": 20})
            yield event("message_stop")
        finally:
            self.left.set()


@pytest.fixture
async def model() -> Model:
    return Model()


@asynccontextmanager
async def serving(manager: AsyncCreditManager, model: Model, **options: Any) -> AsyncIterator[str]:
    def account(scope: Scope) -> str | None:
        headers = dict(scope["headers"])  # older clients send the key in a header of its own
        key = (headers.get(b"x-api-key") or headers.get(b"authorization", b"")).decode().removeprefix("Bearer ")
        return None if key == "nobody" else key

    routes = [
        Route("/v1/messages", model.complete, methods=["POST"]),
        Route("/v1/messages/count_tokens", model.count, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(MeteringMiddleware, manager=manager, account=account, **options)
    async with serve(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def base_url(manager: AsyncCreditManager, model: Model) -> AsyncIterator[str]:
    async with serving(manager, model) as url:
        yield url


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="u1", base_url=base_url) as client:
        yield client


async def test_plain(client: anthropic.AsyncAnthropic, accounts: Accounts) -> None:
    """A plain message carries its cost in the headers; its input is what was fresh, read and written."""
    raw = await client.messages.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=100)
    assert raw.headers["x-credits-charged"] == "0.21"
    message = await raw.parse()
    assert [getattr(block, "text", None) for block in message.content] == ["hello"]
    assert await accounts.spent() == Decimal("0.21")


async def test_streamed(client: anthropic.AsyncAnthropic, accounts: Accounts) -> None:
    """A streamed message arrives whole, and is charged its totals, which it reports twice."""
    async with client.messages.stream(model="m", messages=MESSAGES, max_tokens=100) as stream:
        assert "x-credits-reserved" in stream.response.headers
        text = "".join([text async for text in stream.text_stream])
    assert text == "x" * 20 + "y" * 20
    assert await accounts.settled() == Decimal("0.21")


async def test_cancelled(client: anthropic.AsyncAnthropic, accounts: Accounts, model: Model) -> None:
    """A stream that the client closes is charged what it has reported, and the text since."""
    stream = await client.messages.create(
        model="m", messages=MESSAGES, max_tokens=100, stream=True, metadata={"user_id": "endless"}
    )
    async for part in stream:
        if part.type == "content_block_delta":
            break
    await stream.close()
    await model.left.wait()
    assert await accounts.settled() == 10 * Decimal("0.001") + 5 * Decimal("0.01")
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "settle"]


async def test_ended_in_time(manager: AsyncCreditManager, model: Model, accounts: Accounts) -> None:
    """A stream that its account can't pay to the end stops as one that reached its limit, and is charged so far."""
    await manager.add_credits("poor", 1)
    async with (
        serving(manager, model, holds=Holds(strategy="incremental", step_tokens=20)) as url,
        anthropic.AsyncAnthropic(api_key="poor", base_url=url) as client,
        client.messages.stream(model="m", messages=MESSAGES, max_tokens=4000, metadata={"user_id": "long"}) as stream,
    ):
        message = await stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    (block,) = message.content
    assert block.type == "text"
    tokens = len(block.text) // 4
    assert message.usage.output_tokens == tokens
    assert 40 <= tokens <= 99 + 20
    await accounts.settled("poor")
    assert 1 - (await manager.get_balance("poor")).balance == 10 * Decimal("0.001") + tokens * Decimal("0.01")


async def test_a_lowered_limit(manager: AsyncCreditManager, model: Model) -> None:
    """A request that its account can't pay whole gets a lower limit instead of a refusal, where that is chosen."""
    await manager.add_credits("poor", 1)
    async with (
        serving(manager, model, holds=Holds(on_short="clamp", min_output_tokens=10)) as url,
        anthropic.AsyncAnthropic(api_key="poor", base_url=url) as client,
    ):
        await client.messages.create(model="m", messages=MESSAGES, max_tokens=4000)
    assert 10 <= model.limits[0] < 100


async def test_counting_tokens_is_free(base_url: str, accounts: Accounts) -> None:
    """Tokens are counted for whoever asks."""
    async with anthropic.AsyncAnthropic(api_key="nobody", base_url=base_url) as client:
        counted = await client.messages.count_tokens(model="m", messages=MESSAGES)
    assert counted.input_tokens == 10
    assert await accounts.spent() == 0


async def test_refused(client: anthropic.AsyncAnthropic, model: Model) -> None:
    """402 raises at once as a billing error, with what a program needs, and is not tried again."""
    with pytest.raises(anthropic.APIStatusError) as refused:
        await client.messages.create(model="m", messages=MESSAGES, max_tokens=20_000)
    assert refused.value.status_code == 402
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "billing_error"
    assert (body["error"]["code"], body["error"]["available"]) == ("insufficient_credits", "100")
    assert model.requests == 0
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_errors_have_their_own_classes(client: anthropic.AsyncAnthropic) -> None:
    """The client raises the class that fits the error."""
    with pytest.raises(anthropic.BadRequestError, match="no price"):
        await client.messages.create(model="unheard-of", messages=MESSAGES, max_tokens=10)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await client.messages.create(model="m", messages=MESSAGES, max_tokens=-1)
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="nobody").messages.create(model="m", messages=MESSAGES, max_tokens=10)


async def test_the_sync_client(base_url: str, accounts: Accounts) -> None:
    """The client for threads sees the same."""

    def run() -> str:
        with anthropic.Anthropic(api_key="u1", base_url=base_url) as client:
            plain = client.messages.create(model="m", messages=MESSAGES, max_tokens=100)
            with client.messages.stream(model="m", messages=MESSAGES, max_tokens=100) as stream:
                text = stream.get_final_text()
            with pytest.raises(anthropic.APIStatusError) as refused:
                client.messages.create(model="m", messages=MESSAGES, max_tokens=20_000)
            assert refused.value.status_code == 402
            return str(getattr(plain.content[0], "text", "")) + text

    assert await asyncio.to_thread(run) == "hello" + "x" * 20 + "y" * 20
    assert await accounts.settled() == Decimal("0.42")
