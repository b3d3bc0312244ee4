"""The engine is away: calls are refused before they are sent, and answers that are given are charged later."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.clients import credit_error, metered
from ducto_redis.errors import StoreUnavailableError
from tests.clients.conftest import FUNDS, MESSAGES, PRICING, WHOLE
from tests.middleware.asgi import completion, until
from tests.servers import Server

QUESTION: Any = {"model": "m", "messages": MESSAGES, "max_tokens": 100}


@pytest.fixture
def server(start_valkey: Callable[..., Server]) -> Server:
    return start_valkey(appendfsync="always")


class Dying:
    """A provider that answers, and while it does, the engine goes away."""

    def __init__(self, server: Server) -> None:
        self.asked = 0
        self._server = server

    def __call__(self, request: Any) -> httpx2.Response:
        self.asked += 1
        self._server.kill()
        return httpx2.Response(200, json=completion(10, 20, id="1", created=1, model="m"))


def test_for_threads(server: Server) -> None:
    """An answer is given though it can't be charged, the next call is refused, and the charge is made once."""
    provider = Dying(server)
    with CreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        manager.publish_pricing(PRICING)
        manager.add_credits("u1", FUNDS)
        http_client = httpx2.Client(transport=httpx2.MockTransport(provider))
        plain = openai.OpenAI(api_key="k", http_client=http_client, max_retries=0)
        client = metered(plain, manager, account="u1")
        raw = client.chat.completions.with_raw_response.create(**QUESTION)
        assert "x-credits-charged" not in raw.headers
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**QUESTION)
        assert caught.value.status_code == 503
        assert isinstance(credit_error(caught.value), StoreUnavailableError)
        assert provider.asked == 1
        server.start()
    with CreditManager.from_url(server.url) as manager:
        balance = manager.get_balance("u1")
    assert (balance.balance, balance.held) == (FUNDS - WHOLE, Decimal(0))


async def test_for_event_loops(server: Server) -> None:
    """The same."""
    provider = Dying(server)
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(provider))
        plain = openai.AsyncOpenAI(api_key="k", http_client=http_client, max_retries=0)
        client = metered(plain, manager, account="u1")
        await client.chat.completions.create(**QUESTION)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**QUESTION)
        assert isinstance(credit_error(caught.value), StoreUnavailableError)
        assert provider.asked == 1
        server.start()

        async def charged() -> bool:
            return manager.pending.outbox == 0

        await until(charged)
        balance = await manager.get_balance("u1")
        assert (balance.balance, balance.held) == (FUNDS - WHOLE, 0)
