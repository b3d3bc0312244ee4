"""Asking whether a lease could be opened: the answer, or the refusal, that it would be, and nothing else."""

import pytest

from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    MemberNotFoundError,
)
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, HOUR_MS, MINUTE_MS, key, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore


@pytest.mark.asyncio
class DryRunConformance(ConformanceTests):
    """Dry runs of reserve."""

    async def test_dry_run(self, open_store: OpenStore) -> None:
        """A dry run answers what the reserve would, and opens nothing."""
        caller = Caller(await open_store(), Document({"pro": Plan(30)}))
        await caller.add(100)
        await caller.set_plan("pro")
        dry = await caller.reserve("a lease", 50, dry_run=True)
        assert (micro(dry.amount), micro(dry.allowance_consumed), micro(dry.available)) == (50, 30, 80)
        assert (await caller.numbers(), await caller.left()) == ((100, 0, 100), 30)
        assert (await caller.store.list_leases(ACCOUNT)).leases == []
        real = await caller.reserve("a lease", 50)
        assert (real.replayed, real.amount, real.available, real.allowance_consumed) == (
            False,
            dry.amount,
            dry.available,
            dry.allowance_consumed,
        )

    async def test_dry_runs_are_refused(self, open_store: OpenStore) -> None:
        """A dry run is refused for what the reserve would be refused for."""
        caller = Caller(await open_store())
        await caller.add(100)
        with pytest.raises(InsufficientCreditsError):
            await caller.reserve("a lease", 101, dry_run=True)
        with pytest.raises(ConcurrencyLimitError):
            await caller.reserve("a lease", 1, dry_run=True, max_concurrent=0)
        with pytest.raises(MemberNotFoundError):
            await caller.reserve("a lease", 1, dry_run=True, member="ann")
        await caller.set_cap("day", 10)
        with pytest.raises(CapReachedError):
            await caller.reserve("a lease", 11, dry_run=True)
        await caller.store.freeze(ACCOUNT, "why", key("frozen"), cause=b"")
        with pytest.raises(AccountFrozenError):
            await caller.reserve("a lease", 1, dry_run=True)

    async def test_of_a_lease_that_is_open(self, open_store: OpenStore) -> None:
        """A dry run of an open lease finds it, as the reserve would."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve("a lease", 50)
        assert (await caller.reserve("a lease", 50, dry_run=True)).replayed
        with pytest.raises(IdempotencyConflictError):
            await caller.reserve("a lease", 50, terms(fingerprint="something else"), dry_run=True)

    async def test_of_a_new_account(self, open_store: OpenStore) -> None:
        """A dry run knows what a new account would begin with, and does not begin it."""
        caller = Caller(await open_store(), Document(bonus=50))
        assert micro((await caller.reserve("a lease", 50, dry_run=True)).available) == 0
        with pytest.raises(InsufficientCreditsError):
            await caller.reserve("a lease", 51, dry_run=True)
        balance = await caller.ask(lambda c: caller.store.get_balance(ACCOUNT, conditions=c))
        assert (micro(balance.balance), balance.seq) == (50, 0)

    async def test_dry_runs_count_what_is_due(self, open_store: OpenStore) -> None:
        """A dry run counts expired leases as gone, and leaves them where they are."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve("expired by then", 80)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert micro((await later.reserve("a lease", 100, dry_run=True)).available) == 0
        swept = await later.store.sweep_partition(later.store.namespace.partition_of(ACCOUNT))
        assert swept.leases_expired == 1

    async def test_it_warns_without_having_warned(self, open_store: OpenStore) -> None:
        """A dry run says which caps the reserve would pass, and the reserve says it too."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.set_cap("day", 10, action="warn")
        dry = await caller.reserve("a lease", 11, terms(ttl_ms=MINUTE_MS), dry_run=True)
        real = await caller.reserve("a lease", 11)
        assert (len(dry.warnings), real.warnings) == (1, dry.warnings)
