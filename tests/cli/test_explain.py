"""`ducto explain` and `ducto balance --why`."""

import json

import pytest

from ducto_redis.manager import CreditManager
from ducto_redis.metrics import UsageMetrics
from tests.cli.conftest import Ducto


@pytest.fixture
def charge(engine: str, namespace: str) -> str:
    """The transaction of a charge of u1, of which a part was refunded."""
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.publish_pricing({"models": {"gpt": "input_tokens * 0.002"}})
        manager.add_credits("u1", 10)
        transaction: str = manager.deduct("u1", UsageMetrics(model="gpt", input_tokens=1500)).transaction_id
        manager.refund_credits(transaction, 1, reason="wrong answer")
        manager.reserve("u1", 2, lease_id="job")
        return transaction


def test_explain(ducto: Ducto, charge: str) -> None:
    """A transaction is told in words: what was used, the formula, who paid, refunds, and the balance."""
    lines = [" ".join(line.split()) for line in ducto("explain", charge).stdout.splitlines()]
    assert lines[0].endswith("u1 was charged 3 credits for gpt")
    for line in (
        "gpt, 1,500 input tokens",
        "by version 1 of the pricing document",
        "+3 gpt = input_tokens * 0.002 [models.gpt]",
        "3 the balance, credits that do not expire",
        "1 of 3 credits in total",
        "10 before, -3, 7 after",
    ):
        assert line in lines
    assert any(line.startswith("there is no ledger") for line in lines)


def test_explain_as_json(ducto: Ducto, charge: str) -> None:
    """--json holds the same, with credits as decimal strings."""
    told = json.loads(ducto("explain", charge, "--json").stdout)
    assert (told["operation"], told["charged"], told["balance_after"]) == ("deduct", "3.000000", "7.000000")
    assert told["usage"] == [{"model": "gpt", "input_tokens": 1500}]
    assert told["price"]["costs"][0]["lines"][0]["formula"] == "input_tokens * 0.002"


@pytest.mark.usefixtures("charge")
@pytest.mark.parametrize("transaction", ["0-1-1-0", "nonsense"])
def test_unknown_transaction(ducto: Ducto, transaction: str) -> None:
    """A transaction that there is not is an error of one line that names it."""
    result = ducto("explain", transaction)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"there is no transaction '{transaction}'" in result.stderr


@pytest.mark.usefixtures("charge")
def test_why(ducto: Ducto) -> None:
    """A balance is told by kind of movement, with its sum, what is held of it, and the last movements."""
    result = ducto("balance", "u1", "--why")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith("u1 has 8 credits at ")
    for line in ("+10 credits added, purchase", "-3 charged for gpt", "8 balance", "2 held, 6 available"):
        assert line in lines
    assert lines[-1] == "all lines add up to the balance"
    told = json.loads(ducto("balance", "u1", "--why", "--json").stdout)
    assert (told["adds_up"], told["balance"], told["leases"][0]["lease_id"]) == (True, "8.000000", "job")
    assert ducto("balance", "u1").stdout.startswith("account")


@pytest.mark.usefixtures("charge")
def test_why_exits_with_1_where_it_does_not_add_up(ducto: Ducto, engine: str, namespace: str) -> None:
    """A balance that its history does not lead to is exit status 1, and says so."""
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        keys = manager.store.namespace.account("u1")
        manager.store.redis().hset(keys.keys[0], "balance", "9000000")  # type: ignore[attr-defined]
    result = ducto("balance", "u1", "--why")
    assert result.exit_code == 1
    assert "the lines add up to 8.000000, but the balance is 9.000000" in result.stdout
