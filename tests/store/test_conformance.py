"""The conformance suite, over every store of ours, every link and every server."""

import copy
from collections.abc import Iterator
from functools import cache

import pytest

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts
from ducto_redis.store import CreditStore, MemoryStore, RedisStore
from ducto_redis.store.conformance import StoreConformance, StoreFactory


@cache
def scripts_at(clock_offset_ms: int, *, shebang: bool = True) -> Scripts:
    """The scripts with a moved clock, read once for all tests."""
    return load_scripts(clock_offset_ms=clock_offset_ms, shebang=shebang)


class TestMemoryStore(StoreConformance):
    """MemoryStore: the scripts under fakeredis and lupa."""

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        first = MemoryStore()

        def make(*, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
            store = copy.copy(first)
            store.namespace = Namespace("ducto", partitions)
            store.operations = Operations(store.namespace, scripts_at(clock_offset_ms, shebang=False))
            store.journal_limit = journal_limit
            return store

        return make


class TestRedisStore(StoreConformance):
    """RedisStore on Valkey and on Redis, over the link of an event loop and the link of threads."""

    @pytest.fixture(params=["event loop", "threads"])
    def store_factory(self, request: pytest.FixtureRequest, server_url: str, namespace: str) -> Iterator[StoreFactory]:
        blocking = request.param == "threads"
        opened: list[RedisStore] = []

        def make(*, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
            store = RedisStore(
                server_url,
                namespace=namespace,
                partitions=partitions,
                blocking=blocking,
                timeout_seconds=30,
                journal_limit=journal_limit,
                scripts=scripts_at(clock_offset_ms),
            )
            opened.append(store)
            return store

        yield make
        client = RedisStore(server_url, namespace=namespace).redis()
        keys = list(client.scan_iter(f"{namespace}:*", count=10_000))
        if keys:
            client.delete(*keys)
        client.close()
