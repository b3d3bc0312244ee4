"""Managers over real stores."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.store import RedisStore

DOCUMENT = {
    "version": 1,
    "models": {
        "gpt-4o": "input_tokens * 0.001 + output_tokens * 0.002",
        "render": "gpu_seconds * 0.4",
    },
    "measures": ["gpu_seconds"],
    "fixed": {"daily_report": 10},
}

DEARER = {**DOCUMENT, "models": {"gpt-4o": "input_tokens * 0.002 + output_tokens * 0.004"}}


@pytest.fixture
async def manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    """A manager on Valkey with prices published."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.fixture
async def other(valkey_url: str, namespace: str, manager: AsyncCreditManager) -> AsyncIterator[AsyncCreditManager]:
    """Another process's manager, so to speak: it shares nothing with `manager` but the server."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as other:
        yield other


@pytest.fixture
def blocking(valkey_url: str, namespace: str) -> Iterator[CreditManager]:
    """A blocking manager on Valkey with prices published."""
    with CreditManager(RedisStore(valkey_url, namespace=namespace, blocking=True)) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager
