"""Managers that race over accounts: `python -m tests.manager.account_racer URL NAMESPACE WORK PROCESSES ARGUMENT`.

They start together once all are connected; each prints what it did as JSON. ARGUMENT is JSON that the work is told.
"""

import json
import multiprocessing
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ducto_redis import CreditManager, UsageMetrics
from ducto_redis.engine.scripts import load_scripts
from ducto_redis.errors import CapReachedError, CreditError, InsufficientCreditsError, MemberNotFoundError, RefundError
from ducto_redis.store import RedisStore

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

PARTITIONS = 4
TWO_DAYS_MS = 2 * 24 * 3600 * 1000
MEMBERS = ("ana", "bob", "carl")

Work = Callable[[CreditManager, int, random.Random, Any], object]


def be_first(manager: CreditManager, number: int, chance: random.Random, accounts: list[str]) -> int:
    """Make the first request of every account, all processes at once; how many charges were admitted."""
    admitted = 0
    for account in accounts:
        lease = manager.reserve(account, 1)
        manager.settle(account, lease.lease_id, 1)
        admitted += 1
    return admitted


def spend_under_caps(manager: CreditManager, number: int, chance: random.Random, account: str) -> dict[str, int]:
    """Charge, hold and settle until every cap is reached; what each scope admitted, in credits."""
    admitted = {"account": 0, "model/gpt-4o": 0}
    model = True
    while True:
        amount = chance.randint(1, 5)
        usage: Any = UsageMetrics(model="gpt-4o", output_tokens=amount) if model else amount
        try:
            if chance.random() < 0.5:
                charged = int(manager.deduct(account, usage).amount)
            else:
                lease = manager.reserve(account, usage)
                if chance.random() < 0.2:
                    manager.release(account, lease.lease_id)
                    continue
                charged = int(manager.settle(account, lease.lease_id, usage).amount)
        except CapReachedError as refused:
            if refused.held or refused.used + amount <= refused.limit or amount > 1:
                continue  # somebody's hold may come back; a smaller charge may still fit
            if refused.scope == "account":
                return admitted
            model = False
            continue
        admitted["account"] += charged
        if model:
            admitted["model/gpt-4o"] += charged


def spend_as_members(manager: CreditManager, number: int, chance: random.Random, team: str) -> dict[str, int]:
    """Spend as members who come and go, on leases too, until the pool is empty; what each member spent, in credits."""
    spent = dict.fromkeys(MEMBERS, 0)
    while True:
        member, amount = chance.choice(MEMBERS), chance.randint(1, 5)
        if chance.random() < 0.1:
            with suppress(MemberNotFoundError):
                manager.remove_team_member(team, member)
            manager.add_team_member(team, member)
            continue
        try:
            if chance.random() < 0.5:
                manager.deduct_team(team, member, amount)
            else:
                lease = manager.reserve(team, amount, member=member)
                manager.settle(team, lease.lease_id, amount)
        except (MemberNotFoundError, CapReachedError):
            continue
        except InsufficientCreditsError as refused:
            if not refused.available and not refused.held:
                return spent
            continue
        spent[member] += amount


def refund(manager: CreditManager, number: int, chance: random.Random, charges: list[str]) -> int:
    """Refund parts of the same charges until nothing is left of any; how many credits."""
    refunded = 0
    for charge in chance.sample(charges, len(charges)):
        with suppress(RefundError):
            while True:
                amount = chance.choice((1, 1, 2, 3))
                try:
                    refunded += int(manager.refund_credits(charge, amount).amount)
                except RefundError:
                    if amount == 1:
                        raise
    return refunded


def sweep(manager: CreditManager, number: int, chance: random.Random, argument: None) -> list[int]:
    """Sweep everything two days later; grants and credits that this process saw expire."""
    later = RedisStore(
        manager.url,  # type: ignore[attr-defined]
        namespace=manager.store.namespace.name,
        partitions=PARTITIONS,
        blocking=True,
        timeout_seconds=30,
        scripts=load_scripts(clock_offset_ms=TWO_DAYS_MS),
    )
    with CreditManager(later) as sweeper:
        swept = sweeper.sweep_expired_credits()
    return [swept.grants_expired, int(swept.credits_expired)]


def pay_once(manager: CreditManager, number: int, chance: random.Random, keys: list[str]) -> dict[str, int]:
    """Charge a user or their team under the same keys as all others, while credits come in; whom each key charged."""
    charged: dict[str, int] = {}
    for key in chance.sample(keys, len(keys)):
        if chance.random() < 0.3:
            manager.add_credits("bob", 1)
        paid = manager.deduct_personal_then_team("bob", "acme", 2, idempotency_key=key)
        charged[f"{key} {paid.paid_by}"] = 1
    return charged


def change_plans(manager: CreditManager, number: int, chance: random.Random, account: str) -> int:
    """Spend from an allowance while its plan changes all the time; what was admitted, in credits."""
    admitted = 0
    for _ in range(60):
        if chance.random() < 0.2:
            manager.set_user_plan(account, chance.choice(("small", "large")))
        with suppress(CreditError):
            admitted += int(manager.deduct(account, chance.randint(1, 5)).amount)
    return admitted


WORK: dict[str, Work] = {
    work.__name__: work
    for work in (be_first, spend_under_caps, spend_as_members, refund, sweep, pay_once, change_plans)
}


def run(url: str, namespace: str, work: str, number: int, argument: Any, start: "Barrier") -> None:
    """One of the processes."""
    manager = CreditManager.from_url(url, namespace=namespace, partitions=PARTITIONS, timeout_seconds=30)
    manager.url = url  # type: ignore[attr-defined]
    manager.open()
    start.wait()
    done = WORK[work](manager, number, random.Random(number), argument)
    os.write(sys.stdout.fileno(), json.dumps(done).encode() + b"\n")  # in one piece: all processes share the output
    manager.close()


def main(url: str, namespace: str, work: str, count: int, argument: Any) -> int:
    """Start them and wait for them; 0 where all ended well."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(count)
    processes = [
        context.Process(target=run, args=(url, namespace, work, number, argument, start)) for number in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return any(process.exitcode for process in processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5])))
