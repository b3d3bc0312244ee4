"""Links under load while their connections are cut, halved, stalled and delayed: every charge is made once."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.engine.entry import decode_entry
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from tests.engine.proxy import Proxy
from tests.searching import chosen_seed

TIMEOUT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10 * TIMEOUT_SECONDS
"""That a caller waits beyond its deadline is a fault of the link; how late a busy machine wakes it is not."""
CALLERS = 24
CREDITS = 10_000_000


@contextmanager
def faults(proxy: Proxy, seconds: float, seed: int) -> Iterator[threading.Event]:
    """Break connections in every way and at any moment, for so long. Yields what says that it is over."""
    draw, over = random.Random(seed), threading.Event()

    def delay_replies() -> None:
        proxy.hold_replies()
        time.sleep(draw.uniform(0, 0.2))
        proxy.release_replies()

    ways = [
        proxy.cut,
        proxy.cut_before_next_reply,
        proxy.half_close_before_next_reply,
        proxy.cut_in_the_middle_of_next_reply,
        proxy.silence,
        delay_replies,
    ]

    def break_connections() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            draw.choice(ways)()
            time.sleep(draw.uniform(0, 0.15))
        over.set()

    thread = threading.Thread(target=break_connections)
    thread.start()
    try:
        yield over
    finally:
        thread.join()


class Charges:
    """What was charged, by the callers' account."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.longest = 0.0

    def check(self, url: str, namespace: str) -> None:
        """The engine says the same: each charge once, no other, and every credit accounted for."""
        store = RedisStore(url, namespace=namespace, partitions=1, blocking=True)
        client = store.redis()
        entries = [
            decode_entry(0, entry_id.decode(), fields[b"entry"])
            for entry_id, fields in client.xrange(store.namespace.journal(0))
        ]
        charged = [entry.operation_key for entry in entries if entry.operation == "deduct"]
        assert sorted(charged) == sorted(f"key/{key}" for key in self.made)
        with CreditManager(store) as manager:
            assert manager.get_balance("u1").balance == CREDITS - len(self.made)
        assert self.longest < LONGEST_WAIT_SECONDS

    def unanswered(self, error: StoreUnavailableError, key: str) -> None:
        """The error says with which key it is safe to ask again."""
        assert error.operation_key == key

    def took(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)


@pytest.fixture
def seed() -> int:
    seed = chosen_seed("DUCTO_FAULTS_SEED")
    print(f"DUCTO_FAULTS_SEED={seed}")
    return seed


SECONDS = [3.0, pytest.param(60.0, marks=pytest.mark.long)]


@pytest.mark.parametrize("seconds", SECONDS)
async def test_event_loop(proxy: Proxy, valkey_url: str, namespace: str, seconds: float, seed: int) -> None:
    """Callers of an event loop: whoever is left without an answer asks again with the key that the error names."""
    charges = Charges()
    await asyncio.to_thread(fill, valkey_url, namespace)
    store = RedisStore(proxy.url, namespace=namespace, partitions=1, timeout_seconds=TIMEOUT_SECONDS)

    async def charge(caller: int, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            key = f"{caller}-{number}"
            number += 1
            while True:
                began = time.monotonic()
                try:
                    await manager.deduct("u1", 1, idempotency_key=key)
                    break
                except StoreUnavailableError as error:
                    charges.unanswered(error, key)
                    await asyncio.sleep(0.01)
                finally:
                    charges.took(time.monotonic() - began)
            charges.made.append(key)

    async with AsyncCreditManager(store) as manager:
        with faults(proxy, seconds, seed) as over:
            await asyncio.gather(*(charge(caller, over) for caller in range(CALLERS)))
    await asyncio.to_thread(charges.check, valkey_url, namespace)
    assert proxy.connections > 1


@pytest.mark.parametrize("seconds", SECONDS)
def test_threads(proxy: Proxy, valkey_url: str, namespace: str, seconds: float, seed: int) -> None:
    """The same with threads that share a connection."""
    charges = Charges()
    fill(valkey_url, namespace)
    store = RedisStore(proxy.url, namespace=namespace, partitions=1, blocking=True, timeout_seconds=TIMEOUT_SECONDS)

    def charge(caller: int, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            key = f"{caller}-{number}"
            number += 1
            while True:
                began = time.monotonic()
                try:
                    manager.deduct("u1", 1, idempotency_key=key)
                    break
                except StoreUnavailableError as error:
                    charges.unanswered(error, key)
                    time.sleep(0.01)
                finally:
                    charges.took(time.monotonic() - began)
            charges.made.append(key)

    with CreditManager(store) as manager, faults(proxy, seconds, seed) as over, ThreadPoolExecutor(CALLERS) as threads:
        for done in [threads.submit(charge, caller, over) for caller in range(CALLERS)]:
            done.result()
    charges.check(valkey_url, namespace)
    assert proxy.connections > 1


def fill(url: str, namespace: str) -> None:
    """Create the namespace, and give the account its credits."""
    store = RedisStore(url, namespace=namespace, partitions=1, blocking=True)
    run_sync(store.create_namespace())
    with CreditManager(store) as manager:
        manager.add_credits("u1", CREDITS, durability="fast")
