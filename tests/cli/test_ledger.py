"""`ducto ledger migrate` and `ducto ledger verify`."""

import json

import pytest
from sqlalchemy import create_engine, text

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto


@pytest.fixture
def ledger(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names an empty ledger database. Returns the URL."""
    monkeypatch.setenv("DUCTO_LEDGER_URL", ledger_url)
    return ledger_url


def write(engine: str, ledger_url: str, namespace: str) -> None:
    """Two accounts with some changes, all of them in the ledger."""
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.add_credits("u1", 10)
        manager.deduct("u1", "2.5")
        manager.add_credits("u2", 1)
        ledger = Ledger.from_url(ledger_url)
        LedgerWorker(store_from_url(engine, namespace=namespace, blocking=True), ledger).run_until_idle()
        ledger.close()


def change(ledger_url: str, statement: str) -> None:
    engine = create_engine(ledger_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount == 1
    engine.dispose()


@pytest.mark.usefixtures("ledger")
def test_verify_before_migrate(ducto: Ducto) -> None:
    """A ledger without tables is an error that says what to do."""
    result = ducto("ledger", "verify")
    assert result.exit_code == 1
    assert "run `ducto ledger migrate`" in result.stderr


@pytest.mark.usefixtures("ledger")
def test_migrate_again_is_safe(ducto: Ducto) -> None:
    """Migrating twice gives the newest schema, and hides the URL's password."""
    for _ in range(2):
        result = ducto("ledger", "migrate")
        assert result.stdout.endswith("has the newest schema\n")
    assert "secret" not in result.stdout
    assert json.loads(ducto("ledger", "migrate", "--json").stdout)["migrated"] is True


def test_verify(ducto: Ducto, engine: str, ledger: str, namespace: str) -> None:
    """A ledger that adds up, and agrees with the engine, is exit status 0."""
    ducto("ledger", "migrate")
    write(engine, ledger, namespace)
    result = ducto("ledger", "verify")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2 accounts, 3 entries; balances 8.5, held 0",
        "compared with the engine: 2 accounts, 0 that have changed since",
        "everything adds up",
    ]


def test_verify_says_what_was_not_read(ducto: Ducto, engine: str, ledger: str, namespace: str) -> None:
    """What the ledger has not read yet is no failure, but is said."""
    ducto("ledger", "migrate")
    write(engine, ledger, namespace)
    ducto("credits", "add", "u1", "1")
    result = ducto("ledger", "verify")
    assert result.exit_code == 0
    assert "1 journal entry not in the ledger yet" in result.stdout
    assert json.loads(ducto("ledger", "verify", "--json").stdout)["engine"] == {"compared": 1, "behind": 1, "lag": 1}


@pytest.mark.parametrize("compare", [True, False], ids=["with engine", "alone"])
def test_verify_finds_a_changed_entry(
    compare: bool, ducto: Ducto, engine: str, ledger: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that somebody changed is exit status 1, with the account and the reason."""
    ducto("ledger", "migrate")
    write(engine, ledger, namespace)
    change(ledger, "UPDATE ducto_entries SET amount = amount + 1 WHERE operation = 'deduct'")
    if not compare:
        monkeypatch.delenv("DUCTO_REDIS_URL")
    result = ducto("ledger", "verify")
    assert result.exit_code == 1
    assert f"{namespace}: account 'u1': " in result.stderr
    assert "u2" not in result.stderr
    assert "everything adds up" not in result.stdout
    report = json.loads(ducto("ledger", "verify", "--json").stdout)
    assert (report["ok"], report["failed"]) == (False, 1)


def test_verify_finds_a_changed_engine(ducto: Ducto, engine: str, ledger: str, namespace: str) -> None:
    """A balance that was changed in Redis behind the scripts' back is exit status 1."""
    ducto("ledger", "migrate")
    write(engine, ledger, namespace)
    store = store_from_url(engine, namespace=namespace, blocking=True)
    store.redis().hset(store.namespace.account("u2").keys[0], "balance", "999")
    result = ducto("ledger", "verify")
    assert result.exit_code == 1
    assert "account 'u2': engine and ledger differ in the balance" in result.stderr


def test_verify_all_namespaces(ducto: Ducto, engine: str, ledger: str, namespace: str) -> None:
    """--all looks at every namespace of the database."""
    ducto("ledger", "migrate")
    write(engine, ledger, namespace)
    write(engine, ledger, f"{namespace}-2")
    assert json.loads(ducto("ledger", "verify", "--json").stdout)["accounts"] == 2
    assert json.loads(ducto("ledger", "verify", "--all", "--json").stdout)["accounts"] == 4


def test_embedded_ledger_is_read_up_to_date(ducto: Ducto, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """With embedded://, `verify` first lets the ledger read what other commands journalled."""
    monkeypatch.setenv("DUCTO_REDIS_URL", f"embedded://{tmp_path}/engine")
    ducto("credits", "add", "u1", "5", "--type", "bonus")
    report = json.loads(ducto("ledger", "verify", "--json").stdout)
    assert (report["accounts"], report["balance"], report["engine"]["lag"]) == (1, "5.000000", 0)
