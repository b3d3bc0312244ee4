"""The setting of contenders: a server, an amount of work, and a namespace of their own."""

import asyncio
import random
import secrets
import signal
import string
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import redis
from msgspec import Struct

from ducto_redis.manager import AsyncCreditManager

DOCUMENT = {
    "version": 1,
    "models": {
        "gpt-4o": "uncached_input_tokens * 0.0025 + cache_read_tokens * 0.00125 + output_tokens * 0.01",
        "_default": "input_tokens * (0.01 / 1000) + output_tokens * (0.03 / 1000)",
    },
}
PLENTY = 1_000_000_000
"""Credits that no contender can spend."""

ACCOUNT = "customer-hottest"
"""The one hot account; as long as the names of `account_names`."""

_LETTERS = string.ascii_lowercase + string.digits
_COPIES_AT_ONCE = 1_000
_COPY = "for i = 2, #KEYS do redis.call('COPY', KEYS[1], KEYS[i], 'REPLACE') end"


class Setting(Struct, frozen=True):
    """The setting that a run gives to the families.

    Attributes:
        redis_url: the server.
        scale: the share of the full work that is done.
        seed: of everything that is random.
    """

    redis_url: str
    scale: float
    seed: int

    def count(self, full: int) -> int:
        """Return the amount of work where a full run does `full`."""
        return max(1, round(full * self.scale))

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """Yield the name of a new namespace, whose keys are gone afterwards. All names have the same length."""
        name = f"bench-{''.join(secrets.choice(_LETTERS) for _ in range(8))}"
        try:
            yield name
        finally:
            with _signals_deferred(), self.redis() as client:
                delete_keys(client, name)

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """Return a client that speaks the links' protocol."""
        with redis.Redis.from_url(self.redis_url, protocol=2) as client:
            yield client


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let what would interrupt the run wait until this is done."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: received.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if received:
            raise KeyboardInterrupt


async def prepare(manager: AsyncCreditManager, *accounts: str) -> None:
    """Publish the pricing document, and give each account plenty."""
    await manager.publish_pricing(DOCUMENT)
    await asyncio.gather(*(manager.add_credits(account, PLENTY) for account in accounts))


async def prepare_namespace(setting: Setting, namespace: str, *accounts: str) -> None:
    """`prepare`, by a manager of its own that is closed again."""
    async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
        await prepare(manager, *accounts)


def account_names(count: int) -> list[str]:
    """Names of accounts, all as long as ACCOUNT."""
    return [f"customer-{number:07d}" for number in range(count)]


def some_of(accounts: Sequence[str], count: int, seed: int) -> list[str]:
    """Accounts that are drawn at random, `count` times."""
    return random.Random(seed).choices(accounts, k=count)


def delete_keys(client: redis.Redis, namespace: str) -> None:
    """Delete every key of a namespace."""
    cursor = -1
    while cursor:
        cursor, keys = client.scan(max(cursor, 0), match=f"{namespace}:{{*", count=2000)
        if keys:
            client.unlink(*keys)


def copy_account(client: redis.Redis, source: bytes, targets: Iterable[bytes]) -> None:
    """Copy an account's hash to other accounts' keys: they are as after the same changes, and there much sooner."""
    copy = client.register_script(_COPY)
    waiting: list[bytes] = []
    for target in targets:
        waiting.append(target)
        if len(waiting) == _COPIES_AT_ONCE:
            copy(keys=[source, *waiting])
            waiting.clear()
    if waiting:
        copy(keys=[source, *waiting])
