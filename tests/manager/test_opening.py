"""New accounts begin with the document's bonus and default plan: exactly once, whoever comes first."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, MemoryStore, PricingEngine, UsageMetrics
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import CreditError, FeatureNotEntitledError, InsufficientCreditsError
from ducto_redis.store import RedisStore
from ducto_redis.testing import read_journal
from tests.manager.conftest import DOCUMENT as PRICES

ROOT = Path(__file__).parents[2]
DOCUMENT = {
    **PRICES,
    "signup_bonus": 50,
    "default_plan": "free",
    "plans": {
        "free": {"free_allowance": 5, "features": {"chat": True}, "spend_caps": [{"window": "day", "limit": 100}]},
        "pro": {"free_allowance": 500},
    },
}
USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


@pytest.fixture
def credits() -> Iterator[CreditManager]:
    with CreditManager(MemoryStore()) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


def operations_of(manager: CreditManager, account: str) -> list[str]:
    """What was journalled of an account."""
    return [entry.operation for entry in read_journal(manager.store, account)]


FIRST: list[tuple[Callable[[CreditManager], object], str]] = [
    (lambda manager: manager.add_credits("u1", 1), "add_credits"),
    (lambda manager: manager.deduct("u1", USAGE), "deduct"),
    (lambda manager: manager.deduct("u1", 1, required_feature="chat"), "deduct"),
    (lambda manager: manager.reserve("u1", 1), "reserve"),
    (lambda manager: manager.set_user_plan("u1", "pro"), "set_plan"),
    (lambda manager: manager.set_spend_cap("u1", window="day", limit=5), "set_cap"),
    (lambda manager: manager.adjust_credits("u1", 1, actor="ann", reason="goodwill"), "adjust_credits"),
    (lambda manager: manager.freeze("u1", actor="ann", reason="unpaid"), "freeze"),
]


@pytest.mark.parametrize(("first", "operation"), FIRST, ids=[f"{n}-{name}" for n, (_, name) in enumerate(FIRST)])
def test_any_first_change_opens(
    credits: CreditManager, first: Callable[[CreditManager], object], operation: str
) -> None:
    """Bonus and plan are journalled on their own, before the change that brought them."""
    first(credits)
    opening, *others = read_journal(credits.store, "u1")
    assert (opening.operation, opening.amount, opening.balance_change) == ("open_account", 50_000_000, 50_000_000)
    assert [entry.operation for entry in others] == [operation]
    assert credits.describe("u1").plan == ("pro" if operation == "set_plan" else "free")
    first(credits)
    assert operations_of(credits, "u1").count("open_account") == 1


def test_reads_show_what_an_account_would_begin_with(credits: CreditManager) -> None:
    """And write nothing, however often they ask."""
    for _ in range(2):
        balance = credits.get_balance("u1")
        assert (balance.balance, balance.available, balance.allowance, balance.seq) == (50, 50, 5, 0)
        described = credits.describe("u1")
        assert (described.balance, described.plan) == (balance, "free")
        assert credits.can_afford("u1", 55)
        assert not credits.can_afford("u1", 56)
        assert credits.check_allowance("u1").remaining == 5
    assert operations_of(credits, "u1") == []


def test_a_first_request_spends_bonus_and_allowance(credits: CreditManager) -> None:
    """It is admitted by what it brings itself."""
    charged = credits.deduct("u1", 55)
    assert (charged.amount, charged.allowance_consumed, charged.balance_after) == (55, 5, 0)


def test_a_refused_first_request_opens_nothing(credits: CreditManager) -> None:
    """A refusal changes nothing; the next request finds a new account."""
    for refused in (
        lambda: credits.deduct("u1", 56),
        lambda: credits.reserve("u1", 56),
        lambda: credits.deduct("u1", 1, member="ann"),
        lambda: credits.deduct("u1", 1, required_feature="agentic"),
    ):
        with pytest.raises(CreditError):
            refused()
    assert operations_of(credits, "u1") == []
    assert credits.deduct("u1", 1).balance_after == 50


def test_a_team_begins_with_nothing(credits: CreditManager) -> None:
    """Its creation is its opening."""
    credits.create_team("acme", owner="ann")
    assert credits.get_balance("acme").balance == 0
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("acme", 1)
    assert credits.describe("acme").plan == ""
    assert "open_account" not in operations_of(credits, "acme")


def test_accounts_that_exist_already_get_nothing() -> None:
    """A document that begins to give a bonus gives it to those that come after it."""
    with CreditManager(MemoryStore()) as manager:
        manager.publish_pricing(PRICES)
        manager.add_credits("old", 1)
        manager.publish_pricing(DOCUMENT)
        assert (manager.add_credits("old", 1).balance_after, manager.describe("old").plan) == (2, "")
        assert manager.add_credits("new", 1).balance_after == 51
        manager.publish_pricing({**DOCUMENT, "signup_bonus": 7, "default_plan": "pro"})
        assert manager.add_credits("new", 1).balance_after == 52
        assert manager.describe("new").plan == "free"
        assert (manager.add_credits("newer", 1).balance_after, manager.describe("newer").plan) == (8, "pro")


def test_a_bonus_without_a_plan_and_a_plan_without_a_bonus() -> None:
    """Each comes alone, too."""
    with CreditManager(MemoryStore()) as manager:
        manager.publish_pricing({**PRICES, "signup_bonus": 3})
        assert (manager.deduct("u1", 1).balance_after, manager.describe("u1").plan) == (2, "")
        manager.publish_pricing({**DOCUMENT, "signup_bonus": 0})
        assert (manager.deduct("u2", 1).balance_after, manager.describe("u2").plan) == (0, "free")


def test_an_engine_that_was_given_opens_too() -> None:
    """A manager that prices by a document of its own opens accounts by it."""
    with CreditManager(MemoryStore(), PricingEngine.from_dict(DOCUMENT)) as manager:
        charged = manager.deduct("u1", 7)
        assert (charged.allowance_consumed, charged.balance_after) == (5, 48)
        assert manager.deduct("u1", 1).balance_after == 47
        with pytest.raises(FeatureNotEntitledError):
            manager.deduct("u1", 1, required_feature="agentic")


def assert_opened_once(manager: CreditManager, account: str) -> None:
    """One opening, as the first entry; and the journal folds to what the account is."""
    entries = read_journal(manager.store, account)
    assert [entry.operation == "open_account" for entry in entries] == [True] + [False] * (len(entries) - 1)
    assert len(entries) > 1
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    state = AccountState.fold(entries)
    assert state.balance == sum(entry.balance_change for entry in entries)
    assert manager.describe(account).plan == "free"


def test_threads_that_race_for_the_first_request(valkey_url: str, namespace: str) -> None:
    """16 threads, 20 new accounts, every thread at each of them."""
    with CreditManager(RedisStore(valkey_url, namespace=namespace, blocking=True)) as manager:
        manager.publish_pricing(DOCUMENT)
        start = threading.Barrier(16)
        failed: list[BaseException] = []

        def work(number: int) -> None:
            start.wait()
            try:
                for account in range(20):
                    if (number + account) % 2:
                        manager.deduct(f"u{account}", 1)
                    else:
                        manager.add_credits(f"u{account}", 1)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        for account in range(20):
            assert_opened_once(manager, f"u{account}")
            # 8 came in, 8 were charged, 5 of those to the allowance.
            assert manager.get_balance(f"u{account}").balance == 55


async def test_tasks_that_race_for_the_first_request(valkey_url: str, namespace: str) -> None:
    """16 tasks of two managers at once; what is admitted is what there was."""
    async with (
        AsyncCreditManager.from_url(valkey_url, namespace=namespace) as ours,
        AsyncCreditManager.from_url(valkey_url, namespace=namespace) as theirs,
    ):
        await ours.publish_pricing(DOCUMENT)
        outcomes = await asyncio.gather(
            *((ours, theirs)[number % 2].deduct("u1", 10) for number in range(16)), return_exceptions=True
        )
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 5
        assert (await ours.get_balance("u1")).balance == 5
        entries = read_journal(ours.store, "u1")
        assert [entry.operation for entry in entries] == ["open_account", *["deduct"] * 5]


def test_processes_that_race_for_the_first_request(server_url: str, namespace: str) -> None:
    """4 processes, 30 new accounts, requests of different kinds, some of them refused."""
    accounts = 30
    with CreditManager(RedisStore(server_url, namespace=namespace, blocking=True)) as manager:
        manager.publish_pricing(DOCUMENT)
        racers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.manager.opening_racer", server_url, namespace, str(accounts)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        try:
            for racer in racers:
                assert said(racer) == "ready"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            admitted = sum(int(said(racer)) for racer in racers)
        finally:
            for racer in racers:
                racer.communicate(timeout=60)
        assert [racer.returncode for racer in racers] == [0] * 4
        journalled = 0
        for number in range(accounts):
            assert_opened_once(manager, f"u{number}")
            journalled += len(operations_of(manager, f"u{number}")) - 1
        assert journalled == admitted


def said(racer: "subprocess.Popen[str]") -> Any:
    """The next line that a process says."""
    assert racer.stdout is not None
    return racer.stdout.readline().strip()
