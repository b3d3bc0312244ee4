"""Metered clients of event loops: the real openai, anthropic and google-genai clients, against a provider on a port."""

import asyncio
import gc
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.clients import credit_error, metered, paid_by
from ducto_redis.errors import ConfigError, InsufficientCreditsError
from tests.clients.conftest import FUNDS, MESSAGES, WHOLE, flags, spent_by
from tests.clients.provider import Provider


@pytest.fixture
async def client(provider: Provider, manager: AsyncCreditManager) -> AsyncIterator[openai.AsyncOpenAI]:
    plain = openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0)
    async with metered(plain, manager, account="u1") as client:
        yield client


async def ask(client: openai.AsyncOpenAI, **options: Any) -> Any:
    return await client.chat.completions.create(**{"model": "m", "messages": MESSAGES, "max_tokens": 100, **options})


async def test_plain(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """A plain answer is charged when it is there, and its headers say what it cost."""
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=100)
    assert raw.headers["x-credits-charged"] == "0.21"
    assert (await manager.get_balance("u1")).balance == FUNDS - WHOLE


async def test_streamed(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """A stream is charged what it reports, though its caller asked for no report and gets none."""
    chunks = [chunk async for chunk in await ask(client, stream=True)]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "x" * 20 + "y" * 20
    assert await spent_by(manager) == WHOLE


async def test_closed_early(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """A stream that its caller closes is charged what was delivered, and the provider is told to stop."""
    provider.endless = True
    async with await ask(client, stream=True) as stream:
        await anext(aiter(stream))
    assert await asyncio.to_thread(provider.left.wait, 10)
    assert 0 < await spent_by(manager) < WHOLE


async def test_cancelled(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """A task that is cancelled in the middle of a stream is charged what was delivered."""
    provider.endless = True
    first = asyncio.Event()

    async def consume() -> None:
        async for _ in await ask(client, stream=True):
            first.set()

    task = asyncio.create_task(consume())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(provider.left.wait, 10)
    assert 0 < await spent_by(manager) < WHOLE


async def test_cancelled_before_the_answer(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """A task that is cancelled before the provider answers costs nothing."""
    sent = asyncio.Event()
    never = asyncio.Event()

    async def hook(request: Any) -> None:
        sent.set()
        await never.wait()

    async with httpx2.AsyncClient(event_hooks={"request": [hook]}) as http_client:
        task = asyncio.create_task(ask(metered(client.with_options(http_client=http_client), manager, account="u1")))
        await sent.wait()
        assert (await manager.get_balance("u1")).held > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await spent_by(manager) == 0


async def test_dropped(provider: Provider, manager: AsyncCreditManager) -> None:
    """A stream that its caller neither ends nor closes is charged once nobody has it any more."""
    provider.endless = True
    async with httpx2.AsyncClient(base_url=provider.url) as http_client:
        client = metered(http_client, manager, account="u1")
        question = {"model": "m", "messages": MESSAGES, "stream": True}
        response = await client.send(client.build_request("POST", "/v1/chat/completions", json=question), stream=True)
        await response.stream._answer.aclose()  # type: ignore[attr-defined]  # as the collector would, with a warning
        del response
        gc.collect()
        assert 0 < await spent_by(manager) < WHOLE


async def test_an_error_releases_its_hold_at_once(provider: Provider, manager: AsyncCreditManager) -> None:
    """Whoever gets an error and tries again finds the hold released, before the error's body was read."""
    provider.failures = [500]
    async with metered(httpx2.AsyncClient(base_url=provider.url), manager, account="u1") as client:
        question = {"model": "m", "messages": MESSAGES, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=question) as response:
            assert response.status_code == 500
            assert (await manager.get_balance("u1")).held == 0


async def test_tried_again(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """An attempt that failed releases its hold; the one that succeeds is charged."""
    provider.failures = [500]
    await ask(client.with_options(max_retries=1))
    assert len(provider.bodies) == 2
    assert await spent_by(manager) == WHOLE


async def test_breaks_off(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """A plain answer that breaks off costs nothing; a stream, what was delivered."""
    provider.breaks = True
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    assert await spent_by(manager) == 0
    with pytest.raises(openai.APIConnectionError):
        async for _ in await ask(client, stream=True):
            pass
    assert 0 < await spent_by(manager) < WHOLE


async def test_refused(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """Who can't pay gets the client's own error at once, with the error behind it; the provider is not asked."""
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(client.with_options(max_retries=5), max_tokens=1_000_000)
    assert caught.value.status_code == 402
    assert isinstance(credit_error(caught.value), InsufficientCreditsError)
    assert provider.bodies == []
    assert await spent_by(manager) == 0


async def test_accounts(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """A coroutine function may say who pays; `paid_by` goes before it, for its task and those that it starts."""

    async def account(request: Any) -> str:
        return "u1"

    await manager.add_credits("u2", FUNDS)
    client = metered(client, manager, account=account)

    async def both() -> None:
        with paid_by("u2"):
            await asyncio.gather(ask(client), ask(client))

    await asyncio.gather(ask(client), both())
    assert (await spent_by(manager), await spent_by(manager, "u2")) == (WHOLE, 2 * WHOLE)


async def test_a_budget(client: openai.AsyncOpenAI, provider: Provider, manager: AsyncCreditManager) -> None:
    """What runs inside of a meter spends from its lease, and no more than that; the rest goes back."""
    async with manager.meter("u1", estimate="1.2") as budget:
        with paid_by(budget):
            await ask(client)
            with pytest.raises(openai.APIStatusError):
                await ask(client)
    assert len(provider.bodies) == 1
    assert await spent_by(manager) == WHOLE


async def test_in_the_background(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """A response in the background stays held, and is charged once by the call that sees it finished."""
    started = await client.responses.create(model="m", input="hello", background=True, max_output_tokens=100)
    assert started.status == "queued"
    assert (await manager.get_balance("u1")).held > 1
    for _ in range(2):
        assert (await client.responses.retrieve(started.id)).status == "completed"
        assert await spent_by(manager) == WHOLE


async def test_anthropic(provider: Provider, manager: AsyncCreditManager) -> None:
    """The anthropic client, plain and streamed."""
    asked: Any = {"model": "m", "messages": MESSAGES, "max_tokens": 100}
    plain = anthropic.AsyncAnthropic(api_key="k", base_url=provider.url)
    async with metered(plain, manager, account="u1") as client:
        assert (await client.messages.create(**asked)).usage.output_tokens == 20
        async with client.messages.stream(**asked) as stream:
            assert await stream.get_final_text() == "x" * 20
    assert await spent_by(manager) == 2 * WHOLE
    assert flags(manager) == [[], []]


async def test_google_genai(provider: Provider, manager: AsyncCreditManager) -> None:
    """The google-genai client takes a metered HTTP client."""
    async with metered(httpx2.AsyncClient(), manager, account="u1") as http_client:
        options = genai.types.HttpOptions(base_url=provider.url, httpx_async_client=http_client)
        client = genai.Client(api_key="k", http_options=options)
        answer = await client.aio.models.generate_content(model="m", contents="hello")
        assert answer.text == "hello"
        config = genai.types.GenerateContentConfig(max_output_tokens=1_000_000)
        with pytest.raises(genai.errors.ClientError) as caught:
            await client.aio.models.generate_content(model="m", contents="hello", config=config)
    assert caught.value.code == 402
    assert isinstance(credit_error(caught.value), InsufficientCreditsError)
    assert await spent_by(manager) == WHOLE


async def test_wrong_manager(client: openai.AsyncOpenAI, blocking: CreditManager) -> None:
    """A manager for threads can't meter a client of an event loop, nor the other way round."""
    with pytest.raises(ConfigError, match="AsyncCreditManager"):
        metered(client, blocking)


async def test_renewal_ends(client: openai.AsyncOpenAI, manager: AsyncCreditManager) -> None:
    """Nothing is left to be done once the answers have ended."""
    await ask(client)
    async for _ in await ask(client, stream=True):
        pass
    assert manager.pending.tasks == 0
    assert await spent_by(manager) == 2 * Decimal(WHOLE)
