"""Plans: assigned, changed and taken away, without making credits or losing them."""

import pytest

from ducto_redis.engine.operation import CapRule
from ducto_redis.errors import CapReachedError, IdempotencyConflictError, InsufficientCreditsError
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, DAY_MS, HOUR_MS, entry_of, key, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

PLANS = {"small": Plan(40), "big": Plan(100), "bare": Plan()}


async def on_plan(open_store: OpenStore, plan: str, balance: int = 50) -> Caller:
    """Return a caller whose account has that plan, and credits."""
    caller = Caller(await open_store(), Document(PLANS))
    await caller.add(balance)
    await caller.set_plan(plan)
    return caller


@pytest.mark.asyncio
class PlanConformance(ConformanceTests):
    """Effects of a change of plan on allowance, balance and leases."""

    async def test_set_plan(self, open_store: OpenStore) -> None:
        """A plan is assigned from now on, and journalled."""
        caller = Caller(await open_store(), Document(PLANS))
        changed = await caller.set_plan("big", time_zone="Europe/Berlin")
        entry = await entry_of(caller.store, changed)
        assert (entry.operation, entry.operation_key, entry.balance_change) == ("set_plan", "key/plan big", 0)
        described = await caller.describe()
        assert (described.plan, described.time_zone) == ("big", "Europe/Berlin")
        assert described.plan_assigned_at is not None
        assert abs((described.now - described.plan_assigned_at).total_seconds()) < 60
        assert micro(described.allowance.limit) == 100

    async def test_same_plan_again_changes_nothing(self, open_store: OpenStore) -> None:
        """A plan that the account has already is no change, under whatever key; used allowance stays used."""
        caller = await on_plan(open_store, "big")
        await caller.deduct(70)
        assert (await caller.set_plan("big")).replayed
        assert (await caller.set_plan("big", "another key")).replayed
        assert await caller.allowance() == (70, 0, 30)

    async def test_repeated_and_conflicting_keys(self, open_store: OpenStore) -> None:
        """The same key assigns once, whatever plan came after; with another plan it is a conflict."""
        caller = await on_plan(open_store, "big")
        await caller.set_plan("small")
        caller.plan = "small"
        assert (await caller.set_plan("big")).replayed
        assert (await caller.store.describe(ACCOUNT, conditions=caller.document.conditions("small"))).plan == "small"
        with pytest.raises(IdempotencyConflictError):
            await caller.store.set_plan(
                ACCOUNT, "bare", "", key("plan big", "bare"), conditions=caller.document.conditions("small"), cause=b""
            )

    @pytest.mark.parametrize(("first", "then", "left"), [("small", "big", 70), ("big", "small", 10)])
    async def test_what_was_used_stays_used(self, open_store: OpenStore, first: str, then: str, left: int) -> None:
        """Changing the plan in a period, up or down, takes what was used of its allowance along."""
        caller = await on_plan(open_store, first)
        await caller.deduct(30)
        await caller.set_plan(then)
        assert (await caller.numbers(), await caller.left()) == ((50, 0, 50), left)

    async def test_more_was_used_than_the_new_plan_gives(self, open_store: OpenStore) -> None:
        """A smaller new allowance that is used up leaves nothing and owes nothing; the balance is untouched."""
        caller = await on_plan(open_store, "big")
        await caller.deduct(90)
        await caller.set_plan("small")
        assert (await caller.numbers(), await caller.left()) == ((50, 0, 50), 0)
        with pytest.raises(InsufficientCreditsError):
            await caller.deduct(51, "another")
        await caller.set_plan("big", "back again")
        assert await caller.left() == 10

    async def test_change_with_a_lease_open(self, open_store: OpenStore) -> None:
        """A lease keeps its share of the allowance under the new plan, and settles against it."""
        caller = await on_plan(open_store, "big")
        await caller.reserve("a lease", 60)
        await caller.set_plan("small")
        assert await caller.allowance() == (0, 60, 0)
        settled = await caller.settle("a lease", 20)
        assert micro(settled.allowance_consumed) == 20
        assert (await caller.numbers(), await caller.allowance()) == ((50, 0, 50), (20, 0, 20))

    @pytest.mark.parametrize("then", ["", "bare"])
    async def test_no_allowance_any_more(self, open_store: OpenStore, then: str) -> None:
        """Without a plan, or on one without an allowance, only the balance pays; no credits came or went."""
        caller = await on_plan(open_store, "big")
        await caller.deduct(30)
        await caller.set_plan(then)
        assert (await caller.numbers(), await caller.left()) == ((50, 0, 50), 0)
        with pytest.raises(InsufficientCreditsError):
            await caller.deduct(51, "another")
        await caller.deduct(50, "the balance")

    @pytest.mark.parametrize("end", ["settle", "release"])
    async def test_lease_of_a_plan_that_is_gone(self, open_store: OpenStore, end: str) -> None:
        """A lease on a plan's allowance closes well after the plan was taken away, and after another one came."""
        caller = await on_plan(open_store, "big")
        await caller.reserve("a lease", 60)
        await caller.set_plan("")
        await caller.set_plan("small")
        if end == "settle":
            settled = await caller.settle("a lease", 50)
            assert (micro(settled.amount), micro(settled.shortfall)) == (50, 0)
        else:
            await caller.release("a lease")
        assert await caller.allowance() == ((50, 0, 0) if end == "settle" else (0, 0, 40))
        assert await caller.numbers() == (50, 0, 50)

    @pytest.mark.parametrize("between", ["", "bare"])
    async def test_taking_a_plan_away_refills_nothing(self, open_store: OpenStore, between: str) -> None:
        """An allowance that is taken away and given back within a period is used as it was."""
        caller = await on_plan(open_store, "big")
        await caller.deduct(70)
        await caller.reserve("a lease", 10)
        await caller.set_plan(between)
        assert await caller.left() == 0
        await caller.set_plan("big", "back again")
        assert await caller.allowance() == (70, 10, 20)
        later = caller.at(await open_store(clock_offset_ms=31 * DAY_MS))
        assert await later.left() == 100

    async def test_time_zone_of_an_account(self, open_store: OpenStore) -> None:
        """An account keeps its time zone where a plan is assigned without one; another zone is a change."""
        caller = Caller(await open_store(), Document(PLANS))
        await caller.set_plan("big", time_zone="Europe/Berlin")
        assert (await caller.set_plan("big", "again")).replayed
        await caller.set_plan("small")
        assert (await caller.describe()).time_zone == "Europe/Berlin"
        assert not (await caller.set_plan("small", "moved", time_zone="Asia/Tokyo")).replayed
        assert (await caller.describe()).time_zone == "Asia/Tokyo"

    async def test_plan_of_a_new_document(self, open_store: OpenStore) -> None:
        """A document that is activated holds for the accounts of its plans at their next priced call."""
        caller = await on_plan(open_store, "big")
        await caller.deduct(30)
        caller.document = caller.document.next({"big": Plan(200)})
        await caller.deduct(10, "another")
        assert await caller.allowance() == (40, 0, 160)

    async def test_plan_that_the_document_lost(self, open_store: OpenStore) -> None:
        """A plan that a newer document does not have gives nothing any more."""
        caller = await on_plan(open_store, "big")
        caller.document = caller.document.next({})
        assert micro((await caller.deduct(10)).allowance_consumed) == 0
        assert (await caller.numbers(), await caller.left()) == ((40, 0, 40), 0)

    async def test_caps_of_plans(self, open_store: OpenStore) -> None:
        """A plan brings its caps, and takes them along; what the same cap has counted stays."""
        caller = Caller(
            await open_store(),
            Document(
                {
                    "tight": Plan(caps=(CapRule("account", "day", 30),)),
                    "loose": Plan(caps=(CapRule("account", "day", 60),)),
                    "free": Plan(),
                }
            ),
        )
        await caller.add(1000)
        await caller.set_plan("tight")
        await caller.deduct(25)
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(6, "refused")
        assert (micro(refused.value.limit), micro(refused.value.used)) == (30, 25)
        await caller.set_plan("loose")
        await caller.deduct(35, "up to 60")
        with pytest.raises(CapReachedError):
            await caller.deduct(1, "refused")
        await caller.set_plan("free")
        await caller.deduct(100, "as much as one likes")
        assert (await caller.describe()).caps == ()

    async def test_new_limits_of_a_document(self, open_store: OpenStore) -> None:
        """A newer document changes the caps of its plans for the accounts that have them."""
        caller = Caller(await open_store(), Document({"pro": Plan(caps=(CapRule("account", "day", 30),))}))
        await caller.add(1000)
        await caller.set_plan("pro")
        await caller.deduct(25)
        caller.document = caller.document.next({"pro": Plan(caps=(CapRule("account", "day", 50),))})
        await caller.deduct(25, "another")
        with pytest.raises(CapReachedError):
            await caller.deduct(1, "refused")

    async def test_plan_survives_its_periods(self, open_store: OpenStore) -> None:
        """An account stays on its plan, and at the time since when it has it, from period to period."""
        caller = await on_plan(open_store, "big")
        assigned = (await caller.describe()).plan_assigned_at
        await caller.reserve("a lease", 10, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=90 * DAY_MS + HOUR_MS))
        described = await later.describe()
        assert (described.plan, described.plan_assigned_at) == ("big", assigned)
