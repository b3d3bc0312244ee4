"""Credits that expire or have a priority: how they are spent, and how they go."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.engine.scripts import load_scripts
from ducto_redis.errors import ConfigError, IdempotencyConflictError, InsufficientCreditsError, InvalidAmountError
from ducto_redis.store import RedisStore
from ducto_redis.testing import read_journal
from tests.manager.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        yield manager


def remaining(credits: CreditManager, account: str = "u1") -> list[tuple[str, Decimal]]:
    """What is left of each grant, in spending order; the pool has no type."""
    return [
        (grant.type if grant.number else "", grant.remaining)
        for grant in credits.list_grants(account)
        if grant.remaining
    ]


def operations(credits: CreditManager, account: str = "u1") -> list[str]:
    """What happened to the account, oldest first."""
    return [entry.operation for entry in read_journal(credits.store, account)]  # type: ignore[arg-type]


def in_days(clock: Clock, days: float) -> datetime:
    """A time by the server's clock."""
    return clock.time + timedelta(days=days)


def test_spending_order(credits: CreditManager, clock: Clock) -> None:
    """Priority first, then soonest expiry, then oldest; the pool has priority 50 and never expires."""
    credits.add_credits("u1", 1, type="pool")
    credits.add_credits("u1", 1, type="last", priority=60)
    credits.add_credits("u1", 1, type="late", expires_at=in_days(clock, 9))
    credits.add_credits("u1", 1, type="soon", expires_at=in_days(clock, 1))
    credits.add_credits("u1", 1, type="soon too", expires_at=in_days(clock, 1))
    credits.add_credits("u1", 1, type="first", priority=10)
    credits.add_credits("u1", 1, type="first and soon", priority=10, expires_at=in_days(clock, 20))
    order = ["first and soon", "first", "soon", "soon too", "late", "", "last"]
    assert [name for name, _ in remaining(credits)] == order
    for left in range(len(order) - 1, 0, -1):
        credits.deduct("u1", 1)
        assert [name for name, _ in remaining(credits)] == order[-left:]
    credits.deduct("u1", 1)
    assert remaining(credits) == []


def test_a_charge_over_several_grants(credits: CreditManager, clock: Clock) -> None:
    """A charge takes what it needs of each, and its entry says from which."""
    credits.add_credits("u1", 5, type="bonus", expires_at=in_days(clock, 1))
    credits.add_credits("u1", 5, type="trial", expires_at=in_days(clock, 2))
    credits.add_credits("u1", 5)
    credits.deduct("u1", 8)
    assert remaining(credits) == [("trial", 2), ("", 5)]
    details = read_journal(credits.store, "u1")[-1].read_details()  # type: ignore[arg-type]
    assert [(part.type, part.amount) for part in details.grants] == [("bonus", 5_000_000), ("trial", 3_000_000)]


def test_grants_are_described(credits: CreditManager, clock: Clock) -> None:
    """A grant shows what came in, when, what is left and until when."""
    expires = in_days(clock, 1)
    added = credits.add_credits("u1", 10, type="bonus", expires_at=expires, priority=5)
    assert added.expires_at == expires
    credits.deduct("u1", 4)
    grant = credits.list_grants("u1")[0]
    assert (grant.type, grant.amount, grant.remaining, grant.priority) == ("bonus", 10, 6, 5)
    assert (grant.added_at, grant.expires_at) == (clock.time, expires)


def test_an_expired_grant_pays_nothing_new(credits: CreditManager, clock: Clock) -> None:
    """From its instant of expiry on it is gone, though no sweep ran."""
    credits.add_credits("u1", 10, expires_at=in_days(clock, 1))
    credits.add_credits("u1", 3)
    clock.move(days=1, milliseconds=-1)
    assert credits.get_balance("u1").available == 13
    clock.move(milliseconds=1)
    assert credits.get_balance("u1").balance == 3
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u1", 4)
    credits.deduct("u1", 3)
    assert operations(credits) == ["add_credits", "add_credits", "expire_grant", "deduct"]


def test_only_what_is_left_expires(credits: CreditManager, clock: Clock) -> None:
    """What was spent of a grant does not expire again."""
    credits.add_credits("u1", 10, expires_at=in_days(clock, 1))
    credits.add_credits("u1", 10)
    credits.deduct("u1", 7)
    clock.move(days=2)
    swept = credits.sweep_expired_credits()
    assert (swept.accounts, swept.grants_expired, swept.credits_expired) == (1, 1, 3)
    assert credits.get_balance("u1").balance == 10


def test_a_sweep_happens_once(credits: CreditManager, clock: Clock) -> None:
    """A second sweep finds nothing, and so does one before the time."""
    for number in range(30):
        credits.add_credits(f"u{number}", 10, expires_at=in_days(clock, 1))
    assert credits.sweep_expired_credits().credits_expired == 0
    clock.move(days=1)
    first, second = credits.sweep_expired_credits(), credits.sweep_expired_credits()
    assert (first.accounts, first.grants_expired, first.credits_expired) == (30, 30, 300)
    assert (second.accounts, second.grants_expired, second.credits_expired) == (0, 0, 0)


def test_a_dry_run_changes_nothing(credits: CreditManager, clock: Clock) -> None:
    """It says what a sweep would do: the same numbers, over all partitions and over more than one page of accounts."""
    for number in range(250):
        credits.add_credits(f"u{number}", 2, expires_at=in_days(clock, 1))
    credits.add_credits("v", 7)
    lease = credits.reserve("v", 5, ttl=60)
    clock.move(days=1)
    dry = credits.sweep_expired_credits(dry_run=True)
    assert (dry.accounts, dry.grants_expired, dry.credits_expired, dry.leases_expired) == (251, 250, 500, 1)
    assert operations(credits, "u7") == ["add_credits"]
    assert credits.sweep_expired_credits(dry_run=True) == dry
    assert credits.sweep_expired_credits() == dry
    assert operations(credits, "u7") == ["add_credits", "expire_grant"]
    assert operations(credits, "v") == ["add_credits", "reserve", "expire"]
    assert credits.settle("v", lease.lease_id, 1).late


def test_a_lease_keeps_what_it_rests_on(credits: CreditManager, clock: Clock) -> None:
    """What leases rest on does not expire under them, pays for them, and what they leave goes when they close."""
    credits.add_credits("u1", 10, type="bonus", expires_at=in_days(clock, 1))
    lease = credits.reserve("u1", 6, ttl=3 * 24 * 3600)
    clock.move(days=2)
    assert credits.sweep_expired_credits().credits_expired == 4
    balance = credits.get_balance("u1")
    assert (balance.balance, balance.held, balance.available) == (6, 6, 0)
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u1", 1)
    settled = credits.settle("u1", lease.lease_id, 5)
    assert (settled.amount, settled.shortfall) == (5, 0)
    assert credits.get_balance("u1").balance == 0
    assert operations(credits) == ["add_credits", "reserve", "expire_grant", "settle", "expire_grant"]


def test_an_expired_grant_pays_leases_first(credits: CreditManager, clock: Clock) -> None:
    """A lease spends what has expired under it before what could still be spent otherwise."""
    credits.add_credits("u1", 10, type="bonus", expires_at=in_days(clock, 1))
    lease = credits.reserve("u1", 8, ttl=3 * 24 * 3600)
    clock.move(days=2)
    credits.add_credits("u1", 20, type="first", priority=1)
    credits.settle("u1", lease.lease_id, 8)
    assert remaining(credits) == [("first", 20)]


def test_a_released_lease_lets_its_grant_go(credits: CreditManager, clock: Clock) -> None:
    """When the last lease that rests on an expired grant closes, the grant goes in the same step."""
    credits.add_credits("u1", 10, expires_at=in_days(clock, 1))
    leases = [credits.reserve("u1", 5, ttl=3 * 24 * 3600) for _ in range(2)]
    clock.move(days=2)
    assert credits.sweep_expired_credits().credits_expired == 0
    credits.release("u1", leases[0].lease_id)
    assert credits.get_balance("u1").balance == 5
    credits.release("u1", leases[1].lease_id)
    assert credits.get_balance("u1").balance == 0
    assert operations(credits)[-2:] == ["release", "expire_grant"]


def test_a_debt_is_paid_first(clock: Clock) -> None:
    """Credits that expire pay a debt before they are kept: only the rest can expire."""
    with CreditManager(clock.store, policy="overdraft", overdraft_floor=-50) as credits:
        credits.deduct("u1", 8)
        credits.add_credits("u1", 10, type="bonus", expires_at=in_days(clock, 1))
        assert remaining(credits) == [("bonus", 2)]
        clock.move(days=2)
        assert credits.sweep_expired_credits().credits_expired == 2
        assert credits.get_balance("u1").balance == 0


def test_credits_that_have_expired_already(credits: CreditManager, clock: Clock) -> None:
    """They are refused, by the server's clock, and nothing is added."""
    for expires in (clock.time, clock.time - timedelta(days=1)):
        with pytest.raises(ConfigError):
            credits.add_credits("u1", 10, expires_at=expires)
    assert credits.get_balance("u1").seq == 0


def test_at_most_256_grants(credits: CreditManager, clock: Clock) -> None:
    """The 257th that is alive at the same time is refused; one that is used up makes room."""
    for _ in range(256):
        credits.add_credits("u1", 1, expires_at=in_days(clock, 1))
    with pytest.raises(InvalidAmountError, match="256"):
        credits.add_credits("u1", 1, expires_at=in_days(clock, 1))
    credits.add_credits("u1", 1)
    credits.deduct("u1", 1)
    credits.add_credits("u1", 1, expires_at=in_days(clock, 1))
    clock.move(days=2)
    swept = credits.sweep_expired_credits()
    assert (swept.grants_expired, swept.credits_expired) == (256, 256)
    assert credits.get_balance("u1").balance == 1


def test_a_key_covers_expiry_and_priority(credits: CreditManager, clock: Clock) -> None:
    """The same key with another expiry or priority is another request."""
    expires = in_days(clock, 1)
    first = credits.add_credits("u1", 5, expires_at=expires, priority=5, idempotency_key="k")
    again = credits.add_credits("u1", 5, expires_at=expires, priority=5, idempotency_key="k")
    assert (again.transaction_id, again.replayed, again.expires_at) == (first.transaction_id, True, expires)
    with pytest.raises(IdempotencyConflictError):
        credits.add_credits("u1", 5, expires_at=in_days(clock, 2), priority=5, idempotency_key="k")
    with pytest.raises(IdempotencyConflictError):
        credits.add_credits("u1", 5, expires_at=expires, idempotency_key="k")
    clock.move(days=1)
    assert credits.add_credits("u1", 5, expires_at=expires, priority=5, idempotency_key="k").replayed


def test_many_expiries_at_once(credits: CreditManager, clock: Clock) -> None:
    """More than one call applies: all of them go before a refusal is given."""
    for number in range(200):
        credits.add_credits("u1", 1, expires_at=in_days(clock, 1 + number / 1000))
    clock.move(days=2)
    with pytest.raises(InsufficientCreditsError) as refused:
        credits.deduct("u1", 1)
    assert refused.value.available == 0
    assert credits.get_balance("u1").balance == 0


def test_a_plain_account_stays_plain(credits: CreditManager, clock: Clock) -> None:
    """Credits without expiry at the usual priority are no grant, whatever their type."""
    credits.add_credits("u1", 5, type="bonus")
    credits.add_credits("u1", 5, type="purchase", priority=50)
    credits.deduct("u1", 3)
    assert [(grant.number, grant.remaining) for grant in credits.list_grants("u1")] == [(0, 7)]


async def test_two_processes_sweep_at_once(
    manager: AsyncCreditManager, valkey_url: str, namespace: str, clock: Clock
) -> None:
    """What has expired goes once, whoever comes first: both together count each grant once."""
    for number in range(40):
        await manager.add_credits(f"u{number}", 2, expires_at=in_days(clock, 1))
    scripts = load_scripts(clock_offset_ms=2 * 24 * 3600 * 1000)
    sweepers = [AsyncCreditManager(RedisStore(valkey_url, namespace=namespace, scripts=scripts)) for _ in range(2)]
    try:
        swept = await asyncio.gather(*(sweeper.sweep_expired_credits() for sweeper in sweepers))
        assert sum(each.grants_expired for each in swept) == 40
        assert sum(each.credits_expired for each in swept) == 80
        assert (await sweepers[0].sweep_expired_credits()).accounts == 0
    finally:
        for sweeper in sweepers:
            await sweeper.close()
