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

from ducto_redis.driving import drive
from ducto_redis.engine.state import AccountState
from ducto_redis.money import to_signed_micro
from ducto_redis.store import RedisStore
from ducto_redis.store.conformance import assert_fold, read_journal
from ducto_redis.store.conformance.calls import ACCOUNT, add, deduct, numbers_of
from tests.store.racer import SHARED_KEYS

PROCESSES = 8
ROOT = Path(__file__).parents[2]
CREDITS = 2000


@pytest.fixture
def store(server_url: str, namespace: str) -> Iterator[RedisStore]:
    """A store on the server that the processes use."""
    store = RedisStore(server_url, namespace=namespace, partitions=4, blocking=True, timeout_seconds=30)
    yield store
    drive(store.close())


@pytest.fixture
def funded(store: RedisStore) -> RedisStore:
    """The same, with a namespace and an account that has credits."""
    drive(store.create_namespace())
    drive(add(store, CREDITS))
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


def test_deduct(funded: RedisStore, server_url: str, namespace: str) -> None:
    """What all processes together were admitted is exactly what there was."""
    admitted = race(server_url, namespace, "spend")
    assert sum(admitted) == CREDITS
    assert drive(numbers_of(funded)) == (0, 0, 0)
    assert_never_overspent(funded)
    assert_fold(funded)


def test_leases(funded: RedisStore, server_url: str, namespace: str) -> None:
    """Holds, extensions, settles, releases and expiries of all processes never pass what there is."""
    held = race(server_url, namespace, "work_with_leases")
    assert all(held)
    for partition in funded.partitions():
        drive(funded.sweep_partition(partition))
    entries = read_journal(funded, ACCOUNT)
    assert sum(entry.operation == "reserve" for entry in entries) == sum(held)
    operations = {entry.operation for entry in entries}
    assert operations >= {"add_credits", "reserve", "extend", "settle", "release", "expire"}
    balance, holds, _ = drive(numbers_of(funded))
    assert (balance, holds) == (CREDITS - sum(-entry.balance_change for entry in entries[1:]), 0)
    assert_never_overspent(funded)
    assert_fold(funded)


def test_the_same_keys_from_everywhere(funded: RedisStore, server_url: str, namespace: str) -> None:
    """A charge that every process makes under the same key is made once."""
    made = race(server_url, namespace, "share_keys")
    assert sum(made) == SHARED_KEYS
    assert drive(numbers_of(funded)) == (CREDITS - SHARED_KEYS, 0, CREDITS - SHARED_KEYS)
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
                drive(add(funded, 20, f"more {left} {length}"))
            os.kill(process, signal.SIGKILL)
        assert racers.wait() == 1
    assert_never_overspent(funded)
    assert_fold(funded)
    available = to_signed_micro(drive(funded.get_balance(ACCOUNT)).available)
    drive(deduct(funded, available, "all that nobody holds"))
    assert_fold(funded)
