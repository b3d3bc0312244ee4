"""What contenders run on: the servers of this run, how much there is to do, and a namespace of their own."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from msgspec import Struct

from benchmarks.servers import DurablePostgres
from ducto_redis import AsyncCreditManager

DOCUMENT = {
    "version": 1,
    "models": {
        "gpt-4o": "uncached_input_tokens * 0.0025 + cache_read_tokens * 0.00125 + output_tokens * 0.01",
        "_default": "input_tokens * (0.01 / 1000) + output_tokens * (0.03 / 1000)",
    },
}
PLENTY = 1_000_000_000
"""Credits that no contender can spend."""


class Setting(Struct, frozen=True):
    """What a run gives to the families.

    Attributes:
        redis_url: the server.
        postgres: PostgreSQL, where it is installed.
        folder: where files may be written; it is gone after the run.
        scale: the share of the full work that is done.
        seed: of everything that is random.
    """

    redis_url: str
    postgres: DurablePostgres | None
    folder: Path
    scale: float
    seed: int

    def count(self, full: int) -> int:
        """How many to do where a full run does `full`."""
        return max(1, round(full * self.scale))

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """The name of a namespace that is new, and whose keys are gone afterwards. All names have the same length."""
        name = f"bench-{secrets.token_hex(4)}"
        try:
            yield name
        finally:
            with redis.Redis.from_url(self.redis_url) as client:
                delete_keys(client, name)

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """A client that speaks the links' protocol."""
        with redis.Redis.from_url(self.redis_url, protocol=2) as client:
            yield client


async def prepare(manager: AsyncCreditManager, *accounts: str) -> None:
    """Publish the pricing document, and give each account plenty."""
    await manager.publish_pricing(DOCUMENT)
    await asyncio.gather(*(manager.add_credits(account, PLENTY) for account in accounts))


async def prepare_namespace(setting: Setting, namespace: str, *accounts: str) -> None:
    """`prepare`, by a manager of its own that is closed again."""
    async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
        await prepare(manager, *accounts)


def delete_keys(client: redis.Redis, namespace: str) -> None:
    """Delete every key of a namespace."""
    cursor = -1
    while cursor:
        cursor, keys = client.scan(max(cursor, 0), match=f"{namespace}:*", count=2000)
        if keys:
            client.unlink(*keys)
