"""Signals: refusals that other processes hear of, if they want to, and never more than is good for anybody."""

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditEvent, CreditManager, MemoryStore
from ducto_redis.delivery import EventTail
from ducto_redis.errors import InsufficientCreditsError, StoreError
from ducto_redis.events.types import CapReached, DeductFailed
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore

PATIENCE_SECONDS = 10


@pytest.fixture
def store(valkey_url: str, namespace: str) -> Iterator[RedisStore]:
    store = RedisStore(valkey_url, namespace=namespace, partitions=4, blocking=True)
    yield store
    run_sync(store.close())


@pytest.fixture
def credits(store: RedisStore) -> Iterator[CreditManager]:
    with CreditManager(store) as manager:
        yield manager


def signals_in(store: RedisStore | MemoryStore) -> int:
    client = store.redis()
    return sum(client.xlen(store.namespace.signals(partition)) for partition in range(store.namespace.partitions))


def refuse(manager: CreditManager, account: str = "u1") -> None:
    with pytest.raises(InsufficientCreditsError):
        manager.deduct(account, 1)


def sent(manager: CreditManager) -> CreditManager:
    """Wait until the manager's own thread has sent what it was to send: its calls are made in order."""
    done = threading.Event()
    manager.later(0, done.set)
    assert done.wait(PATIENCE_SECONDS)
    return manager


def test_nothing_is_kept_where_nobody_listens(credits: CreditManager, store: RedisStore) -> None:
    """Without a worker and a tail, a refusal leaves nothing in Redis."""
    for account in ("u1", "u2"):
        refuse(credits, account)
    assert sent(credits).event_counts.signals == 0
    assert signals_in(store) == 0


def test_nobody_is_asked_again_for_a_while() -> None:
    """A manager that has found that nobody listens does not ask the engine with each refusal."""

    class Asked(MemoryStore):
        times = 0

        async def signal(self, account: str, event: bytes, *, unheard: bool = False) -> bool:
            self.times += 1
            return await super().signal(account, event, unheard=unheard)

    store = Asked()
    with CreditManager(store) as manager:
        for account in ("u1", "u2", "u3"):
            refuse(manager, account)
            sent(manager)
    assert store.times == 1


def test_who_listens_is_told(credits: CreditManager, store: RedisStore) -> None:
    """Once somebody listens, a refusal reaches them, as the event that this process tells."""
    told: list[CreditEvent] = []
    credits.on("credits.*", told.append)
    tail = EventTail(store)
    assert tail.listen() > 1
    credits.set_spend_cap("u1", 5, window="day")
    credits.add_credits("u1", 100)
    told.clear()
    with suppress(Exception):
        credits.deduct("u1", 6)
    sent(credits)
    signals = [event for event in tail.read_all() if event.transaction_id is None]
    assert signals == told
    assert [type(event.data) for event in signals] == [DeductFailed, CapReached]
    assert signals[1].data.limit == Decimal(5)


def test_a_manager_that_closes_tells_what_it_has_to_tell(store: RedisStore) -> None:
    """A refusal just before the end of a process is told all the same."""
    with CreditManager(store) as manager:
        manager.signals = True
        refuse(manager)
    assert manager.event_counts.signals == 1
    assert signals_in(store) == 1


def test_signals_can_be_kept_or_turned_off(credits: CreditManager, store: RedisStore) -> None:
    """`signals = True` keeps refusals though nobody listens yet; False sends none though somebody does."""
    credits.signals = True
    refuse(credits)
    assert sent(credits).event_counts.signals == 1
    assert signals_in(store) == 1
    credits.signals = False
    EventTail(store).listen()
    refuse(credits, "u2")
    sent(credits)
    assert signals_in(store) == 1


def test_the_stream_is_bounded(store: RedisStore) -> None:
    """However much is refused, a partition keeps about a thousand signals."""
    run_sync(store.create_namespace())
    for _ in range(3000):
        run_sync(store.signal("u1", b"{}", unheard=True))
    assert 1000 <= signals_in(store) < 1200


async def test_the_async_manager_sends_in_a_task(valkey_url: str, namespace: str, store: RedisStore) -> None:
    """A refusal is raised at once; its signal is sent by a task that `close` waits for."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace, partitions=4) as manager:
        manager.signals = True
        with pytest.raises(InsufficientCreditsError):
            await manager.deduct("u1", 1)
    assert manager.event_counts.signals == 1
    assert signals_in(store) == 1


def test_a_signal_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where signals cannot be sent, refusals are refused all the same; one line says so, further ones are counted."""

    class Full(MemoryStore):
        async def signal(self, account: str, event: bytes, *, unheard: bool = False) -> bool:
            raise StoreError("the engine's memory is full")

    with CreditManager(Full()) as manager, caplog.at_level(logging.WARNING, "ducto_redis.events"):
        for account in ("u1", "u2", "u3"):
            refuse(manager, account)
        assert sent(manager).event_counts.signal_errors == 3
    assert len([record for record in caplog.records if "memory is full" in record.message]) == 1
