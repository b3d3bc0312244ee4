"""The blocking face: threads, forks, and what needs an event loop."""

import inspect
import os
import threading
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, MemoryStore, UsageMetrics
from ducto_redis.errors import ConfigError, InsufficientCreditsError
from ducto_redis.store import RedisStore

from .conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


def test_the_faces_agree() -> None:
    """Every public coroutine of the async manager is a blocking method of the other, under the same name."""
    ours = {name for name, _ in inspect.getmembers(CreditManager, callable) if not name.startswith("_")}
    theirs = {
        name
        for name, member in inspect.getmembers(AsyncCreditManager, inspect.iscoroutinefunction)
        if not name.startswith("_")
    } - {"send_charge", "settle_or_later", "release_or_later", "release_if_opened"}  # what managers do for meters
    assert theirs <= ours
    for name in theirs - {"close", "run_billed"}:
        assert getattr(CreditManager, name).__doc__ == getattr(AsyncCreditManager, name).__doc__


def test_threads_share_one_and_nothing_is_overspent(blocking: CreditManager) -> None:
    """32 threads race for 100 credits: exactly 100 are spent."""
    blocking.add_credits("u1", 100)
    admitted = []

    def spend() -> None:
        for _ in range(20):
            try:
                admitted.append(blocking.deduct("u1", 1).amount)
            except InsufficientCreditsError:
                return

    threads = [threading.Thread(target=spend) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 100
    assert blocking.get_available("u1") == 0


def test_a_forked_child_has_connections_of_its_own(blocking: CreditManager) -> None:
    """Parent and child go on side by side with a manager that was used before the fork."""
    blocking.add_credits("u1", 100)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(20):
                blocking.deduct("u1", USAGE)
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        blocking.deduct("u1", USAGE)
    assert os.waitpid(child, 0)[1] == 0
    assert blocking.get_available("u1") == 60


def test_a_store_that_needs_an_event_loop_is_refused(valkey_url: str, namespace: str) -> None:
    """The error says what to use instead."""
    with pytest.raises(ConfigError, match="AsyncCreditManager"):
        CreditManager(RedisStore(valkey_url, namespace=namespace))


def test_run_billed_and_the_rest() -> None:
    """The blocking methods do what the coroutines do."""
    with CreditManager(MemoryStore()) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 10)
        assert manager.run_billed("u1", 5, lambda: ("done", USAGE)).charge.amount == 1
        assert manager.price(USAGE) == 1
        assert manager.pricing_history()[0].version == 1
        lease = manager.reserve("u1", USAGE)
        assert manager.release("u1", lease.lease_id).available == Decimal(9)


def test_memory_with_a_ledger_of_its_own() -> None:
    """memory:// keeps a ledger too, filled by a worker in this process."""
    with CreditManager.from_url("memory://") as manager:
        manager.add_credits("u1", 10)
        manager.deduct("u1", 3)
        manager.wait_for_ledger()
        ledger = manager.core.ledger
        assert ledger is not None
        account = ledger.account("ducto", "u1")
        assert account is not None
        assert (account.balance, account.seq) == (7_000_000, 2)
        assert ledger.verify("ducto").ok
