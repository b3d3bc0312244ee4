"""The demo's proof: it holds for a whole ledger, and for no other."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ducto_redis.cli.demo.proof import Proof, prove
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.store import store_from_url


class Shop:
    """Account u1 with 10 credits, of which 2.5 are spent, in an engine and in a ledger's file."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.file = folder / "ledger.db"
        self.ledger = Ledger.from_url(f"sqlite:///{self.file}")
        self.ledger.migrate()
        self.manager = CreditManager.from_url(url, f"sqlite:///{self.file}", namespace=namespace)
        self.manager.open()
        self.manager.add_credits("u1", 10)
        lease = self.manager.reserve("u1", 1)
        self.manager.release("u1", lease.lease_id)
        self.manager.deduct("u1", "2.5")
        self.worker_store = store_from_url(url, namespace=namespace, blocking=True)
        self.write()

    def write(self) -> None:
        LedgerWorker(self.worker_store, self.ledger).run_until_idle()

    def prove(self) -> Proof:
        return prove(self.manager, self.ledger, self.file, ["u1"])

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            assert connection.execute(statement).rowcount == 1


@pytest.fixture
def shop(valkey_url: str, namespace: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(valkey_url, namespace, tmp_path)
    yield shop
    shop.manager.close()
    shop.ledger.close()


def test_whole_ledger(shop: Shop) -> None:
    """A whole ledger proves each balance from its entries."""
    proof = shop.prove()
    (account,) = proof.accounts
    assert proof.holds
    assert (account.entries, account.last_seq, account.gapless) == (4, 4, True)
    assert (account.added, account.charged, account.recomputed) == (10_000_000, 2_500_000, 7_500_000)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ducto_entries SET balance_change = balance_change + 1 WHERE operation = 'deduct'",
        "DELETE FROM ducto_entries WHERE operation = 'deduct'",
        "DELETE FROM ducto_entries WHERE operation = 'add_credits'",
        "DELETE FROM ducto_entries WHERE operation = 'reserve'",
        "UPDATE ducto_entries SET seq = 3, operation_key = 'x' WHERE operation = 'reserve'",
        "UPDATE ducto_entries SET seq = 5 WHERE operation = 'deduct'",
    ],
)
def test_ledger_that_was_changed(shop: Shop, statement: str) -> None:
    """One micro-credit, one entry or one seq that is not as it was, and the account's proof does not hold."""
    shop.change(statement)
    proof = shop.prove()
    assert not proof.accounts[0].holds
    assert not proof.holds


def test_engine_that_was_changed(shop: Shop) -> None:
    """A balance in the engine that differs by a micro-credit is found."""
    keys = shop.worker_store.namespace.account("u1").keys
    shop.worker_store.redis().hincrby(keys[0], "balance", 1)
    assert not shop.prove().holds


def test_forgotten_hold(shop: Shop) -> None:
    """A hold that nobody closed is no end of the story."""
    shop.manager.reserve("u1", 1)
    shop.write()
    proof = shop.prove()
    assert proof.accounts[0].holds
    assert not proof.holds


def test_unknown_account(shop: Shop) -> None:
    """An account that nothing happened to has nothing, and nothing to prove."""
    proof = prove(shop.manager, shop.ledger, shop.file, ["nobody"])
    assert proof.holds
    assert proof.accounts[0].recomputed == 0
