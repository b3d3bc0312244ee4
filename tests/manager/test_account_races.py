"""Many processes over plans, caps, teams and refunds of a real server; afterwards the ledger finds every balance."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ducto_redis import CreditManager
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from tests.manager.account_racer import MEMBERS, PARTITIONS

PROCESSES = 6
ROOT = Path(__file__).parents[2]
DOCUMENT = {
    "models": {"gpt-4o": "output_tokens"},
    "signup_bonus": 7,
    "default_plan": "small",
    "plans": {"small": {"free_allowance": 50}, "large": {"free_allowance": 300}},
}


@pytest.fixture
def credits(server_url: str, namespace: str) -> Iterator[CreditManager]:
    """A manager on the server that the processes use."""
    with CreditManager.from_url(server_url, namespace=namespace, partitions=PARTITIONS, timeout_seconds=30) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.fixture
def plain(credits: CreditManager) -> CreditManager:
    """The same, with a document that gives new accounts nothing."""
    credits.publish_pricing({**DOCUMENT, "signup_bonus": 0, "default_plan": None})
    return credits


def race(url: str, namespace: str, work: str, argument: Any = None) -> list[Any]:
    """What each of the processes says that it did."""
    command = [sys.executable, "-m", "tests.manager.account_racer", url, namespace, work, str(PROCESSES)]
    racers = subprocess.run([*command, json.dumps(argument)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    done = [json.loads(line) for line in racers.stdout.splitlines()]
    assert len(done) == PROCESSES
    return done


@pytest.fixture
def proof(server_url: str, namespace: str, tmp_path: Path) -> Iterator[None]:
    """After the test, the ledger recomputes every balance from its entries, and compares it with the engine."""
    yield
    store = RedisStore(server_url, namespace=namespace, partitions=PARTITIONS, blocking=True, timeout_seconds=30)
    with Ledger.from_url(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.migrate()
        LedgerWorker(store, ledger).run_until_idle()
        report = ledger.verify(namespace, store=store)
    run_sync(store.close())
    assert report.failures == ()
    assert report.ok
    assert (report.compared, report.behind) == (report.accounts, 0)


def total(done: list[dict[str, int]]) -> dict[str, int]:
    """What all processes did together."""
    counted: Counter[str] = Counter()
    for each in done:
        counted.update(each)
    return dict(counted)


@pytest.mark.usefixtures("proof")
def test_first_requests(credits: CreditManager, server_url: str, namespace: str) -> None:
    """However many processes make an account's first request at once, it begins with one bonus and one plan."""
    accounts = [f"u{number}" for number in range(20)]
    admitted = race(server_url, namespace, "be_first", accounts)
    assert admitted == [len(accounts)] * PROCESSES
    for account in accounts:
        assert credits.get_balance(account).balance == 7
        status = credits.check_allowance(account)
        assert (status.plan, status.used, status.held) == ("small", PROCESSES, 0)


@pytest.mark.usefixtures("proof")
def test_caps(plain: CreditManager, server_url: str, namespace: str) -> None:
    """What all processes together were admitted is exactly the limit, of each cap."""
    plain.add_credits("u1", 10_000)
    plain.set_spend_cap("u1", 700, "total")
    plain.set_spend_cap("u1", 300, "total", model="gpt-4o")
    admitted = total(race(server_url, namespace, "spend_under_caps", "u1"))
    assert admitted == {"account": 700, "model/gpt-4o": 300}
    assert {cap.scope: (cap.used, cap.held) for cap in plain.check_spend_cap("u1")} == {
        scope: (used, 0) for scope, used in admitted.items()
    }
    assert plain.get_balance("u1").available == 9300


@pytest.mark.usefixtures("proof")
def test_members(plain: CreditManager, server_url: str, namespace: str) -> None:
    """What members spent adds up to what left the pool, though they come and go all the time."""
    plain.create_team("acme", initial_credits=800)
    for member in MEMBERS:
        plain.add_team_member("acme", member)
    plain.set_spend_cap("acme", 200, "total", member="ana")
    spent = total(race(server_url, namespace, "spend_as_members", "acme"))
    assert sum(spent.values()) == 800
    assert spent["ana"] <= 200
    team = plain.get_team("acme")
    assert {member.user: member.spent for member in (*team.members, *team.removed)} == spent
    assert (team.balance, team.held) == (0, 0)


@pytest.mark.usefixtures("proof")
def test_refunds(plain: CreditManager, server_url: str, namespace: str) -> None:
    """All refunds of a charge together are the charge, and everything is back where it came from."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    plain.set_user_plan("u1", "small")
    plain.add_credits("u1", 30, type="bonus", expires_at=tomorrow)
    plain.add_credits("u1", 100)
    plain.set_spend_cap("u1", 1000, "total")
    before = plain.describe("u1")
    charges = [plain.deduct("u1", 17).transaction_id for _ in range(10)]
    refunded = race(server_url, namespace, "refund", charges)
    assert sum(refunded) == 170
    after = plain.describe("u1")
    assert (after.balance.balance, after.allowance.used) == (before.balance.balance, 0)
    assert [(grant.type, grant.remaining) for grant in after.grants] == [("bonus", 30), ("pool", 100)]
    assert after.caps[0].used == 0


@pytest.mark.usefixtures("proof")
def test_sweeps(plain: CreditManager, server_url: str, namespace: str) -> None:
    """What has expired goes once, whichever process sweeps it."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for number in range(60):
        plain.add_credits(f"u{number}", 3, expires_at=tomorrow)
        plain.add_credits(f"u{number}", 1)
    swept = race(server_url, namespace, "sweep")
    assert [sum(numbers) for numbers in zip(*swept, strict=True)] == [60, 180]
    assert all(plain.get_balance(f"u{number}").balance == 1 for number in range(60))


@pytest.mark.usefixtures("proof")
def test_personal_then_team(plain: CreditManager, server_url: str, namespace: str) -> None:
    """A key that all processes use at once is charged once, to the user or to the team, while credits come in."""
    plain.create_team("acme", initial_credits=1000)
    plain.add_team_member("acme", "bob")
    keys = [f"job {number}" for number in range(40)]
    charged = total(race(server_url, namespace, "pay_once", keys))
    assert set(charged.values()) == {PROCESSES}, "every process got the same answer"
    assert len(charged) == len(keys)
    by_team = sum(name.endswith("team") for name in charged)
    team = plain.get_team("acme")
    assert (team.balance, team.members[0].spent) == (1000 - 2 * by_team, 2 * by_team)
    added = sum(entry.balance_change for entry in journal(plain, "bob") if entry.operation == "add_credits")
    assert plain.get_balance("bob").balance == added / 1_000_000 - 2 * (len(keys) - by_team)


@pytest.mark.usefixtures("proof")
def test_plans(plain: CreditManager, server_url: str, namespace: str) -> None:
    """Plans that change under charges create nothing: what was spent is what was used, at most the larger allowance."""
    plain.set_user_plan("u1", "small")
    plain.add_credits("u1", 100)
    admitted = sum(race(server_url, namespace, "change_plans", "u1"))
    plain.set_user_plan("u1", "large")
    used = plain.check_allowance("u1").used
    assert admitted == used + 100 - plain.get_balance("u1").balance
    assert used <= 300


def journal(credits: CreditManager, account: str) -> list[Any]:
    """The account's journal entries."""
    from ducto_redis.testing import read_journal

    return list(read_journal(credits.store, account))  # type: ignore[arg-type]
