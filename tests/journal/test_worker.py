"""The ledger's worker."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine
from tests.servers import PostgresServer


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def running(store: CreditStore, ledger: Ledger) -> Iterator[LedgerWorker]:
    """A worker in a thread."""
    worker = LedgerWorker(store, ledger, backoff_seconds=0.01)
    worker.start_thread()
    yield worker
    worker.stop()
    assert worker.join(30)


def some_life(engine: Engine, accounts: int = 5) -> None:
    for number in range(accounts):
        account = f"u{number}"
        engine.add(account, 100)
        engine.reserve(account, "l1", 30)
        engine.reserve(account, "l2", 20)
        engine.settle(account, "l1", 12)
        engine.deduct(account, 3)


@pytest.mark.smoke
def test_the_ledger_becomes_what_redis_is(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """Every account's state in SQL is exactly its keys in Redis, and every balance is proved."""
    some_life(engine)
    worker = LedgerWorker(store, ledger)
    worker.run_until_idle()
    report = ledger.verify(store=store)
    assert (report.ok, report.accounts, report.compared, report.behind) == (True, 5, 5, 0)
    assert (report.entries, report.balance, report.held) == (25, 5 * 85, 5 * 20)
    assert worker.health().lag == 0


def test_the_ledger_works_with_any_database(engine: Engine, store: CreditStore, ledger_url: str) -> None:
    """On SQLite and on PostgreSQL."""
    some_life(engine)
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        LedgerWorker(store, ledger).run_until_idle()
        assert (ledger.verify(store=store).ok, ledger.verify().entries) == (True, 25)


def test_verify_compares_with_the_engine(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """Money that changed in Redis without an entry is found; changes that the ledger has not read yet are no fault."""
    some_life(engine, accounts=3)
    LedgerWorker(store, ledger).run_until_idle()
    engine.add("u0")
    client, keys = store.redis(), store.namespace.account("u1").keys
    client.hincrby(keys[0], "balance", 1)
    client.delete(store.namespace.account("u2").keys[0])
    report = ledger.verify(store=store)
    reasons = {failure.account: failure.reasons for failure in report.failures}
    assert reasons == {
        "u1": ("engine and ledger differ in the balance: 86 and 85",),
        "u2": ("the engine does not know the account, but the ledger has 5 changes",),
    }
    assert report.behind == 1


def test_a_worker_in_a_thread_keeps_up(engine: Engine, running: LedgerWorker, ledger: Ledger) -> None:
    """It writes what comes, says how it is, and ends when it is told to."""
    some_life(engine)
    until(lambda: running.health().entries_written == 25 and running.health().lag == 0)
    health = running.health()
    assert (health.ready, health.lag, health.dead_letters, health.partitions) == (True, 0, 0, (0, 1, 2, 3))
    assert health.last_commit_ms is not None
    running.stop()
    assert running.join(30)
    assert not running.health().ready


def test_draining_writes_what_is_there(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """A process that ends takes its journal along."""
    worker = LedgerWorker(store, ledger)
    some_life(engine)
    worker.start_thread()
    assert worker.drain_and_stop()
    assert ledger.verify().entries == 25


def test_draining_does_not_wait_for_ever(engine: Engine, store: CreditStore) -> None:
    """With its database away a worker ends all the same; the entries stay in the journal."""
    some_life(engine)
    with Ledger.from_url("postgresql://nobody@127.0.0.1:1/none") as away:
        worker = LedgerWorker(store, away)
        worker.start_thread()
        assert not worker.drain_and_stop(0.2)
    assert worker.health().lag == 25


def test_a_database_that_is_away_is_tried_again(
    engine: Engine, store: CreditStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is acknowledged or given up meanwhile, the worker is not ready, and says why."""
    some_life(engine)
    with Ledger.from_url(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        worker = LedgerWorker(store, ledger, backoff_seconds=0)
        worker.start_thread()
        try:
            until(lambda: caplog.text.count("waits") > 200)  # many times as often as a consumer tries an entry
            health = worker.health()
            assert (health.ready, health.lag, health.dead_letters) == (False, 25, 0)
            assert "ducto ledger migrate" in str(health.database_error)
            ledger.migrate()
            until(lambda: worker.health().lag == 0)
            assert worker.health().ready
        finally:
            worker.stop()
            assert worker.join(30)
        assert (ledger.verify().ok, ledger.verify().entries) == (True, 25)


def test_a_postgresql_that_dies_under_load(
    engine: Engine, store: CreditStore, start_postgres: Callable[[], PostgresServer]
) -> None:
    """Killed and started again in the middle: the ledger is complete, and no entry is there twice."""
    server = start_postgres()
    with server.database() as url, Ledger.from_url(url) as ledger:
        ledger.migrate()
        worker = LedgerWorker(store, ledger, batch=5, backoff_seconds=0.01)
        worker.start_thread()
        try:
            some_life(engine, 20)
            until(lambda: worker.health().entries_written > 0)
            server.kill()
            some_life_of_others(engine)
            until(lambda: worker.health().database_error is not None)
            server.start()
            until(lambda: worker.health().lag == 0)
        finally:
            worker.stop()
            assert worker.join(30)
        report = ledger.verify(store=store)
        assert (report.ok, report.entries, report.failures) == (True, 110, ())


def some_life_of_others(engine: Engine) -> None:
    for number in range(10):
        engine.add(f"other{number}", 5)


def test_an_unreadable_entry_does_not_stop_the_ledger(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """It is stored raw and acknowledged; what follows is written."""
    (account,) = engine.accounts_of(0)
    engine.add(account)
    store.redis().xadd(store.namespace.journal(0), {"entry": f"add_credits\t{account}\tnonsense"})
    engine.add(account)
    worker = LedgerWorker(store, ledger)
    worker.run_until_idle()
    health = worker.health()
    assert (health.lag, health.entries_written, health.entries_unreadable, health.dead_letters) == (0, 2, 1, 0)
    stored = ledger.account(store.namespace.name, account)
    assert stored is not None
    assert stored.marks == ("unreadable",)


def test_an_empty_entry_is_stored_raw(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """It is the ledger's, whether it comes alone or among others: none of them is a dead letter."""
    for fields in ({"entry": ""}, {"other": b"\xff\x00"}):
        store.redis().xadd(store.namespace.journal(0), fields)
        worker = LedgerWorker(store, ledger)
        worker.run_until_idle()
        assert (worker.health().entries_unreadable, worker.health().dead_letters) == (1, 0)


def test_a_sweep_that_fails_does_not_stop_the_ledger(
    engine: Engine, store: CreditStore, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands among what falls due: entries are written, other partitions are swept, and it is told once."""
    (bad,), (good,) = engine.accounts_of(0), engine.accounts_of(1)
    for account in (bad, good):
        engine.add(account, 100)
        engine.reserve(account, "l1", 60, ttl_ms=1)
    store.redis().hset(store.namespace.account(bad).keys[1], "l1", "garbage")
    worker = LedgerWorker(store, ledger, claim_seconds=0.1)
    worker.start_thread()
    try:
        until(lambda: worker.health().leases_expired == 1 and worker.health().lag == 0)
        renewals = threading.Event()
        sweep, swept = worker._sweeper.sweep, iter(range(5))

        def again(partitions: Collection[int]) -> None:
            sweep(partitions)
            if next(swept, None) is None:
                renewals.set()

        worker._sweeper.sweep = again  # type: ignore[method-assign]
        assert renewals.wait(60)
        health = worker.health()
        assert (health.ready, health.entries_written) == (True, 5)
        assert "partition 0 cannot be swept" in str(health.sweep_error)
    finally:
        worker.stop()
        assert worker.join(30)
    assert caplog.text.count("what has fallen due in partition 0") == 1


@pytest.mark.parametrize("what", ["balance", "lease", "kind"])
def test_verify_reads_whatever_the_engine_holds(engine: Engine, store: CreditStore, ledger: Ledger, what: str) -> None:
    """An account that is none any more is a failure of that account, not of the proof."""
    for account in ("u1", "u2"):
        engine.add(account, 100)
    LedgerWorker(store, ledger).run_until_idle()
    client, keys = store.redis(), store.namespace.account("u1").keys
    if what == "balance":
        client.hset(keys[0], "balance", "much")
    elif what == "lease":
        client.hset(keys[1], "l1", b"\xff")
    else:
        client.delete(keys[0])
        client.set(keys[0], "text")
    report = ledger.verify(store=store)
    assert report.failed == 1
    assert report.failures[0].account == "u1"
    assert "cannot be read" in report.failures[0].reasons[0]


def test_what_has_fallen_due_is_swept(engine: Engine, running: LedgerWorker, ledger: Ledger) -> None:
    """A lease that nobody closes is expired by the worker, without anybody touching the account."""
    engine.add("u1", 100)
    engine.reserve("u1", "l1", 60, ttl_ms=1)
    until(lambda: running.health().leases_expired == 1 and running.health().lag == 0)
    entries = ledger.entries(engine.store.namespace.name, "u1")
    assert [entry.operation for entry in entries] == ["expire", "reserve", "add_credits"]
    stored = ledger.account(engine.store.namespace.name, "u1")
    assert stored is not None
    assert stored.held == 0


def test_two_workers_share_the_work(engine: Engine, store: CreditStore, ledger: Ledger) -> None:
    """The ledger is the same as with one."""
    workers = [LedgerWorker(store, ledger, claim_seconds=1) for _ in range(2)]
    for worker in workers:
        worker.start_thread()
    until(lambda: sorted(len(worker.consumer.partitions) for worker in workers) == [2, 2])
    threads = [threading.Thread(target=some_life, args=(engine, 4))]
    for thread in threads:
        thread.start()
        thread.join()
    until(lambda: workers[0].health().lag == 0)
    for worker in workers:
        worker.stop()
        assert worker.join(30)
    assert (ledger.verify(store=store).ok, ledger.verify().entries) == (True, 20)
