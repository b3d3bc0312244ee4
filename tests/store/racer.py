"""Processes that race over one account: `python -m tests.store.racer URL NAMESPACE WORK PROCESSES`.

Prints their ids as JSON; they start together once all are connected, and each prints what it did as JSON.
"""

import json
import multiprocessing
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ducto_redis.driving import drive
from ducto_redis.errors import CreditError, InsufficientCreditsError
from ducto_redis.money import to_signed_micro
from ducto_redis.store import RedisStore
from ducto_redis.store.conformance.calls import ACCOUNT, add, deduct, extend, reserve, settle, terms
from ducto_redis.store.contract import NamespaceState

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

SHARED_KEYS = 40
STEPS = 120


def spend(store: RedisStore, number: int, chance: random.Random) -> int:
    """Deduct until nothing is left; what was admitted, in micro-credits."""
    admitted = charge = 0
    while True:
        amount = chance.randint(1, 9)
        charge += 1
        try:
            drive(deduct(store, amount, f"{number}.{charge}"))
        except InsufficientCreditsError as refused:
            if not refused.available:
                return admitted
        else:
            admitted += amount


def work_with_leases(store: RedisStore, number: int, chance: random.Random) -> int:
    """Hold, extend, settle for less or more, release, abandon; how often credits were held."""
    held = 0
    for step in range(STEPS):
        lease_id, amount = f"{number}.{step}", chance.randint(1, 30)
        end = chance.choice(["settle", "settle", "release", "abandon", "abandon and settle"])
        lease_terms = terms(
            ttl_ms=1 if end.startswith("abandon") else 60_000, on_expiry=chance.choice(["release", "charge"])
        )
        try:
            drive(reserve(store, lease_id, amount, lease_terms))
        except InsufficientCreditsError:
            continue
        held += 1
        if chance.random() < 0.3:
            with suppress(CreditError):
                drive(extend(store, lease_id, chance.randint(1, 10), f"more {lease_id}"))
        if end.endswith("settle"):
            drive(settle(store, lease_id, chance.randint(0, 40)))
        elif end == "release":
            drive(store.release(ACCOUNT, lease_id, cause=b""))
    return held


def share_keys(store: RedisStore, number: int, chance: random.Random) -> int:
    """Make the charges that all others make too; how many were made here and not replayed."""
    keys = [f"shared {shared}" for shared in range(SHARED_KEYS)]
    chance.shuffle(keys)
    return sum(not drive(deduct(store, 1, name)).replayed for name in keys)


def create(store: RedisStore, number: int, chance: random.Random) -> int:
    """Create the namespace where it is missing, and grant the one bonus; what the account has then."""
    if drive(store.read_namespace()) is NamespaceState.MISSING:
        drive(store.create_namespace())
    assert drive(store.read_namespace()) is NamespaceState.OPEN
    drive(add(store, 50, "a bonus"))
    return to_signed_micro(drive(store.get_balance(ACCOUNT)).balance)


def go_on(store: RedisStore, number: int, chance: random.Random) -> int:
    """Work with leases for long: to be killed before the end."""
    return sum(work_with_leases(store, number * 1000 + life, chance) for life in range(1000))


WORK: dict[str, Callable[[RedisStore, int, random.Random], int]] = {
    work.__name__: work for work in (spend, work_with_leases, share_keys, create, go_on)
}


def say(what: object) -> None:
    """Print a line, in one piece: all processes share the output."""
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def run(url: str, namespace: str, work: str, number: int, start: "Barrier") -> None:
    """One of the processes."""
    store = RedisStore(url, namespace=namespace, partitions=4, blocking=True, timeout_seconds=30)
    drive(store.link.run(store.operations.read_partition(0)))
    start.wait()
    say(WORK[work](store, number, random.Random(number)))
    drive(store.close())


def main(url: str, namespace: str, work: str, count: int) -> int:
    """Start them and wait for them; 0 where all ended well."""
    context = multiprocessing.get_context("fork")  # what is imported once serves all
    start = context.Barrier(count)
    processes = [context.Process(target=run, args=(url, namespace, work, number, start)) for number in range(count)]
    for process in processes:
        process.start()
    say([process.pid for process in processes])
    for process in processes:
        process.join()
    return any(process.exitcode for process in processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
