"""OpenAI's client and its Responses API, against a real uvicorn: plain, streamed, in the background, out of money."""

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
from ducto_redis.middleware import Holds, MeteredRoutes, MeteringMiddleware, meter_background
from tests.middleware.asgi import until
from tests.middleware.conftest import Accounts
from tests.middleware.responses import Events, message, response
from tests.middleware.serving import serve

COST = Decimal("0.21")


class Model:
    """A stand-in for a model: streams whose input is "endless" do not end; a background response waits to be `done`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.done = False

    async def create(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        body = self.bodies[-1]
        if body.get("background"):
            return JSONResponse(response("queued", None, background=True))
        if not body.get("stream"):
            return JSONResponse(response(output=[message("hello")]))
        return StreamingResponse(self._pieces(endless=body["input"] == "endless"), media_type="text/event-stream")

    async def _pieces(self, *, endless: bool) -> AsyncIterator[bytes]:
        events = Events()
        try:
            for event in events.start():
                yield event
            yield events.text("x" * 20)
            while endless:
                yield events.text("y" * 20)
                await asyncio.sleep(0)
            yield events.completed(output=[message("x" * 20)])
        finally:
            self.left.set()

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(
            response(output=[message()]) if self.done else response("in_progress", None, background=True)
        )

    async def cancel(self, request: Request) -> Response:
        return JSONResponse(response("cancelled", (10, 5), background=True))

    async def count(self, request: Request) -> Response:
        return JSONResponse({"object": "response.input_tokens", "input_tokens": 7})

    async def compact(self, request: Request) -> Response:
        usage = response()["usage"]
        return JSONResponse({"id": "c", "object": "response.compaction", "created_at": 1, "output": [], "usage": usage})


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def client(manager: AsyncCreditManager, model: Model) -> AsyncIterator[openai.AsyncOpenAI]:
    def account(scope: Scope) -> str | None:
        token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        return None if token == "nobody" else token

    await manager.add_credits("poor", "1.2")
    routes = [
        Route("/v1/responses", model.create, methods=["POST"]),
        Route("/v1/responses/input_tokens", model.count, methods=["POST"]),
        Route("/v1/responses/compact", model.compact, methods=["POST"]),
        Route("/v1/responses/{id}", model.retrieve),
        Route("/v1/responses/{id}/cancel", model.cancel, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(
        MeteringMiddleware,
        manager=manager,
        account=account,
        metered=MeteredRoutes(prefixes=("/v1",)),
        holds=Holds(strategy="incremental", step_tokens=20),
    )
    async with (
        serve(app) as port,
        openai.AsyncOpenAI(api_key="u1", base_url=f"http://127.0.0.1:{port}/v1") as client,
    ):
        yield client


async def test_plain(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """A plain response carries its cost in the headers."""
    raw = await client.responses.with_raw_response.create(model="m", input="hello", max_output_tokens=100)
    assert raw.headers["x-credits-charged"] == "0.21"
    assert raw.parse().output_text == "hello"
    assert await accounts.spent() == COST


async def test_streamed(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """A streamed response arrives whole, through the helper that gathers it, too."""
    async with client.responses.stream(model="m", input="hello", max_output_tokens=100) as stream:
        types = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert final.output_text == "x" * 20
    assert await accounts.settled() == COST


async def test_cancelled(client: openai.AsyncOpenAI, accounts: Accounts, model: Model) -> None:
    """A stream that the client closes is charged for what was delivered, once."""
    stream = await client.responses.create(model="m", input="endless", max_output_tokens=1000, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    await model.left.wait()
    assert Decimal("0.05") < await accounts.settled() < 10
    assert [entry.operation for entry in accounts.journal()].count("settle") == 1


async def test_stopped(client: openai.AsyncOpenAI, accounts: Accounts, model: Model) -> None:
    """When the money runs out the stream ends like one that reached its limit, as the client's helper sees it too."""
    poor = client.with_options(api_key="poor")
    async with poor.responses.stream(model="m", input="endless", max_output_tokens=100_000) as stream:
        events = [event async for event in stream]
    await model.left.wait()
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert last.response.output_text == "".join(texts)
    assert last.sequence_number == events[-2].sequence_number + 1
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == -(-len("".join(texts)) // 4)

    async def closed() -> bool:
        return not await accounts.held("poor")

    await until(closed)
    balance = await accounts.manager.get_balance("poor")
    assert Decimal("0.5") < Decimal("1.2") - balance.balance <= Decimal("1.2")


async def test_refused(client: openai.AsyncOpenAI, model: Model) -> None:
    """402 raises at once and is not tried again."""
    with pytest.raises(openai.APIStatusError) as refused:
        await client.responses.create(model="m", input="hello", max_output_tokens=50_000)
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_credits")
    assert model.bodies == []
    with pytest.raises(openai.BadRequestError, match="max_output_tokens"):
        await client.responses.create(model="m", input="hello", max_output_tokens=-1)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="nobody").responses.create(model="m", input="hello")


async def test_in_the_background(client: openai.AsyncOpenAI, accounts: Accounts, model: Model) -> None:
    """A response in the background is polled for nothing, until a poll shows it done; its webhook comes too late."""
    started = await client.responses.create(model="m", input="hello", max_output_tokens=100, background=True)
    assert started.status == "queued"
    assert (await client.responses.retrieve(started.id)).status == "in_progress"
    assert await accounts.held() > 0
    model.done = True
    done = await client.responses.retrieve(started.id)
    assert await accounts.spent() == COST
    again = await meter_background(accounts.manager, done)
    assert again is not None
    assert again.replayed
    assert await accounts.spent() == COST


async def test_cancelled_in_the_background(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """A response that is cancelled costs what it reports."""
    started = await client.responses.create(model="m", input="hello", max_output_tokens=100, background=True)
    await client.responses.cancel(started.id)
    assert await accounts.spent() == Decimal("0.06")


async def test_counting_and_compacting(client: openai.AsyncOpenAI, accounts: Accounts) -> None:
    """To count tokens is free, also under a metered prefix; to compact a conversation is charged."""
    assert (await client.responses.input_tokens.count(model="m", input="hello")).input_tokens == 7
    assert await accounts.spent() == 0
    await client.responses.compact(model="m", input="hello")
    assert await accounts.spent() == COST
