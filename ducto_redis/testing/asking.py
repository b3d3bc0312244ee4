"""Asking again: a store asks for the terms of a plan exactly where it misses something, and changes nothing by it."""

import pytest

from ducto_redis.engine.operation import CapRule, Price
from ducto_redis.errors import RepriceLease, StalePricing, TermsNeeded
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, DAY_MS, HOUR_MS, KNOWN, deduct, numbers_of, settle, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

PERIOD_MS = 30 * DAY_MS


async def on_a_plan(open_store: OpenStore, *caps: CapRule) -> Caller:
    """Return a caller whose account has a plan with an allowance, and was asked about it."""
    caller = Caller(await open_store(), Document({"pro": Plan(100, period_ms=PERIOD_MS, caps=caps)}))
    await caller.add(1000)
    await caller.set_plan("pro")
    await caller.deduct(1, "the first")
    caller.asked.clear()
    return caller


@pytest.mark.asyncio
class AskingConformance(ConformanceTests):
    """Questions for terms."""

    async def test_nothing_is_asked_of_a_plain_account(self, open_store: OpenStore) -> None:
        """An account without plan and caps never asks, also of who knows a document."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.add(100)
        await caller.deduct(1)
        await caller.reserve("a lease", 5)
        await caller.extend("a lease", 5)
        await caller.settle("a lease", 5)
        await caller.describe()
        assert caller.asked == []

    async def test_nothing_is_asked_twice(self, open_store: OpenStore) -> None:
        """A caller that knows the plan is asked nothing while its period and windows run."""
        caller = await on_a_plan(
            open_store, CapRule("account", "day", 1000), CapRule("account", "hour", 1000, rolling=True)
        )
        await caller.deduct(1)
        await caller.reserve("a lease", 5)
        await caller.extend("a lease", 5)
        await caller.settle("a lease", 5)
        await caller.add(1, "more credits")
        await caller.numbers()
        await caller.describe()
        assert caller.asked == []

    @pytest.mark.parametrize("believed", ["", "other"])
    async def test_another_plan(self, open_store: OpenStore, believed: str) -> None:
        """A caller that believes another plan is told the right one, with all that its terms depend on."""
        caller = await on_a_plan(open_store)
        assigned = (await caller.describe()).plan_assigned_at
        caller.plan = believed
        await caller.deduct(1)
        (asked,) = caller.asked
        assert (asked.plan, asked.time_zone) == ("pro", "")
        assert assigned is not None
        assert asked.assigned_ms == round(assigned.timestamp() * 1000)
        assert asked.now_ms >= asked.assigned_ms

    @pytest.mark.parametrize("believed", ["pro", "other"])
    async def test_terms_of_another_plan_are_not_taken(self, open_store: OpenStore, believed: str) -> None:
        """Terms of a plan that the account does not have are no answer, whatever plan they come with."""
        caller = await on_a_plan(open_store)
        asked = TermsNeeded("other", 0, "", round((await caller.describe()).now.timestamp() * 1000))
        conditions = caller.document.conditions(believed, terms=caller.document.terms(asked))
        with pytest.raises(TermsNeeded) as again:
            await deduct(caller.store, 1, conditions=conditions)
        assert again.value.plan == "pro"

    async def test_asking_changes_nothing(self, open_store: OpenStore) -> None:
        """A call that is asked again has done nothing, and can be made again under the same key."""
        caller = await on_a_plan(open_store)
        before = await caller.describe()
        with pytest.raises(TermsNeeded):
            await deduct(caller.store, 1, conditions=KNOWN)
        after = await caller.describe()
        assert (after.balance, after.allowance) == (before.balance, before.allowance)
        assert not (await caller.deduct(1)).replayed

    async def test_the_period_has_ended(self, open_store: OpenStore) -> None:
        """After the period's end the next call asks, once."""
        caller = await on_a_plan(open_store)
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        await later.deduct(1)
        await later.deduct(1, "another")
        assert len(later.asked) == 1

    async def test_a_window_has_ended(self, open_store: OpenStore) -> None:
        """After the end of a cap's window the next call asks for its bounds, once."""
        caller = await on_a_plan(open_store, CapRule("account", "day", 1000, time_zone="Asia/Tokyo"))
        later = caller.at(await open_store(clock_offset_ms=DAY_MS + HOUR_MS))
        await later.deduct(1)
        await later.deduct(1, "another")
        (asked,) = later.asked
        assert asked.windows == ("day@Asia/Tokyo",)

    async def test_a_newer_document(self, open_store: OpenStore) -> None:
        """The first call under a newer document asks, and an older one is told to load it."""
        caller = await on_a_plan(open_store)
        older = caller.document
        caller.document = older.next({"pro": Plan(200)})
        await caller.deduct(1)
        await caller.deduct(1, "another")
        assert len(caller.asked) == 1
        with pytest.raises(StalePricing) as stale:
            await deduct(caller.store, 1, "by an old process", conditions=older.conditions("pro"))
        assert stale.value.activation == 2

    async def test_settle_and_release_never_ask(self, open_store: OpenStore) -> None:
        """Leases close without a question, whatever has ended and whatever the caller believes."""
        caller = await on_a_plan(open_store, CapRule("account", "day", 1000))
        for lease_id in ("one", "two"):
            await caller.reserve(lease_id, 10, terms(ttl_ms=3 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * PERIOD_MS))
        await settle(later.store, "one", 10, conditions=KNOWN)
        await later.release("two")
        assert later.asked == []

    async def test_lease_is_priced_under_its_own_plan(self, open_store: OpenStore) -> None:
        """A cost that was priced under another version or another plan is asked for again; credits have neither."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", Price(10, version=3, activation=1))
        for version, plan in ((4, "pro"), (3, "other"), (3, "")):
            with pytest.raises(RepriceLease) as asked:
                await settle(
                    caller.store, "a lease", Price(9, version=version), conditions=caller.document.conditions(plan)
                )
            assert (asked.value.version, asked.value.plan) == (3, "pro")
        await caller.settle("a lease", Price(9, version=3))
        await caller.reserve("another", Price(10, version=3, activation=1))
        await settle(caller.store, "another", 9, conditions=KNOWN)

    async def test_unknown_plan_is_no_plan(self, open_store: OpenStore) -> None:
        """An account without a plan says so to who believes that it has one."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.add(10)
        caller.plan = "pro"
        await caller.deduct(1)
        (asked,) = caller.asked
        assert (asked.plan, caller.plan) == ("", "")
        assert await numbers_of(caller.store, ACCOUNT) == (9, 0, 9)
