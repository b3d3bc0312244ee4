"""A worker that stands still while others go on: what it wakes up to is no longer its own."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.ledger import writer as writer_module
from ducto_redis.run_sync import run_sync
from ducto_redis.store.redis import RedisStore
from tests.journal.engine import Engine
from tests.journal.test_worker import until

CLAIM_SECONDS = 0.5
ACCOUNTS = 8


def work_and_freeze(url: str, namespace: str, ledger_url: str, where: str, frozen: str) -> None:
    """A worker process that stops itself once, before it writes its first batch or in the middle of it."""

    def freeze() -> None:
        if not Path(frozen).exists():
            Path(frozen).touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    if where == "before":
        write = Ledger.write

        def freeze_and_write(*args: object) -> object:
            freeze()
            return write(*args)  # type: ignore[arg-type]

        Ledger.write = freeze_and_write  # type: ignore[method-assign,assignment]
    else:
        advance = writer_module._advance

        def freeze_and_advance(*args: object) -> None:
            freeze()
            advance(*args)  # type: ignore[arg-type]

        writer_module._advance = freeze_and_advance  # type: ignore[assignment]
    store = RedisStore(url, namespace=namespace, partitions=2, blocking=True)
    LedgerWorker(store, Ledger.from_url(ledger_url), batch=10, claim_seconds=CLAIM_SECONDS, backoff_seconds=0.01).run()


@pytest.mark.parametrize("where", ["before", "in the middle"])
def test_a_frozen_worker_does_no_harm(
    valkey_url: str, namespace: str, ledger_url: str, tmp_path: Path, where: str
) -> None:
    """It is stopped for longer than its claim, another takes over, and it wakes up with its batch in its hands:
    nothing is doubled, nothing is skipped, no state goes back."""
    store = RedisStore(valkey_url, namespace=namespace, partitions=2, blocking=True)
    engine = Engine(store)
    engine.create()
    frozen = tmp_path / "frozen"

    def load() -> None:
        for number in range(10 * ACCOUNTS):
            engine.add(f"u{number % ACCOUNTS}", 5)

    load()
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        process = multiprocessing.get_context("spawn").Process(
            target=work_and_freeze, args=(valkey_url, namespace, ledger_url, where, str(frozen)), daemon=True
        )
        process.start()
        other = LedgerWorker(store, ledger, batch=7, claim_seconds=CLAIM_SECONDS, backoff_seconds=0.01)
        try:
            until(frozen.exists)
            assert process.pid is not None
            other.start_thread()
            until(lambda: other.consumer.partitions == (0, 1))
            load()
            if where == "before":  # in the middle it holds the database's lock until it goes on
                until(lambda: other.health().lag == 0)
            os.kill(process.pid, signal.SIGCONT)
            load()
            until(lambda: other.health().lag == 0)
        finally:
            other.stop()
            process.kill()
            process.join(10)
            assert other.join(30)
        report = ledger.verify(store=store)
        assert (report.failures, report.entries, report.compared) == ((), 30 * ACCOUNTS, ACCOUNTS)
        assert other.health().dead_letters == 0
    run_sync(store.close())
