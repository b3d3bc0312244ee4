"""Looking: describe and read_entry."""

import pytest

from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    add,
    deduct,
    entry_of,
    key,
    micro,
    reserve,
    terms,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore


@pytest.mark.asyncio
class DescribingConformance(ConformanceTests):
    """Descriptions of an account, and of a change."""

    async def test_plain_account(self, open_store: OpenStore) -> None:
        """A plain account has a balance, and nothing else."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve("a lease", 30)
        described = await caller.describe()
        assert described.account == ACCOUNT
        balance = described.balance
        assert [micro(amount) for amount in (balance.balance, balance.held, balance.available)] == [100, 30, 70]
        assert (balance.seq, micro(balance.allowance)) == (2, 0)
        assert (described.frozen, described.plan, described.plan_assigned_at, described.team) == ("", "", None, None)
        assert (described.caps, described.low_levels) == ((), ())
        assert [grant for grant in described.grants if grant.number] == []
        assert (described.allowance.plan, micro(described.allowance.limit)) == (None, 0)

    async def test_unknown_account(self, open_store: OpenStore) -> None:
        """An account that nothing ever happened to has nothing, and looking does not create it."""
        caller = Caller(await open_store())
        described = await caller.describe()
        assert (described.balance.seq, micro(described.balance.balance), described.plan) == (0, 0, "")

    async def test_everything_at_once(self, open_store: OpenStore) -> None:
        """All that an account has stands in one description."""
        caller = Caller(await open_store(), Document({"pro": Plan(100, rollover=20)}))
        await caller.add(10, "pool")
        await caller.set_plan("pro")
        await caller.add(20, "grant", type="bonus", priority=5)
        await caller.set_cap("day", 500)
        await caller.deduct(30, low_levels=(200,))
        await caller.deduct(1, "below", skip_allowance=True, low_levels=(200,))
        await caller.reserve("a lease", 80)
        await caller.store.freeze(ACCOUNT, "why", key("frozen"), cause=b"")
        described = await caller.describe()
        assert (described.plan, described.frozen) == ("pro", "why")
        amounts = (described.allowance.limit, described.allowance.used, described.allowance.held)
        assert [micro(amount) for amount in amounts] == [100, 30, 70]
        assert described.allowance.period_start is not None
        assert described.allowance.period_end is not None
        assert described.allowance.period_start <= described.now < described.allowance.period_end
        assert [(grant.type, micro(grant.remaining)) for grant in described.grants if grant.number] == [("bonus", 19)]
        assert [(cap.window, micro(cap.used), micro(cap.held)) for cap in described.caps] == [("day", 31, 80)]
        assert [micro(level) for level in described.low_levels] == [200]

    async def test_rolled_over(self, open_store: OpenStore) -> None:
        """The allowance says what of it was rolled over."""
        caller = Caller(await open_store(), Document({"pro": Plan(100, rollover=20)}))
        await caller.set_plan("pro")
        later = caller.at(await open_store(clock_offset_ms=30 * DAY_MS + HOUR_MS))
        allowance = (await later.describe()).allowance
        assert [micro(amount) for amount in (allowance.limit, allowance.rolled_over, allowance.remaining)] == [
            120,
            20,
            120,
        ]

    async def test_descriptions_count_what_is_due(self, open_store: OpenStore) -> None:
        """A description is of the moment: what has expired is gone from it, applied or not."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve("released", 30)
        await caller.reserve("charged", 20, terms(on_expiry="charge"))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        described = await later.describe()
        assert (micro(described.balance.balance), micro(described.balance.held)) == (80, 0)
        assert (described.now - (await caller.describe()).now).total_seconds() >= HOUR_MS / 1000 - 1

    async def test_read_entry(self, open_store: OpenStore) -> None:
        """A change's entry can be read by its transaction id; there is none of another partition, and none later."""
        store = await open_store(partitions=2)
        added = await add(store, 5, cause=b'{"type":"bonus"}')
        entry = await entry_of(store, added)
        assert (entry.operation, entry.account, entry.operation_key) == ("add_credits", ACCOUNT, "key/a grant")
        assert (entry.epoch, entry.seq, entry.amount, entry.balance_change) == (1, 1, 5, 5)
        assert (entry.cause, entry.charged) == ('{"type":"bonus"}', 0)
        assert await store.read_entry(1 - entry.partition, entry.entry_id) is None
        assert await store.read_entry(entry.partition, f"{entry.time_ms + 1}-0") is None

    async def test_entries_of_charges(self, open_store: OpenStore) -> None:
        """The entry of a charge says what was charged; that of a hold says that nothing was."""
        store = await open_store()
        await add(store, 100)
        assert (await entry_of(store, await deduct(store, 7))).charged == 7
        assert (await entry_of(store, await reserve(store, "a lease", 7))).charged == 0

    async def test_entries_are_numbered(self, open_store: OpenStore) -> None:
        """Each change of an account has the number after the one before."""
        caller = Caller(await open_store())
        made = [await caller.add(10), await caller.deduct(1), await caller.reserve("a lease", 1)]
        made.append(await caller.settle("a lease", 1))
        assert [(await entry_of(caller.store, result)).seq for result in made] == [1, 2, 3, 4]
