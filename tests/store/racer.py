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

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.operation import Charge, Conditions
from ducto_redis.engine.scripts import load_scripts
from ducto_redis.errors import (
    CapReachedError,
    ConcurrencyLimitError,
    CreditError,
    InsufficientCreditsError,
    LeaseClosedError,
    MemberNotFoundError,
    RefundError,
)
from ducto_redis.money import to_signed_micro
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from ducto_redis.store.contract import NamespaceState
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import (
    ACCOUNT,
    HOUR_MS,
    add,
    deduct,
    extend,
    key,
    numbers_of,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.inspection import read_journal

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

SHARED_KEYS = 40
PROCESSES = 8
STEPS = 120
NEW_ACCOUNTS = 30
BONUS = 100
ALLOWANCE = 40
CONCURRENT = 3
MEMBERS = ("ann", "bob", "cy")
PARTS = (1, 2, 3, 5, 8, 13)
RUN = "run"


def spend(store: RedisStore, number: int, chance: random.Random) -> int:
    """Deduct until nothing is left; what was admitted, in micro-credits."""
    admitted = charge = 0
    while True:
        amount = chance.randint(1, 9)
        charge += 1
        try:
            run_sync(deduct(store, amount, f"{number}.{charge}"))
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
            run_sync(reserve(store, lease_id, amount, lease_terms))
        except InsufficientCreditsError:
            continue
        held += 1
        if chance.random() < 0.3:
            with suppress(CreditError):
                run_sync(extend(store, lease_id, chance.randint(1, 10), f"more {lease_id}"))
        if end.endswith("settle"):
            run_sync(settle(store, lease_id, chance.randint(0, 40)))
        elif end == "release":
            run_sync(store.release(ACCOUNT, lease_id, cause=b""))
    return held


def work_inside(store: RedisStore, number: int, chance: random.Random) -> int:
    """Hold inside the one run, at any depth, and end in every way; what was charged by those who said so, in all."""
    charged = 0
    mine: list[str] = []
    for step in range(STEPS):
        lease_id, amount = f"{number}.{step}", chance.randint(1, 30)
        end = chance.choice(["settle", "settle", "settle", "release", "abandon and settle", "extend", "stay open"])
        parent = chance.choice([RUN, RUN, *mine[-2:]])
        lease_terms = terms(ttl_ms=1 if end.startswith("abandon") else 60_000)
        try:
            run_sync(reserve(store, lease_id, amount, lease_terms, conditions=Conditions(parent=parent)))
        except (InsufficientCreditsError, LeaseClosedError):
            continue
        if end == "extend":
            with suppress(InsufficientCreditsError, LeaseClosedError):
                run_sync(extend(store, lease_id, chance.randint(1, 10), f"more {lease_id}"))
        if end == "release":
            run_sync(store.release(ACCOUNT, lease_id, cause=b""))
        elif end == "stay open":
            mine.append(lease_id)
        else:
            charged += to_signed_micro(run_sync(settle(store, lease_id, chance.randint(0, 40))).amount)
    for lease_id in mine:
        charged += to_signed_micro(run_sync(settle(store, lease_id, chance.randint(0, 5))).amount)
    return charged


def share_keys(store: RedisStore, number: int, chance: random.Random) -> int:
    """Make the charges that all others make too; how many were made here and not replayed."""
    keys = [f"shared {shared}" for shared in range(SHARED_KEYS)]
    chance.shuffle(keys)
    return sum(not run_sync(deduct(store, 1, name)).replayed for name in keys)


def create(store: RedisStore, number: int, chance: random.Random) -> int:
    """Create the namespace where it is missing, and grant the one bonus; what the account has then."""
    if run_sync(store.read_namespace()) is NamespaceState.MISSING:
        run_sync(store.create_namespace())
    assert run_sync(store.read_namespace()) is NamespaceState.OPEN
    run_sync(add(store, 50, "a bonus"))
    return run_sync(numbers_of(store))[0]


def first_requests(store: RedisStore, number: int, chance: random.Random) -> int:
    """Be the first to charge many new accounts; what was charged of them all, in micro-credits."""
    document = Document({"free": Plan(ALLOWANCE)}, default="free", bonus=BONUS)
    accounts = [f"new {account}" for account in range(NEW_ACCOUNTS)]
    chance.shuffle(accounts)
    charged = 0
    for account in accounts:
        caller = Caller(store, document, account=account)
        for step in range(3):
            with suppress(InsufficientCreditsError):
                amount = chance.randint(1, 20)
                run_sync(caller.deduct(amount, f"{number}.{step}"))
                charged += amount
    return charged


def spend_capped(store: RedisStore, number: int, chance: random.Random) -> int:
    """Charge and hold under a cap until it refuses the smallest amount; what was charged, in micro-credits."""
    caller, charged, step = Caller(store), 0, 0
    while True:
        step += 1
        amount = chance.randint(1, 9)
        try:
            if chance.random() < 0.5:
                run_sync(caller.deduct(amount, f"{number}.{step}"))
                charged += amount
            else:
                run_sync(caller.reserve(f"{number}.{step}", amount))
                if chance.random() < 0.3:
                    run_sync(caller.release(f"{number}.{step}"))
                else:
                    cost = chance.randint(0, amount)
                    run_sync(caller.settle(f"{number}.{step}", cost))
                    charged += cost
        except CapReachedError as refused:
            if refused.used >= refused.limit:
                return charged


def spend_as_members(store: RedisStore, number: int, chance: random.Random) -> int:
    """Spend as members whose roles come and go; what was charged, in micro-credits."""
    caller, charged = Caller(store), 0
    for step in range(STEPS):
        member, amount = chance.choice(MEMBERS), chance.randint(1, 9)
        if chance.random() < 0.1:
            role = chance.choice(["removed", "member", "member"])
            with suppress(MemberNotFoundError):
                run_sync(store.set_member(ACCOUNT, member, role, key(f"role {number}.{step}"), cause=b""))
        with suppress(MemberNotFoundError, CapReachedError, InsufficientCreditsError):
            if chance.random() < 0.5:
                run_sync(caller.deduct(amount, f"{number}.{step}", member=member))
                charged += amount
            else:
                run_sync(caller.reserve(f"{number}.{step}", amount, member=member))
                run_sync(caller.settle(f"{number}.{step}", amount))
                charged += amount
    return charged


def refund_the_same(store: RedisStore, number: int, chance: random.Random) -> int:
    """Refund the same charges as everybody, in parts; what came of it, in micro-credits."""
    charges = [charge_of(entry) for entry in read_journal(store, ACCOUNT) if entry.charged]
    refunded = 0
    for step in range(STEPS):
        charge, part = chance.choice(charges), chance.choice(PARTS)
        with suppress(RefundError):
            result = run_sync(
                store.refund(
                    ACCOUNT, charge, part, key(f"{number}.{step}", f"{part}"), expired_to_balance=True, cause=b""
                )
            )
            refunded += to_signed_micro(result.amount)
    return refunded


def hold_a_few(store: RedisStore, number: int, chance: random.Random) -> int:
    """Open leases of which only a few may be open at once; how many were opened."""
    caller, opened = Caller(store), 0
    for step in range(STEPS):
        try:
            run_sync(caller.reserve(f"{number}.{step}", 1, max_concurrent=CONCURRENT))
        except ConcurrencyLimitError:
            continue
        opened += 1
        if chance.random() < 0.5:
            run_sync(caller.settle(f"{number}.{step}", 1))
        else:
            run_sync(caller.release(f"{number}.{step}"))
    return opened


def sweep_and_settle(store: RedisStore, number: int, chance: random.Random) -> int:
    """Sweep what has expired while others settle the leases that rest on it; micro-credits that sweeps took."""
    went = 0
    mine = [f"{lease}" for lease in range(number, STEPS, PROCESSES)]
    while mine:
        if chance.random() < 0.5:
            swept = run_sync(store.sweep_partition(store.namespace.partition_of(ACCOUNT), limit=1))
            went += to_signed_micro(swept.credits_expired)
        else:
            run_sync(Caller(store).settle(mine.pop(), chance.randint(0, 12)))
    return went


def charge_of(entry: JournalEntry) -> Charge:
    """A charge, as its entry says it."""
    return Charge(entry.transaction_id, entry.charged, entry.details, entry.time_ms)


def go_on(store: RedisStore, number: int, chance: random.Random) -> int:
    """Work with leases for long: to be killed before the end."""
    return sum(work_with_leases(store, number * 1000 + life, chance) for life in range(1000))


WORK: dict[str, Callable[[RedisStore, int, random.Random], int]] = {
    work.__name__: work
    for work in (
        spend,
        work_with_leases,
        work_inside,
        share_keys,
        create,
        first_requests,
        spend_capped,
        spend_as_members,
        refund_the_same,
        hold_a_few,
        sweep_and_settle,
        go_on,
    )
}


CLOCKS = {"sweep_and_settle": 2 * HOUR_MS}
"""Work that is done later than it is: milliseconds by which its clock is ahead."""


def say(what: object) -> None:
    """Print a line, in one piece: all processes share the output."""
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def store_of(url: str, namespace: str, *, clock_offset_ms: int = 0) -> RedisStore:
    """A blocking store."""
    scripts = load_scripts(clock_offset_ms=clock_offset_ms)
    return RedisStore(url, namespace=namespace, partitions=4, blocking=True, timeout_seconds=30, scripts=scripts)


def run(url: str, namespace: str, work: str, number: int, start: "Barrier") -> None:
    """One of the processes."""
    store = store_of(url, namespace, clock_offset_ms=CLOCKS.get(work, 0))
    run_sync(store.link.run(store.operations.read_partition(0)))
    start.wait()
    say(WORK[work](store, number, random.Random(number)))
    run_sync(store.close())


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
