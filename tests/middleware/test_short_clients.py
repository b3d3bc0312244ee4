"""What the real clients of OpenAI, Anthropic and Google make of an account that is short: the right exception, at once,
and tried again only where that can succeed; and of a stream that ends because the money did."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, MeteringMiddleware
from tests.middleware.asgi import DONE, chunk, completion, usage_chunk
from tests.middleware.serving import serve
from tests.middleware.test_anthropic_client import HEAD, MESSAGES, delta
from tests.middleware.test_anthropic_client import event as anthropic_event
from tests.middleware.test_gemini_client import answer as gemini_answer

WORDS = [f"{number:3d}" for number in range(200)]
CHUNK = {"id": "1", "created": 1, "model": "m"}


class Failure(Struct):
    """What a client raised: the class, its status, and the details that it makes of the body."""

    kind: type[Exception]
    status: int
    details: dict[str, Any]


class Service:
    """A model behind three APIs, and how often clients asked for it."""

    def __init__(self) -> None:
        self.asked = 0
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = json.loads((await receive())["body"])
        path = scope["path"]
        if path.endswith("/chat/completions"):
            whole = completion(10, 20, text="hi", **CHUNK)
            pieces = [chunk(word, **CHUNK) for word in WORDS] + [usage_chunk(10, 200), DONE]
        elif path.endswith("/messages"):
            usage = {"input_tokens": 10, "output_tokens": 20}
            whole = {**HEAD, "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": usage}
            start = {**HEAD, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
            pieces = [
                anthropic_event("message_start", message=start),
                anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
                *map(delta, WORDS),
            ]
        else:
            whole = gemini_answer("hi", {"promptTokenCount": 10, "candidatesTokenCount": 20}, "STOP")
            pieces = [b"data: " + json.dumps(gemini_answer(word)).encode() + b"\r\n\r\n" for word in WORDS]
        is_stream = path.endswith(":streamGenerateContent") or body.get("stream", False)
        kind = b"text/event-stream" if is_stream else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in pieces if is_stream else [json.dumps(whole).encode()]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask_openai(self, account: str, max_tokens: int, *, streams: bool = False) -> Any:
        async with openai.AsyncOpenAI(api_key=account, base_url=f"{self.url}/v1") as client:
            options: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": max_tokens}
            if not streams:
                return await client.chat.completions.create(**options)
            parts = [part async for part in await client.chat.completions.create(**options, stream=True)]
            texts = [choice.delta.content or "" for part in parts for choice in part.choices]
            return texts, parts[-1].choices[0].finish_reason

    async def ask_anthropic(self, account: str, max_tokens: int, *, streams: bool = False) -> Any:
        async with anthropic.AsyncAnthropic(api_key=account, base_url=self.url) as client:
            options: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": max_tokens}
            if not streams:
                return await client.messages.create(**options)
            async with client.messages.stream(**options) as stream:
                texts = [text async for text in stream.text_stream]
                return texts, (await stream.get_final_message()).stop_reason

    async def ask_google(self, account: str, max_tokens: int, *, streams: bool = False) -> Any:
        # Without options of its own this client never tries again.
        options = types.HttpOptions(
            base_url=self.url, retry_options=types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.01)
        )
        config = types.GenerateContentConfig(max_output_tokens=max_tokens)
        async with genai.Client(api_key=account, http_options=options).aio as client:
            if not streams:
                return await client.models.generate_content(model="m", contents="hello", config=config)
            stream = await client.models.generate_content_stream(model="m", contents="hello", config=config)
            parts = [part async for part in stream]
            assert parts[-1].candidates is not None
            reason = parts[-1].candidates[0].finish_reason
            return [part.text or "" for part in parts], reason and reason.name

    async def failure(self, ask: Callable[..., Awaitable[Any]], account: str, max_tokens: int = 20_000) -> Failure:
        """What a client raises."""
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError, errors.APIError)) as raised:
            await ask(account, max_tokens)
        error: Any = raised.value
        if isinstance(error, errors.APIError):
            info = error.details["error"]["details"][0]
            return Failure(type(error), error.code, {"code": info["reason"].lower(), **info["metadata"]})
        details = error.body["error"] if isinstance(error, anthropic.APIStatusError) else error.body
        return Failure(type(error), error.status_code, details)


def key_of(scope: Scope) -> str:
    headers = dict(scope["headers"])
    for name in (b"x-goog-api-key", b"x-api-key", b"authorization"):
        if name in headers:
            return str(headers[name].decode().removeprefix("Bearer "))
    return ""


@pytest.fixture
async def service(manager: AsyncCreditManager) -> AsyncIterator[Service]:
    """The service, behind a real uvicorn; holds of streams grow by ten tokens."""
    service = Service()

    app = MeteringMiddleware(
        service, manager=manager, account=key_of, holds=Holds(strategy="incremental", step_tokens=10)
    )

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        service.asked += scope["type"] == "http"
        await app(scope, receive, send)

    async with serve(counted, lifespan="off") as port:
        service.url = f"http://127.0.0.1:{port}"
        yield service


CLIENTS = ["openai", "anthropic", "google"]
CLASSES: dict[str, dict[int, type[Exception]]] = {
    "openai": {402: openai.APIStatusError, 429: openai.RateLimitError, 403: openai.PermissionDeniedError},
    "anthropic": {
        402: anthropic.PaymentRequiredError,
        429: anthropic.RateLimitError,
        403: anthropic.PermissionDeniedError,
    },
    "google": {402: errors.ClientError, 429: errors.ClientError, 403: errors.ClientError},
}


def asking(service: Service, client: str) -> Callable[..., Awaitable[Any]]:
    ask: Callable[..., Awaitable[Any]] = getattr(service, f"ask_{client}")
    return ask


@pytest.mark.parametrize("client", CLIENTS)
async def test_too_few_credits(client: str, service: Service) -> None:
    """One request, one exception, with what would pass; and that passes."""
    ask = asking(service, client)
    failure = await service.failure(ask, "u1")
    assert (failure.kind, failure.status) == (CLASSES[client][402], 402)
    assert failure.details["code"] == "insufficient_credits"
    assert failure.details["limit_name"] == "balance"
    assert service.asked == 1
    largest = int(failure.details["max_tokens"])
    assert 9_000 < largest < 10_000
    assert await ask("u1", largest)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_a_spend_cap(client: str, service: Service, manager: AsyncCreditManager) -> None:
    """A cap is no matter of seconds: it is not tried again. (Google's client decides by the status alone.)"""
    await manager.set_spend_cap("u1", 5, window="day")
    failure = await service.failure(asking(service, client), "u1")
    assert (failure.kind, failure.status) == (CLASSES[client][429], 429)
    assert (failure.details["code"], failure.details["available"]) == ("spend_cap_reached", "5")
    assert "window_end" in failure.details
    assert service.asked == 1
    assert await asking(service, client)("u1", int(failure.details["max_tokens"]))


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_frozen_account(client: str, service: Service, manager: AsyncCreditManager) -> None:
    """It stays frozen: one request."""
    await manager.freeze("u1", actor="ann", reason="chargeback")
    failure = await service.failure(asking(service, client), "u1", 10)
    assert (failure.kind, failure.status, service.asked) == (CLASSES[client][403], 403, 1)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_too_many_at_once(
    client: str, service: Service, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that runs ends soon: it is tried again after the two seconds that the answer says, and succeeds."""
    plans = {"one": {"max_concurrent": 1}}
    await manager.publish_pricing({"models": {"m": "output_tokens * 0.01"}, "plans": plans})
    await manager.set_user_plan("u1", "one")
    running = await manager.reserve("u1", 1, operation_type="chat")
    slept: list[float] = []
    sleep = asyncio.sleep

    async def wait(seconds: float, *args: Any) -> None:
        if seconds < 1:
            await sleep(seconds)
            return
        slept.append(seconds)
        await manager.release("u1", running.lease_id)

    monkeypatch.setattr("anyio.sleep", wait)
    assert await asking(service, client)("u1", 10)
    assert (slept, service.asked) == ([2.0], 2)


@pytest.mark.parametrize(
    ("client", "reason"), [("openai", "length"), ("anthropic", "max_tokens"), ("google", "MAX_TOKENS")]
)
async def test_a_stream_that_the_money_ends(
    client: str, reason: str, service: Service, manager: AsyncCreditManager
) -> None:
    """The client sees an answer that reached its limit on tokens, whole and without an error."""
    await manager.add_credits("poor", "0.8")
    texts, finished = await asking(service, client)("poor", 500, streams=True)
    texts = [text for text in texts if text]
    assert finished == reason
    assert 20 <= len(texts) < 80
    assert texts == WORDS[: len(texts)]
    while (balance := await manager.get_balance("poor")).held:
        await asyncio.sleep(0.01)
    assert 0 <= balance.balance < 1
