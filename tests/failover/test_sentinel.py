"""Sentinels that replace a primary under load: every charge is made, and made once."""

from pathlib import Path

import pytest

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from tests.failover.conftest import StartLoad
from tests.failover.load import CREDITS, LOADS, PARTITIONS
from tests.sentinels import Sentinels
from tests.servers import Watchdog, temporary_folder


@pytest.mark.parametrize("load", LOADS)
def test_the_primary_dies(load: str, sentinels: Sentinels, start_load: StartLoad, namespace: str) -> None:
    """SIGKILL of the primary under load: all calls end in time, and each, asked for again, is charged exactly once."""
    callers = start_load(load, sentinels.url)
    with sentinels.hasty():
        with callers:
            old = sentinels.primary()
            old.kill()
            sentinels.wait_until_replaced(old)
            callers.wait_for_charges(10 * PARTITIONS)
        callers.repeat()
        callers.check()


@pytest.mark.parametrize("load", LOADS)
def test_the_primary_is_replaced(load: str, sentinels: Sentinels, start_load: StartLoad, namespace: str) -> None:
    """SENTINEL FAILOVER under load: the old primary lives on as a replica, and no caller goes on writing to it."""
    callers = start_load(load, sentinels.url)
    with sentinels.hasty():
        with callers:
            sentinels.fail_over()
            callers.wait_for_charges(10 * PARTITIONS)
        callers.repeat()
        callers.check()


@pytest.mark.parametrize("load", LOADS)
def test_sentinels_that_are_down_or_silent(
    load: str, sentinels: Sentinels, start_load: StartLoad, namespace: str
) -> None:
    """With one of three sentinels down, or standing still, a lost primary is found again all the same."""
    callers = start_load(load, sentinels.url, timeout_seconds=3)
    down = sentinels.sentinels[0]
    with sentinels.hasty():
        with callers:
            old = sentinels.primary()
            if load == "async":
                down.kill()
            else:
                down.silence()
            old.kill()
            sentinels.wait_until_replaced(old)
            callers.wait_for_charges(10 * PARTITIONS)
        callers.repeat()
        callers.check()


def test_the_worker_goes_on(sentinels: Sentinels, start_load: StartLoad, namespace: str, tmp_path: Path) -> None:
    """A worker whose primary dies goes on with the next one, and the ledger gets what is charged then."""
    callers = start_load("async", sentinels.url)
    with Ledger.from_url(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        worker = LedgerWorker(callers.store(), ledger, claim_seconds=2)
        worker.start_thread()
        old = sentinels.primary()
        with sentinels.client(old) as client:
            assert client.wait(2, 10_000) == 2
        with sentinels.hasty():
            old.kill()
            with callers.manager() as manager:
                for account in callers.accounts:
                    manager.deduct(account, 1)
            assert worker.drain_and_stop(20)
            # While the old primary is down: restarted, it takes itself for one until a sentinel tells it otherwise.
            report = ledger.verify(namespace, store=callers.store())
        assert (report.failed, report.behind, report.compared) == (0, 0, PARTITIONS)
        assert report.balance == PARTITIONS * (CREDITS - 1) * 1_000_000


@pytest.mark.long
def test_passwords(watchdog: Watchdog, start_load: StartLoad, namespace: str) -> None:
    """Servers and sentinels may each have a password of their own."""
    with temporary_folder() as folder:
        servers = Sentinels(folder, password="ser/ver@1", sentinel_password="senti:nel?2")
        try:
            servers.start()
            callers = start_load("async", servers.url)
            with callers:
                callers.wait_for_charges(PARTITIONS)
            callers.check()
        finally:
            servers.stop()
