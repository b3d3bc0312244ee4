"""The conformance suite, over every store of ours, every link, every server and a cluster, and the docs' example."""

import copy
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import redis

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts
from ducto_redis.store import CreditStore, MemoryStore, RedisStore
from ducto_redis.store.clients import client_from_url
from ducto_redis.testing import (
    AccountConformance,
    ConcurrencyConformance,
    GrantConformance,
    LeaseConformance,
    LossConformance,
    MakeStore,
    NamespaceConformance,
    StoreConformance,
)
from tests.clusters import Cluster

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@cache
def scripts_at(clock_offset_ms: int, *, shebang: bool = True) -> Scripts:
    """The scripts with a moved clock, read once for all tests."""
    return load_scripts(clock_offset_ms=clock_offset_ms, shebang=shebang)


class TestMemoryStore(StoreConformance):
    """MemoryStore: the scripts under fakeredis and lupa."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        first = MemoryStore()

        def make(namespace: str, *, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
            store = copy.copy(first)
            store.namespace = Namespace(namespace, partitions)
            store.operations = Operations(store.namespace, scripts_at(clock_offset_ms, shebang=False))
            store.operations.journal_limit = journal_limit
            return store

        return make


class OnServer:
    """RedisStore on one server, over the link of an event loop or the link of threads."""

    blocking = False

    @pytest.fixture
    def make_store(self, server_url: str) -> Iterator[MakeStore]:
        used: set[str] = set()

        def make(namespace: str, *, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
            used.add(namespace)
            return RedisStore(
                server_url,
                namespace=namespace,
                partitions=partitions,
                blocking=self.blocking,
                timeout_seconds=30,
                journal_limit=journal_limit,
                scripts=scripts_at(clock_offset_ms),
            )

        yield make
        client = RedisStore(server_url).redis()
        for namespace in used:
            if keys := list(client.scan_iter(f"{namespace}:*", count=10_000)):
                client.delete(*keys)
        client.close()


class EveryOperation(
    AccountConformance,
    ConcurrencyConformance,
    GrantConformance,
    LeaseConformance,
    LossConformance,
    NamespaceConformance,
):
    """The part of the suite that shows how commands reach a store: what a script decides is told once a server."""


class TestRedisStore(OnServer, StoreConformance):
    """The whole suite, on Valkey and on Redis."""


class TestRedisStoreWithThreads(OnServer, EveryOperation):
    """Every operation over the link of threads."""

    blocking = True


@pytest.fixture(scope="module")
def cluster_client(cluster: Cluster) -> Iterator[redis.Redis]:
    """A client of the session's cluster."""
    client = client_from_url(cluster.url)
    yield client
    client.close()


@pytest.fixture
def make_store_on_cluster(cluster: Cluster, cluster_client: redis.Redis) -> Iterator[MakeStore]:
    """Makes stores on the session's cluster, whose keys are removed afterwards."""
    used: set[str] = set()

    def make(namespace: str, *, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
        used.add(namespace)
        return RedisStore(
            cluster.url,
            namespace=namespace,
            partitions=partitions,
            timeout_seconds=30,
            journal_limit=journal_limit,
            scripts=scripts_at(clock_offset_ms),
        )

    yield make
    for namespace in used:
        cluster_client.delete(*cluster_client.scan_iter(f"{namespace}:*", count=10_000))


class OnCluster:
    """RedisStore on a Redis Cluster, whose nodes have some partitions each."""

    @pytest.fixture
    def make_store(self, make_store_on_cluster: MakeStore) -> MakeStore:
        return make_store_on_cluster


class TestOperationsOnCluster(OnCluster, EveryOperation):
    """Every operation: that its keys are in one slot, and where its answer comes from."""


@pytest.mark.long
class TestRedisStoreOnCluster(OnCluster, StoreConformance):
    """The whole suite."""


class OnDictStore:
    """The example of docs/custom-stores.md, which runs the scripts as MemoryStore does."""

    @pytest.fixture
    def make_store(self, monkeypatch: pytest.MonkeyPatch) -> MakeStore:
        monkeypatch.syspath_prepend(EXAMPLES)
        make: MakeStore = importlib.import_module("dict_store").make_store
        return make


class TestDictStore(OnDictStore, EveryOperation):
    """Every operation."""


@pytest.mark.long
class TestWholeDictStore(OnDictStore, StoreConformance):
    """The whole suite."""
