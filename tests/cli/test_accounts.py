"""`ducto credits add` and `ducto balance`."""

import json
import re
from pathlib import Path

import pytest
import redis

from ducto_redis.errors import StoreUnavailableError
from ducto_redis.manager import CreditManager
from tests.cli.conftest import Ducto

pytestmark = pytest.mark.usefixtures("engine")


def test_add_and_balance(ducto: Ducto) -> None:
    """What is added is in the balance."""
    assert ducto("credits", "add", "u1", "41.2").stdout.startswith(
        "added 41.2 credits to u1: balance 41.2, available 41.2\n"
    )
    assert ducto("balance", "u1").stdout.split() == (
        ["account", "balance", "held", "available", "changes", "u1", "41.2", "0", "41.2", "1"]
    )


def test_json_has_decimal_strings(ducto: Ducto) -> None:
    """With --json, credits are strings with all their places."""
    added = json.loads(ducto("credits", "add", "u1", "0.000001", "--type", "bonus", "--json").stdout)
    assert (added["amount"], added["balance_after"], added["replayed"]) == ("0.000001", "0.000001", False)
    assert json.loads(ducto("balance", "u1", "--json").stdout) == {
        "account": "u1",
        "balance": "0.000001",
        "held": "0.000000",
        "available": "0.000001",
        "seq": 1,
    }


def test_key_adds_once(ducto: Ducto) -> None:
    """The same key adds the credits once, and says so; with another amount it is refused."""
    for _ in range(2):
        done = ducto("credits", "add", "u1", "10", "--key", "invoice-1")
    assert "it was done before" in done.stdout
    assert "balance 10," in done.stdout
    conflict = ducto("credits", "add", "u1", "11", "--key", "invoice-1")
    assert conflict.exit_code == 1
    assert "used for another request" in conflict.stderr


@pytest.mark.parametrize("amount", ["0", "nan", "1e3000000", "0.0000001", "ten", "9007199255"])
def test_wrong_amount(amount: str, ducto: Ducto, engine: str, namespace: str) -> None:
    """What is no amount of credits is one line, and adds nothing."""
    result = ducto("credits", "add", "u1", amount)
    assert (result.exit_code, result.stderr.count("\n"), result.stdout) == (1, 1, "")
    with redis.Redis.from_url(engine) as client:
        assert client.keys(f"{namespace}:*") == []


@pytest.mark.parametrize("metadata", ["{", "[1]", "1", "[" * 10_000])
def test_wrong_metadata(metadata: str, ducto: Ducto) -> None:
    """Metadata that is no JSON object is refused before anything is added."""
    result = ducto("credits", "add", "u1", "1", "--metadata", metadata)
    assert result.exit_code == 1
    assert "--metadata is" in result.stderr


def test_balance_creates_nothing(ducto: Ducto, engine: str, namespace: str) -> None:
    """Asking for a balance in a namespace that does not exist is an error, and leaves no namespace behind."""
    result = ducto("balance", "u1")
    assert result.exit_code == 1
    assert f"there is no namespace {namespace!r}" in result.stderr
    with redis.Redis.from_url(engine) as client:
        assert client.keys(f"{namespace}:*") == []


def test_account_is_printed_as_it_is(ducto: Ducto) -> None:
    """An account id that looks like markup is not taken for it."""
    ducto("credits", "add", "[bold]u1[/]", "1")
    assert "[bold]u1[/]" in ducto("balance", "[bold]u1[/]").stdout


def test_creating_a_namespace_is_said(
    ducto: Ducto, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that creates the namespace says so, once: the name may have been mistyped."""
    monkeypatch.setenv("DUCTO_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")
    assert ducto("ledger", "migrate").exit_code == 0
    created = f"created the namespace {namespace!r} with 16 partitions\n"
    assert ducto("credits", "add", "u1", "1").stderr == created
    assert ducto("credits", "add", "u1", "1").stderr == ""


def test_unknown_outcome_of_a_made_up_key(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no key was given and the outcome is not known, the error names the one that the command made."""

    def add_credits(self: CreditManager, *args: object, idempotency_key: str, **options: object) -> None:
        raise StoreUnavailableError("no answer", operation_key=idempotency_key)

    monkeypatch.setattr(CreditManager, "add_credits", add_credits)
    result = ducto("credits", "add", "u1", "1")
    assert result.exit_code == 1
    assert re.search(r"no answer\. .* the same command with --key cli-[0-9a-f]{32} is safe", result.stderr)
