"""Fixtures for the tests of consumers."""

from collections.abc import Iterator

import pytest

from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store.contract import CreditStore
from ducto_redis.store.memory import MemoryStore
from ducto_redis.store.redis import RedisStore
from tests.journal.engine import Engine

PARTITIONS = 4


@pytest.fixture
def valkey_store(valkey_url: str, namespace: str) -> Iterator[CreditStore]:
    """A namespace on a real Valkey."""
    store = RedisStore(valkey_url, namespace=namespace, partitions=PARTITIONS, blocking=True)
    yield store
    run_sync(store.close())


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> CreditStore:
    """A namespace that was not created yet; the test runs in memory and on a real Valkey."""
    if request.param == "memory":
        return MemoryStore(partitions=PARTITIONS)
    store: CreditStore = request.getfixturevalue("valkey_store")
    return store


@pytest.fixture
def engine(store: CreditStore) -> Engine:
    """A namespace that was created."""
    engine = Engine(store)
    engine.create()
    return engine


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger in memory."""
    with Ledger.from_url("sqlite://") as ledger:
        ledger.migrate()
        yield ledger
