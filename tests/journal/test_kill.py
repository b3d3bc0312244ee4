"""Workers are killed under load: the ledger is complete, and no entry is there twice."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess

from sqlalchemy import Engine

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store.redis import RedisStore
from tests.journal.engine import Engine as Accounts
from tests.ledger.entries import engine_of

KILLS = 10
ACCOUNTS = 40
CLAIM_SECONDS = 0.5


def work(url: str, namespace: str, ledger_url: str) -> None:
    """A worker process."""
    store = RedisStore(url, namespace=namespace, partitions=4, blocking=True)
    ledger = Ledger.from_url(ledger_url)
    LedgerWorker(store, ledger, batch=20, claim_seconds=CLAIM_SECONDS, backoff_seconds=0.01).run()


def load(url: str, namespace: str, stop: threading.Event, operations: list[int]) -> None:
    """Changes accounts until it is told to stop."""
    store = RedisStore(url, namespace=namespace, partitions=4, blocking=True)
    engine = Accounts(store)
    number = 0
    while not stop.is_set():
        account = f"u{number % ACCOUNTS}"
        engine.add(account, 10)
        engine.reserve(account, f"l{number}", 6)
        engine.settle(account, f"l{number}", 5)
        operations[0] += 3
        number += 1
        time.sleep(0.0005)
    run_sync(store.close())


def test_workers_that_are_killed_lose_and_double_nothing(valkey_url: str, namespace: str, ledger_url: str) -> None:
    """Ten times SIGKILL at a moment of chance, with another worker beside that takes over."""
    store = RedisStore(valkey_url, namespace=namespace, partitions=4, blocking=True)
    Accounts(store).create()
    database = engine_of(ledger_url)
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        context = multiprocessing.get_context("spawn")

        def start() -> BaseProcess:
            process = context.Process(target=work, args=(valkey_url, namespace, ledger_url), daemon=True)
            process.start()
            return process

        stop, operations = threading.Event(), [0]
        loading = threading.Thread(target=load, args=(valkey_url, namespace, stop, operations))
        workers = [start(), start()]
        loading.start()
        try:
            for _ in range(KILLS):
                before = _entries(database)
                deadline = time.monotonic() + 30
                while _entries(database) < before + 50:  # the workers are at work
                    assert time.monotonic() < deadline, "no worker took over"
                    time.sleep(0.01)
                victim = workers.pop(0)
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)
                victim.join(10)
                workers.append(start())
        finally:
            stop.set()
            loading.join(30)
            for worker in workers:
                worker.kill()
                worker.join(10)
        last = LedgerWorker(store, ledger, claim_seconds=CLAIM_SECONDS)
        deadline = time.monotonic() + 30
        while sum(last.consumer.lag().values()):
            assert time.monotonic() < deadline
            last.run_until_idle()
        report = ledger.verify(store=store)
        assert report.failures == ()
        assert (report.ok, report.entries) == (True, operations[0])
        assert (report.compared, report.balance) == (ACCOUNTS, operations[0] // 3 * 5)
        assert last.health().dead_letters == 0
    database.dispose()
    run_sync(store.close())


def _entries(engine: Engine) -> int:
    """How many entries the ledger has."""
    with engine.connect() as connection:
        count: int = connection.exec_driver_sql("SELECT COUNT(*) FROM ducto_entries").scalar_one()
        return count
