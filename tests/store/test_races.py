"""Many processes on one account of a real server: nobody overspends, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ducto_redis.engine.entry import LEASE_CHANGE, LeaseRecord
from ducto_redis.engine.state import AccountState
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from ducto_redis.testing import assert_fold, read_journal
from ducto_redis.testing.caller import Caller
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    add,
    deduct,
    key,
    micro,
    numbers_of,
    reserve,
    terms,
)
from tests.store.racer import (
    ALLOWANCE,
    BONUS,
    CONCURRENT,
    MEMBERS,
    NEW_ACCOUNTS,
    PROCESSES,
    RUN,
    SHARED_KEYS,
    STEPS,
    store_of,
)

ROOT = Path(__file__).parents[2]
CREDITS = 2000


@pytest.fixture
def store(server_url: str, namespace: str) -> Iterator[RedisStore]:
    """A store on the server that the processes use."""
    store = RedisStore(server_url, namespace=namespace, partitions=4, blocking=True, timeout_seconds=30)
    yield store
    run_sync(store.close())


@pytest.fixture
def funded(store: RedisStore) -> RedisStore:
    """The same, with a namespace and an account that has credits."""
    run_sync(store.create_namespace())
    run_sync(add(store, CREDITS))
    return store


@contextmanager
def racing(url: str, namespace: str, work: str) -> Iterator["subprocess.Popen[str]"]:
    """The processes, under way; whatever of them still runs at the end is killed."""
    racers = subprocess.Popen(
        [sys.executable, "-m", "tests.store.racer", url, namespace, work, str(PROCESSES)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield racers
    finally:
        if racers.poll() is None:
            os.killpg(racers.pid, signal.SIGKILL)
            racers.wait()
        if racers.stdout is not None:
            racers.stdout.close()


def race(url: str, namespace: str, work: str) -> list[int]:
    """What each of the processes says that it did."""
    with racing(url, namespace, work) as racers:
        said, _ = racers.communicate()
    assert racers.returncode == 0
    _, *done = map(json.loads, said.splitlines())
    assert len(done) == PROCESSES
    return done


def assert_never_overspent(store: RedisStore) -> None:
    """At no moment of the account's history was more spent and held than there was."""
    state = AccountState()
    for entry in read_journal(store, ACCOUNT):
        state.apply(entry)
        assert state.held >= 0, entry
        assert state.balance - state.held >= 0, entry


def assert_proved(store: RedisStore, folder: Path) -> None:
    """Folding the journal gives the accounts, and a ledger that a worker writes from it proves every balance."""
    assert_fold(store)
    accounts = len({entry.account for entry in read_journal(store)})
    with Ledger.from_url(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        ledger.migrate()
        worker = LedgerWorker(store, ledger)
        worker.start_thread()
        worker.drain_and_stop(60)
        report = ledger.verify(store.namespace.name, store=store)
        assert report.ok, report
        assert (report.accounts, report.compared, report.behind) == (accounts, accounts, 0)


def test_deduct(funded: RedisStore, server_url: str, namespace: str) -> None:
    """What all processes together were admitted is exactly what there was."""
    admitted = race(server_url, namespace, "spend")
    assert sum(admitted) == CREDITS
    assert run_sync(numbers_of(funded)) == (0, 0, 0)
    assert_never_overspent(funded)
    assert_fold(funded)


def test_leases(funded: RedisStore, server_url: str, namespace: str) -> None:
    """Holds, extensions, settles, releases and expiries of all processes never pass what there is."""
    held = race(server_url, namespace, "work_with_leases")
    assert all(held)
    for partition in funded.partitions():
        run_sync(funded.sweep_partition(partition))
    entries = read_journal(funded, ACCOUNT)
    assert sum(entry.operation == "reserve" for entry in entries) == sum(held)
    operations = {entry.operation for entry in entries}
    assert operations >= {"add_credits", "reserve", "extend", "settle", "release", "expire"}
    balance, holds, _ = run_sync(numbers_of(funded))
    assert (balance, holds) == (CREDITS - sum(-entry.balance_change for entry in entries[1:]), 0)
    assert_never_overspent(funded)
    assert_fold(funded)


def test_one_budget(funded: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """However many spend inside one run, all together never spend more than it held, and at no moment hold more."""
    budget = 500
    run_sync(reserve(funded, RUN, budget, terms(ttl_ms=HOUR_MS)))
    charged = race(server_url, namespace, "work_inside")
    assert 0 < sum(charged) <= budget
    assert sum(charged) > budget * 0.9, "there was work for more than all of it"
    spent, leases = 0, {RUN: budget}
    for entry in read_journal(funded, ACCOUNT)[2:]:
        spent += entry.charged
        for name, record in entry.changes:
            if name.startswith(LEASE_CHANGE):
                lease = LeaseRecord.decode(record) if record else None
                leases[name[len(LEASE_CHANGE) :]] = lease.amount if lease and lease.state == "open" else 0
        assert spent + sum(leases.values()) == budget, entry
        assert min(leases.values()) >= 0, entry
    assert spent == sum(charged)
    assert micro(run_sync(funded.release(ACCOUNT, RUN, cause=b"")).amount) == budget - spent
    assert run_sync(numbers_of(funded)) == (CREDITS - spent, 0, CREDITS - spent)
    assert_never_overspent(funded)
    assert_proved(funded, tmp_path)


def test_the_same_keys_from_everywhere(funded: RedisStore, server_url: str, namespace: str) -> None:
    """A charge that every process makes under the same key is made once."""
    made = race(server_url, namespace, "share_keys")
    assert sum(made) == SHARED_KEYS
    assert run_sync(numbers_of(funded)) == (CREDITS - SHARED_KEYS, 0, CREDITS - SHARED_KEYS)
    assert_fold(funded)


def test_creation(store: RedisStore, server_url: str, namespace: str) -> None:
    """Processes that start together on an empty server make one namespace, and one account in it."""
    assert race(server_url, namespace, "create") == [50] * PROCESSES
    records = [store.redis().hgetall(store.namespace.meta(partition)) for partition in store.partitions()]
    assert len({record[b"namespace_id"] for record in records}) == 1
    assert {record[b"state"] for record in records} == {b"open"}
    assert_fold(store)


def test_killed_processes(funded: RedisStore, server_url: str, namespace: str) -> None:
    """Processes that are killed in the middle of their work leave nothing half done."""
    journal = funded.namespace.journal(funded.namespace.partition_of(ACCOUNT))
    client = funded.redis()
    with racing(server_url, namespace, "go_on") as racers:
        assert racers.stdout is not None
        for left, process in enumerate(reversed(json.loads(racers.stdout.readline()))):
            seen = client.xlen(journal)
            while (length := client.xlen(journal)) < seen + 50:
                run_sync(add(funded, 20, f"more {left} {length}"))
            os.kill(process, signal.SIGKILL)
        assert racers.wait() == 1
    assert_never_overspent(funded)
    assert_fold(funded)
    _, _, available = run_sync(numbers_of(funded))
    run_sync(deduct(funded, available, "all that nobody holds"))
    assert_fold(funded)


def test_first_requests(store: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """Accounts whose first requests come from everywhere at once are opened once each, with one bonus and one plan."""
    run_sync(store.create_namespace())
    charged = race(server_url, namespace, "first_requests")
    entries = read_journal(store)
    opened = [entry for entry in entries if entry.operation == "open_account"]
    assert len(opened) == NEW_ACCOUNTS == len({entry.account for entry in opened})
    assert {(entry.seq, entry.balance_change) for entry in opened} == {(1, BONUS)}
    assert sum(entry.charged for entry in entries) == sum(charged)
    for entry in opened:
        mine = [each for each in entries if each.account == entry.account]
        assert sum(each.charged for each in mine) <= BONUS + ALLOWANCE
        assert sum(each.read_details().allowance for each in mine) <= ALLOWANCE
    assert_proved(store, tmp_path)


def test_caps(funded: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """All processes together spend what a cap allows, to the last micro-credit, and at no moment more."""
    caller, limit = Caller(funded), CREDITS // 2
    run_sync(caller.set_cap("total", limit))
    charged = race(server_url, namespace, "spend_capped")
    assert sum(charged) == limit
    (cap,) = run_sync(caller.describe()).caps
    assert (micro(cap.used), micro(cap.held)) == (limit, 0)
    used = held = 0
    leases: dict[str, int] = {}
    for entry in read_journal(funded, ACCOUNT):
        used += entry.charged
        for name, record in entry.changes:
            if name.startswith(LEASE_CHANGE):
                held -= leases.pop(name, 0)
                if record:
                    leases[name] = LeaseRecord.decode(record).amount
                    held += leases[name]
        assert used + held <= limit, entry
    assert_never_overspent(funded)
    assert_proved(funded, tmp_path)


def test_members(funded: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """What members spent, each of them and together, is what was charged, whoever came and went meanwhile."""
    caller, limit = Caller(funded), 300
    run_sync(funded.create_team(ACCOUNT, "a team", "owner", key("founded"), cause=b""))
    for member in MEMBERS:
        run_sync(funded.set_member(ACCOUNT, member, "member", key(member), cause=b""))
    run_sync(caller.set_cap("total", limit, scope=f"member/{MEMBERS[0]}"))
    charged = race(server_url, namespace, "spend_as_members")
    team = run_sync(caller.describe()).team
    assert team is not None
    spent = {member.user: micro(member.spent) for member in (*team.members, *team.removed)}
    assert sum(spent.values()) == sum(charged)
    assert spent[MEMBERS[0]] <= limit
    by_member = dict.fromkeys(MEMBERS, 0)
    for entry in read_journal(funded, ACCOUNT):
        if entry.charged:
            by_member[entry.read_details().member] += entry.charged
    assert {"owner": 0, **by_member} == spent
    assert_never_overspent(funded)
    assert_proved(funded, tmp_path)


def test_refunds(funded: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """Charges that everybody refunds in parts come back to the last micro-credit, and not one more than was charged."""
    caller = Caller(funded)
    run_sync(caller.add(100, "a bonus", type="bonus", priority=1))
    charged = [run_sync(caller.deduct(60, f"charge {number}")) for number in range(4)]
    refunded = race(server_url, namespace, "refund_the_same")
    by_charge = dict.fromkeys((charge.transaction_id for charge in charged), 0)
    for entry in read_journal(funded, ACCOUNT):
        if entry.operation == "refund":
            by_charge[entry.read_details().refund_of] += entry.amount
    assert sum(by_charge.values()) == sum(refunded)
    assert max(by_charge.values()) <= 60
    assert run_sync(numbers_of(funded))[0] == CREDITS + 100 - 4 * 60 + sum(refunded)
    assert_proved(funded, tmp_path)


def test_concurrency(funded: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """However many ask at once, no more leases are open at any moment than the limit says, and every place is used."""
    opened = race(server_url, namespace, "hold_a_few")
    assert all(opened)
    leases: set[str] = set()
    most = 0
    for entry in read_journal(funded, ACCOUNT):
        for name, record in entry.changes:
            if name.startswith(LEASE_CHANGE):
                leases = leases | {name} if record else leases - {name}
        most = max(most, len(leases))
        assert len(leases) <= CONCURRENT, entry
    assert most == CONCURRENT
    assert_proved(funded, tmp_path)


def test_grants_that_expire(store: RedisStore, server_url: str, namespace: str, tmp_path: Path) -> None:
    """Sweepers that run beside each other, and beside the leases that rest on what they sweep, expire it once."""
    run_sync(store.create_namespace())
    caller = Caller(store)
    run_sync(caller.add(500, "pool"))
    now_ms = round(run_sync(caller.describe()).now.timestamp() * 1000)
    for number in range(20):
        run_sync(caller.add(100, f"{number}", type="bonus", expires_ms=now_ms + HOUR_MS + number))
    for lease in range(STEPS):
        run_sync(caller.reserve(f"{lease}", 10, terms(ttl_ms=DAY_MS)))
    went = race(server_url, namespace, "sweep_and_settle")
    later = store_of(server_url, namespace, clock_offset_ms=2 * HOUR_MS)
    entries = read_journal(store, ACCOUNT)
    expired = -sum(entry.balance_change for entry in entries if entry.operation == "expire_grant")
    charged = sum(entry.charged for entry in entries)
    assert sum(went) <= expired
    assert run_sync(numbers_of(later)) == (500 + 2000 - expired - charged, 0, 500 + 2000 - expired - charged)
    assert [grant for grant in run_sync(caller.at(later).describe()).grants if grant.number] == []
    run_sync(later.close())
    assert_proved(store, tmp_path)
