"""The plan's allowance: spent before the balance, held by leases, and new with every period."""

import pytest

from ducto_redis.errors import InsufficientCreditsError
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import DAY_MS, HOUR_MS, MINUTE_MS, entry_of, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

PERIOD_MS = 30 * DAY_MS


async def on_a_plan(open_store: OpenStore, *, allowance: int = 100, balance: int = 50, rollover: int = 0) -> Caller:
    """Return a caller whose account has a plan, and credits besides."""
    caller = Caller(await open_store(), Document({"pro": Plan(allowance, rollover, PERIOD_MS)}))
    await caller.add(balance)
    await caller.set_plan("pro")
    return caller


@pytest.mark.asyncio
class AllowanceConformance(ConformanceTests):
    """Allowance in every operation, and from period to period."""

    async def test_deduct_spends_the_allowance_first(self, open_store: OpenStore) -> None:
        """The allowance pays before the balance, and the balance pays what it leaves."""
        caller = await on_a_plan(open_store)
        first, second = await caller.deduct(70, "one"), await caller.deduct(70, "two")
        assert [micro(charged.allowance_consumed) for charged in (first, second)] == [70, 30]
        assert [micro(charged.balance_after) for charged in (first, second)] == [50, 10]
        assert (await caller.numbers(), await caller.allowance()) == ((10, 0, 10), (100, 0, 0))
        entry = await entry_of(caller.store, second)
        assert (entry.amount, entry.balance_change, entry.read_details().allowance) == (70, -40, 30)

    async def test_allowance_counts_for_admission(self, open_store: OpenStore) -> None:
        """Allowance and balance together can be spent, and not one micro-credit more; a refusal names both."""
        caller = await on_a_plan(open_store)
        with pytest.raises(InsufficientCreditsError) as refused:
            await caller.deduct(151)
        assert (micro(refused.value.available), micro(refused.value.allowance)) == (50, 100)
        await caller.deduct(150)
        assert (await caller.numbers(), await caller.left()) == ((0, 0, 0), 0)

    async def test_allowance_can_be_left_alone(self, open_store: OpenStore) -> None:
        """A charge can leave the allowance alone: then only the balance admits and pays it."""
        caller = await on_a_plan(open_store)
        with pytest.raises(InsufficientCreditsError):
            await caller.deduct(51, skip_allowance=True)
        assert micro((await caller.deduct(50, skip_allowance=True)).allowance_consumed) == 0
        assert (await caller.numbers(), await caller.left()) == ((0, 0, 0), 100)

    async def test_balance_says_what_is_left_of_it(self, open_store: OpenStore) -> None:
        """The balance has the allowance beside the credits, not in them."""
        caller = await on_a_plan(open_store)
        await caller.deduct(30)
        balance = await caller.ask(lambda c: caller.store.get_balance(caller.account, conditions=c))
        assert (micro(balance.balance), micro(balance.available), micro(balance.allowance)) == (50, 50, 70)

    async def test_lease_rests_on_the_allowance(self, open_store: OpenStore) -> None:
        """A lease holds allowance first; only its rest holds the balance."""
        caller = await on_a_plan(open_store)
        lease = await caller.reserve("a lease", 120)
        assert (micro(lease.allowance_consumed), micro(lease.available)) == (100, 30)
        assert (await caller.numbers(), await caller.allowance()) == ((50, 20, 30), (0, 100, 0))
        with pytest.raises(InsufficientCreditsError):
            await caller.reserve("another", 31)

    @pytest.mark.parametrize(
        ("cost", "of_allowance", "balance"), [(0, 0, 50), (60, 60, 50), (100, 100, 50), (110, 100, 40), (150, 100, 0)]
    )
    async def test_settle_charges_the_allowance_first(
        self, open_store: OpenStore, cost: int, of_allowance: int, balance: int
    ) -> None:
        """A settled lease spends allowance before the balance: what it held of it, and what is left."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 120)
        settled = await caller.settle("a lease", cost)
        assert (micro(settled.amount), micro(settled.shortfall)) == (cost, 0)
        assert micro(settled.allowance_consumed) == of_allowance
        assert (await caller.numbers(), await caller.allowance()) == (
            (balance, 0, balance),
            (of_allowance, 0, 100 - of_allowance),
        )

    async def test_settle_takes_allowance_that_nobody_holds(self, open_store: OpenStore) -> None:
        """Beyond its hold a lease is charged from the allowance that is left, never from what another lease holds."""
        caller = await on_a_plan(open_store, balance=0)
        await caller.reserve("a lease", 30)
        await caller.reserve("another", 50)
        settled = await caller.settle("a lease", 60)
        assert (micro(settled.amount), micro(settled.shortfall)) == (50, 10)
        assert await caller.allowance() == (50, 50, 0)

    async def test_settle_can_leave_the_allowance_alone(self, open_store: OpenStore) -> None:
        """A settle that leaves the allowance alone returns what was held of it, and charges the balance."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 40)
        settled = await caller.settle("a lease", 40, skip_allowance=True)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (40, 0)
        assert (await caller.numbers(), await caller.left()) == ((10, 0, 10), 100)

    async def test_release_returns_the_allowance(self, open_store: OpenStore) -> None:
        """A released lease holds neither allowance nor balance."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 120)
        await caller.release("a lease")
        assert (await caller.numbers(), await caller.allowance()) == ((50, 0, 50), (0, 0, 100))

    @pytest.mark.parametrize("on_expiry", ["release", "charge"])
    async def test_expired_lease_and_its_allowance(self, open_store: OpenStore, on_expiry: str) -> None:
        """An expired lease returns its allowance, or is charged it, as it says, whether or not that was applied."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 120, terms(on_expiry=on_expiry))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        expected = ((50, 0, 50), (0, 0, 100)) if on_expiry == "release" else ((30, 0, 30), (100, 0, 0))
        assert (await later.numbers(), await later.allowance()) == expected
        await later.store.sweep_partition(later.store.namespace.partition_of(later.account))
        assert (await later.numbers(), await later.allowance()) == expected

    @pytest.mark.parametrize(("cost", "balance", "used"), [(0, 50, 0), (60, 50, 60), (110, 40, 100)])
    @pytest.mark.parametrize("on_expiry", ["release", "charge"])
    async def test_late_settle_and_the_allowance(
        self, open_store: OpenStore, on_expiry: str, cost: int, balance: int, used: int
    ) -> None:
        """A late settle charges allowance first, from what is there: whatever its expiry charged comes back before."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 120, terms(on_expiry=on_expiry))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        settled = await later.settle("a lease", cost)
        assert (micro(settled.amount), settled.late, micro(settled.shortfall)) == (cost, True, 0)
        assert (await later.numbers(), await later.allowance()) == ((balance, 0, balance), (used, 0, 100 - used))

    async def test_late_settle_has_no_allowance_of_its_own(self, open_store: OpenStore) -> None:
        """Others may spend an expired lease's share of the allowance; its late settle takes the rest."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 100)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        await later.deduct(80, "others")
        settled = await later.settle("a lease", 50)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (50, 20)
        assert (await later.numbers(), await later.allowance()) == ((20, 0, 20), (100, 0, 0))

    async def test_extend_takes_allowance(self, open_store: OpenStore) -> None:
        """A lease that holds more holds allowance first, too."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 60)
        await caller.extend("a lease", 60)
        assert (await caller.numbers(), await caller.allowance()) == ((50, 20, 30), (0, 100, 0))
        await caller.settle("a lease", 120)
        assert (await caller.numbers(), await caller.allowance()) == ((30, 0, 30), (100, 0, 0))

    async def test_a_new_period_is_a_new_allowance(self, open_store: OpenStore) -> None:
        """After its period all of the allowance is there again; the rest of the old one is gone."""
        caller = await on_a_plan(open_store)
        await caller.deduct(30)
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        assert await later.left() == 100
        charged = await later.deduct(120, "another")
        assert (micro(charged.allowance_consumed), micro(charged.balance_after)) == (100, 30)

    @pytest.mark.parametrize(("rollover", "spent", "left"), [(20, 30, 120), (20, 95, 105), (500, 30, 170), (0, 0, 100)])
    async def test_rollover(self, open_store: OpenStore, rollover: int, spent: int, left: int) -> None:
        """The rest of a period is added to the next, up to a limit."""
        caller = await on_a_plan(open_store, rollover=rollover)
        if spent:
            await caller.deduct(spent)
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        assert await later.left() == left
        await later.deduct(left, "all of it", skip_allowance=False)
        assert (await later.numbers(), await later.left()) == ((50, 0, 50), 0)

    async def test_periods_that_nobody_touched_roll_over(self, open_store: OpenStore) -> None:
        """The allowance of whole periods in which nothing happened rolls over as if they had been looked at."""
        caller = await on_a_plan(open_store, rollover=250)
        await caller.deduct(70)
        later = caller.at(await open_store(clock_offset_ms=2 * PERIOD_MS + HOUR_MS))
        assert await later.left() == 100 + 30 + 100
        much_later = caller.at(await open_store(clock_offset_ms=9 * PERIOD_MS + HOUR_MS))
        assert await much_later.left() == 100 + 250

    async def test_lease_over_the_end_of_a_period(self, open_store: OpenStore) -> None:
        """A lease spends what it took of its own period's allowance, and leaves the new one alone."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 120, terms(ttl_ms=2 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        assert await later.allowance() == (0, 0, 100)
        await later.deduct(10, "in the new period")
        settled = await later.settle("a lease", 110)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (110, 100)
        assert (await later.numbers(), await later.allowance()) == ((40, 0, 40), (10, 0, 90))

    async def test_older_lease_takes_nothing_of_the_new_period(self, open_store: OpenStore) -> None:
        """The balance pays the cost of an older period's lease beyond its share of the allowance."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 50, terms(ttl_ms=2 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        await later.deduct(10, "in the new period")
        settled = await later.settle("a lease", 80)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (80, 50)
        assert (await later.numbers(), await later.allowance()) == ((20, 0, 20), (10, 0, 90))

    async def test_older_lease_is_extended_from_the_balance(self, open_store: OpenStore) -> None:
        """A lease rests on one period's allowance: what began in an older one holds more of the balance alone."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=2 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        await later.extend("a lease", 30)
        assert (await later.numbers(), await later.allowance()) == ((50, 30, 20), (0, 0, 100))
        with pytest.raises(InsufficientCreditsError):
            await later.extend("a lease", 21, "too much")

    async def test_unused_hold_of_an_older_period_is_gone(self, open_store: OpenStore) -> None:
        """The unused share of a lease in a period that is over comes back nowhere."""
        caller = await on_a_plan(open_store)
        await caller.reserve("settled", 50, terms(ttl_ms=2 * PERIOD_MS))
        await caller.reserve("released", 50, terms(ttl_ms=2 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + HOUR_MS))
        await later.deduct(10, "in the new period")
        await later.settle("settled", 20)
        await later.release("released")
        assert (await later.numbers(), await later.allowance()) == ((50, 0, 50), (10, 0, 90))

    async def test_settle_before_the_new_period_is_known(self, open_store: OpenStore) -> None:
        """Settle never asks: after its period's end a lease spends its own part of the allowance, then the balance."""
        caller = await on_a_plan(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=2 * PERIOD_MS))
        later = caller.at(await open_store(clock_offset_ms=PERIOD_MS + MINUTE_MS))
        settled = await later.settle("a lease", 80)
        assert (micro(settled.allowance_consumed), micro(settled.balance_after)) == (60, 30)
        assert later.asked == []
        assert await later.allowance() == (0, 0, 100)
