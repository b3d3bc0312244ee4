"""Connections to the ledger's database."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from ducto_redis.errors import ConfigError, LedgerUnavailableError
from ducto_redis.ledger import Ledger
from ducto_redis.ledger.writer import write_batch
from tests.ledger.entries import Account, Journal, engine_of


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/x", "redis://localhost", "sqlite+aiosqlite:///x"])
def test_other_urls_are_refused(url: str) -> None:
    """The error says which URLs there are."""
    with pytest.raises(ConfigError, match="sqlite://"):
        Ledger.from_url(url)


def test_the_password_is_never_shown() -> None:
    """Neither in the name nor in an error."""
    with Ledger.from_url("postgresql://user:s3cret@127.0.0.1:1/x") as ledger:
        assert "s3cret" not in ledger.name
        with pytest.raises(LedgerUnavailableError) as caught:
            ledger.is_empty("n")
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_password_may_stand_anywhere() -> None:
    """Those that libpq takes as options are not shown either."""
    url = "postgresql://user@127.0.0.1:1/x?password=s3cret&sslpassword=s3cret&application_name=shop"
    with Ledger.from_url(url) as ledger:
        assert ledger.name == "postgresql+psycopg://user@127.0.0.1:1/x?application_name=shop"
        with pytest.raises(LedgerUnavailableError) as caught:
            ledger.is_empty("n")
    assert "s3cret" not in str(caught.value)


def test_a_wrong_password_is_not_shown(postgres_url: str) -> None:
    """PostgreSQL's refusal names the user only, and is waited on: an operator may be changing it."""
    url = make_url(postgres_url).set(password="s3cret").render_as_string(hide_password=False)
    with Ledger.from_url(url) as ledger, pytest.raises(LedgerUnavailableError, match="authentication") as caught:
        ledger.is_empty("n")
    assert "s3cret" not in str(caught.value)


def test_nobody_waits_for_a_frozen_worker_for_ever(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stopped inside a transaction is cut off by PostgreSQL; waiting for its lock is bounded."""
    monkeypatch.setattr("ducto_redis.ledger.database._LOCK_MS", 1)
    monkeypatch.setattr("ducto_redis.ledger.database._FROZEN_MS", 300)
    account = Account(Journal(), "u1")
    batch = [account.add(1)]
    with Ledger.from_url(postgres_url) as frozen, Ledger.from_url(postgres_url) as ledger:
        frozen.migrate()
        with pytest.raises(LedgerUnavailableError), frozen._database.write() as connection:
            write_batch(connection, "n", 0, batch)
            with pytest.raises(LedgerUnavailableError, match="lock timeout"):
                ledger.write("n", 0, batch)
            deadline = time.monotonic() + 60
            while not ledger.entries("n", "u1"):
                assert time.monotonic() < deadline
                with contextlib.suppress(LedgerUnavailableError):
                    ledger.write("n", 0, batch)
        assert ledger.verify().entries == 1


def test_what_is_committed_survives(ledger_url: str) -> None:
    """SQLite writes through to the disk before an entry is acknowledged, and readers do not stop the writer."""
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        if ledger_url.startswith("sqlite"):
            with ledger._database.read() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_reader_sees_one_state(ledger: Ledger, account: Account) -> None:
    """A proof that runs while a worker writes is of one moment."""
    ledger.write("n", 0, [account.add(1)])
    count = "SELECT COUNT(*) FROM ducto_entries"
    with ledger._database.read() as connection:
        assert connection.exec_driver_sql(count).scalar() == 1
        writer = threading.Thread(target=ledger.write, args=("n", 0, [account.add(1)]))
        writer.start()
        writer.join()
        assert connection.exec_driver_sql(count).scalar() == 1
    with ledger._database.read() as connection:
        assert connection.exec_driver_sql(count).scalar() == 2


def test_threads_share_a_ledger_in_memory(memory_ledger: Ledger) -> None:
    """The worker's thread writes while others read."""
    account = Account(Journal(), "u1")
    batches = [[account.add(1)] for _ in range(50)]
    reader = threading.Thread(target=lambda: [memory_ledger.verify() for _ in range(20)])
    reader.start()
    for batch in batches:
        memory_ledger.write("n", 0, batch)
    reader.join()
    assert memory_ledger.verify().balance == 50


def test_a_forked_child_has_connections_of_its_own(ledger: Ledger, account: Account) -> None:
    """Parent and child write side by side; neither breaks the other's connection."""
    ledger.write("n", 0, [account.add(1)])
    from_child = [account.add(2)]
    child = os.fork()
    if not child:
        try:
            ledger.write("n", 0, from_child)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    ledger.write("n", 0, [account.add(3)])
    assert (ledger.verify().ok, ledger.verify().balance) == (True, 6)


def test_a_forked_child_has_no_ledger_in_memory(memory_ledger: Ledger) -> None:
    """Its copy would be another ledger: it is refused."""
    child = os.fork()
    if not child:
        try:
            memory_ledger.is_empty("n")
        except ConfigError:
            os._exit(7)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_locked_database_is_worth_waiting_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that writes for long is no reason to give entries up."""
    monkeypatch.setattr("ducto_redis.ledger.database._LOCK_MS", 1)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    account = Account(Journal(), "u1")
    engine = engine_of(url)
    with Ledger.from_url(url) as ledger:
        ledger.migrate()
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailableError, match="locked"):
                ledger.write("n", 0, [account.add(1)])
    engine.dispose()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    with (
        Ledger.from_url(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}") as ledger,
        pytest.raises(LedgerUnavailableError, match=r"missing/ledger\.db"),
    ):
        ledger.is_empty("n")
