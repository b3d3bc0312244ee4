"""Sweeping: what has fallen due on accounts that nobody touches."""

from datetime import timedelta

from ducto_redis import CreditManager
from ducto_redis.engine.keys import Namespace
from tests.manager.clock import Clock


def test_a_dry_run_goes_through_all_accounts() -> None:
    """In steps of 100 accounts, though nothing that it looked at is done: it says what the sweep will do."""
    clock = Clock()
    clock.store.namespace = Namespace("ducto", 2)
    clock.set(clock.time)
    with CreditManager(clock.store) as manager:
        for number in range(230):
            manager.add_credits(f"u{number}", 2, expires_at=clock.time + timedelta(days=1), durability="fast")
        manager.reserve("u0", 2, ttl=3600)
        manager.reserve("u1", 1, ttl=30 * 24 * 3600)
        clock.move(days=1)
        planned = manager.sweep_expired_credits(dry_run=True)
        assert (planned.accounts, planned.leases_expired, planned.grants_expired) == (230, 1, 230)
        assert planned.credits_expired == 459  # a lease rests on one of them
        assert manager.sweep_expired_credits() == planned
        assert manager.sweep_expired_credits().accounts == 0
        assert (manager.get_balance("u0").balance, manager.get_balance("u1").balance) == (0, 1)
