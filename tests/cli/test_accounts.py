"""Accounts: `ducto credits add`, `ducto balance`, `grants`, `refund`, `adjust`, `freeze`, `unfreeze`, `sweep`."""

import json
import re
from pathlib import Path

import pytest
import redis

from ducto_redis.errors import AccountFrozenError, StoreUnavailableError
from ducto_redis.manager import CreditManager
from tests.cli.conftest import Ducto

pytestmark = pytest.mark.usefixtures("engine")


def test_add_and_balance(ducto: Ducto) -> None:
    """What is added is in the balance."""
    assert ducto("credits", "add", "u1", "41.2").stdout.startswith(
        "added 41.2 credits to u1: balance 41.2, available 41.2\n"
    )
    assert ducto("balance", "u1").stdout.split() == (
        ["account", "balance", "held", "available", "allowance", "changes", "u1", "41.2", "0", "41.2", "0", "1"]
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
        "allowance": "0.000000",
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


def charge(engine: str, namespace: str, amount: int = 4) -> str:
    """Charge an account. Returns the transaction id."""
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        return manager.deduct("u1", amount).transaction_id


def test_grants(ducto: Ducto) -> None:
    """Credits that expire or have a priority are listed in the order in which they are spent."""
    assert ducto("credits", "add", "u1", "5", "--type", "bonus", "--expires-at", "2999-12-31").stdout.startswith(
        "added 5 credits that expire at 2999-12-31 00:00:00Z to u1: balance 5"
    )
    ducto("credits", "add", "u1", "7", "--type", "last", "--priority", "60")
    ducto("credits", "add", "u1", "9")
    titles, *rows = (line.split() for line in ducto("grants", "u1").stdout.splitlines())
    assert titles == ["grant", "type", "priority", "remaining", "of", "added", "expires"]
    assert [row[1:5] for row in rows[::2]] == [["bonus", "50", "5", "5"], ["last", "60", "7", "7"]]
    assert rows[0][-2:] == ["2999-12-31", "00:00:00Z"]
    assert rows[1] == ["all", "others", "50", "9", "never"]
    listed = json.loads(ducto("grants", "u1", "--json").stdout)
    assert [(grant["type"], grant["remaining"]) for grant in listed if grant["number"]] == [
        ("bonus", "5.000000"),
        ("last", "7.000000"),
    ]
    assert ducto("grants", "nobody").stdout == "nobody has no credits\n"


@pytest.mark.parametrize("option", [("--expires-at", "2001-01-01"), ("--expires-at", "soon"), ("--priority", "-1")])
def test_wrong_grants(option: tuple[str, str], ducto: Ducto) -> None:
    """Credits that have expired already, and what is no time or priority, are refused in one line."""
    ducto("credits", "add", "u1", "1")
    refused = ducto("credits", "add", "u1", "5", *option)
    assert (refused.exit_code, refused.stderr.count("\n"), refused.stdout) == (1, 1, "")


def test_refund(ducto: Ducto, engine: str, namespace: str) -> None:
    """A charge is given back in parts, never more than it was."""
    ducto("credits", "add", "u1", "10")
    transaction = charge(engine, namespace)
    first, second = ducto("refund", transaction, "2.5", "--reason", "wrong answer").stdout.splitlines()
    assert first == "refunded 2.5 credits to u1: balance 8.5, available 8.5"
    assert second.endswith(", 2.5 refunded of that charge so far")
    refused = ducto("refund", transaction, "2")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    rest = json.loads(ducto("refund", transaction, "--json").stdout)
    assert (rest["amount"], rest["refunded"], rest["refund_of"]) == ("1.500000", "4.000000", transaction)
    assert ducto("refund", transaction).exit_code == 1


def test_refund_of_what_expired(ducto: Ducto, engine: str, namespace: str) -> None:
    """--key refunds once, --to-expired is one of two words."""
    ducto("credits", "add", "u1", "10")
    transaction = charge(engine, namespace)
    for _ in range(2):
        done = ducto(
            "refund", transaction, "1", "--key", "k", "--to-expired", "nowhere", "--metadata", '{"ticket": 81}'
        )
    assert "it was done before; nothing was refunded now" in done.stdout
    assert ducto("refund", transaction, "--to-expired", "pool").exit_code == 2
    assert ducto("refund", transaction, "--metadata", "[]").exit_code == 1


@pytest.mark.parametrize("transaction", ["x", "1-2", "0-1-1700000000000-0"])
def test_refund_of_nothing(transaction: str, ducto: Ducto) -> None:
    """What is no transaction, or none that there is, is one line."""
    ducto("credits", "add", "u1", "10")
    refused = ducto("refund", transaction)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert transaction in refused.stderr


def test_adjust(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """An amount below zero takes; who does it is the one who is logged in, or --actor."""
    monkeypatch.setenv("LOGNAME", "ana")
    ducto("credits", "add", "u1", "10")
    first, second = ducto("adjust", "u1", "-2.5", "--reason", "counted twice").stdout.splitlines()
    assert first == "adjusted u1 by -2.5 credits: balance 7.5, available 7.5"
    assert second.endswith(", by ana")
    refused = ducto("adjust", "u1", "-8", "--reason", "x")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    forced = json.loads(ducto("adjust", "u1", "-8", "--reason", "x", "--force", "--actor", "bob", "--json").stdout)
    assert (forced["amount"], forced["balance_after"]) == ("-8.000000", "-0.500000")
    for _ in range(2):
        done = ducto("adjust", "u1", "1", "--reason", "x", "--key", "k", "--metadata", "{}")
    assert "balance 0.5" in done.stdout
    assert "it was done before" in done.stdout


@pytest.mark.parametrize("arguments", [("u1", "-1"), ("u1",), ("u1", "-1", "--reason", "x", "--nonsense", "y")])
def test_adjust_typed_wrong(arguments: tuple[str, ...], ducto: Ducto) -> None:
    """A correction needs an amount and a reason, and no unknown option passes for one."""
    assert ducto("adjust", *arguments).exit_code == 2


def test_freeze_and_unfreeze(ducto: Ducto, engine: str, namespace: str) -> None:
    """A frozen account spends nothing until it is let go."""
    ducto("credits", "add", "u1", "10")
    assert ducto("freeze", "u1", "--reason", "stolen card", "--actor", "ana").stdout == "u1 is frozen, by ana\n"
    assert ducto("freeze", "u1", "--reason", "again", "--actor", "ana").stdout == "u1 was frozen already\n"
    with pytest.raises(AccountFrozenError, match="ana: stolen card"):
        charge(engine, namespace)
    assert ducto("unfreeze", "u1", "--reason", "new card", "--actor", "bob").stdout == "u1 may spend again, by bob\n"
    assert ducto("unfreeze", "u1", "--reason", "x", "--actor", "bob").stdout == "u1 was not frozen\n"
    charge(engine, namespace)
    assert json.loads(ducto("freeze", "u1", "--reason", "x", "--json").stdout)["account"] == "u1"
    assert json.loads(ducto("unfreeze", "u1", "--reason", "x", "--json").stdout)["account"] == "u1"
    assert ducto("freeze", "u1").exit_code == 2


def test_sweep(ducto: Ducto, engine: str, namespace: str) -> None:
    """A sweep says what it did; with --dry-run, what it would do."""
    ducto("credits", "add", "u1", "10")
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.reserve("u1", 1, ttl=0.001)
    would = ducto("sweep", "--dry-run").stdout
    assert would == "1 account: 0 grants with 0 credits and 1 lease would expire\n"
    assert ducto("sweep").stdout == would.replace("would expire", "expired")
    assert json.loads(ducto("sweep", "--json").stdout)["accounts"] == 0


def test_who_cannot_be_named(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not know who is there, --actor has to say so."""

    def getuser() -> str:
        raise KeyError("no such user")

    monkeypatch.setattr("getpass.getuser", getuser)
    ducto("credits", "add", "u1", "10")
    refused = ducto("adjust", "u1", "1", "--reason", "x")
    assert (refused.exit_code, refused.stderr) == (1, "ducto: who are you? Say so with --actor\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("credits", "add", "u1", "5", "--key", ""), "an idempotency key must not be empty"),
        (("adjust", "u1", "5", "--reason", "a test", "--actor", ""), "an actor must not be empty"),
    ],
)
def test_an_empty_option_is_not_one_that_was_left_out(ducto: Ducto, arguments: tuple[str, ...], said: str) -> None:
    """An empty key or name, as an unset variable of a shell gives it, is refused, and adds nothing."""
    ducto("credits", "add", "u1", "1")
    refused = ducto(*arguments)
    assert (refused.exit_code, refused.stderr) == (1, f"ducto: {said}\n")
    assert json.loads(ducto("balance", "u1", "--json").stdout)["balance"] == "1.000000"
