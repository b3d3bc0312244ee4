"""Spend caps: what they count, what they refuse, what they let pass, and when they forget it."""

from decimal import Decimal

import pytest

from ducto_redis.errors import CapReachedError, InsufficientCreditsError
from ducto_redis.results import CapWarning
from ducto_redis.testing.caller import WINDOWS, Caller, Document, Plan
from ducto_redis.testing.calls import DAY_MS, HOUR_MS, MINUTE_MS, entry_of, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

YEAR_MS = 365 * DAY_MS


async def funded(open_store: OpenStore) -> Caller:
    """Return a caller whose account has plenty of credits."""
    caller = Caller(await open_store())
    await caller.add(10_000)
    return caller


@pytest.mark.asyncio
class CapConformance(ConformanceTests):
    """Caps with calendar windows and total ones, in every operation."""

    @pytest.mark.parametrize("window", [*WINDOWS, "total"])
    async def test_caps_are_exact_at_the_limit(self, open_store: OpenStore, window: str) -> None:
        """All of a cap can be spent, and not one micro-credit more; the refusal says all there is to know."""
        caller = await funded(open_store)
        cap = await caller.set_cap(window, 100)
        await caller.deduct(60, "one")
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(41, "refused")
        assert (refused.value.cap_id, refused.value.scope, refused.value.window) == (cap.cap_id, "account", window)
        amounts = (refused.value.limit, refused.value.used, refused.value.held, refused.value.needed)
        assert [micro(amount) for amount in amounts] == [100, 60, 0, 41]
        assert refused.value.window_end == cap.window_end
        assert (cap.window_end is None) == (window == "total")
        await caller.deduct(40, "two")
        assert await caller.cap(window) == (100, 0)

    @pytest.mark.parametrize("window", WINDOWS)
    async def test_a_new_window_begins_at_nothing(self, open_store: OpenStore, window: str) -> None:
        """At the end of its window a cap has counted nothing, and holds again."""
        caller = await funded(open_store)
        await caller.set_cap(window, 100)
        await caller.deduct(100)
        later = caller.at(await open_store(clock_offset_ms=WINDOWS[window]))
        assert await later.cap(window) == (0, 0)
        await later.deduct(100, "another")
        with pytest.raises(CapReachedError):
            await later.deduct(1, "refused")

    async def test_total_never_ends(self, open_store: OpenStore) -> None:
        """A cap on the total counts for ever."""
        caller = await funded(open_store)
        await caller.set_cap("total", 100)
        await caller.deduct(100)
        later = caller.at(await open_store(clock_offset_ms=3 * YEAR_MS))
        with pytest.raises(CapReachedError):
            await later.deduct(1, "refused")

    async def test_several_caps_at_once(self, open_store: OpenStore) -> None:
        """Every cap counts every charge, and the one that would be passed refuses."""
        caller = await funded(open_store)
        await caller.set_cap("hour", 50)
        await caller.set_cap("day", 80)
        await caller.deduct(50)
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(1, "refused")
        assert refused.value.window == "hour"
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        with pytest.raises(CapReachedError) as refused:
            await later.deduct(31, "refused")
        assert (refused.value.window, micro(refused.value.used)) == ("day", 50)
        await later.deduct(30, "another")
        assert (await later.cap("hour"), await later.cap("day")) == ((30, 0), (80, 0))

    async def test_caps_come_before_funds(self, open_store: OpenStore) -> None:
        """A refusal of both a cap and the balance names the cap."""
        caller = Caller(await open_store())
        await caller.add(10)
        await caller.set_cap("day", 5)
        with pytest.raises(CapReachedError):
            await caller.deduct(11, "refused")
        await caller.set_cap("day", 50)
        with pytest.raises(InsufficientCreditsError):
            await caller.deduct(11, "refused")

    async def test_nothing_is_spent_above_a_cap(self, open_store: OpenStore) -> None:
        """A cap that was passed refuses even a charge of nothing."""
        caller = await funded(open_store)
        await caller.deduct(10)
        await caller.set_cap("day", 10)
        await caller.deduct(10, "all of it")
        await caller.set_cap("day", 9, name="lower")
        with pytest.raises(CapReachedError):
            await caller.deduct(0, "free")

    async def test_allowance_counts_too(self, open_store: OpenStore) -> None:
        """A cap limits spending, whoever pays: the allowance or the balance."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.set_plan("pro")
        await caller.set_cap("day", 30)
        await caller.deduct(30)
        with pytest.raises(CapReachedError):
            await caller.deduct(1, "refused")

    async def test_what_is_reserved_counts(self, open_store: OpenStore) -> None:
        """A lease counts at its hold until it is closed, and then at what it cost."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.reserve("a lease", 60)
        assert await caller.cap("day") == (0, 60)
        with pytest.raises(CapReachedError) as refused:
            await caller.reserve("refused", 41)
        assert (micro(refused.value.used), micro(refused.value.held)) == (0, 60)
        with pytest.raises(CapReachedError):
            await caller.deduct(41, "refused")
        with pytest.raises(CapReachedError):
            await caller.extend("a lease", 41)
        await caller.extend("a lease", 40, "up to it")
        assert await caller.cap("day") == (0, 100)
        settled = await caller.settle("a lease", 70)
        assert micro(settled.amount) == 70
        assert await caller.cap("day") == (70, 0)

    async def test_settle_counts_what_the_work_cost(self, open_store: OpenStore) -> None:
        """A lease that cost more than it held is charged all the same, past a cap too."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.reserve("a lease", 60)
        settled = await caller.settle("a lease", 150)
        assert (micro(settled.amount), micro(settled.shortfall)) == (150, 0)
        assert await caller.cap("day") == (150, 0)
        with pytest.raises(CapReachedError):
            await caller.deduct(1, "refused")

    async def test_release_frees_a_cap(self, open_store: OpenStore) -> None:
        """A released lease counts no more."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.reserve("a lease", 100)
        await caller.release("a lease")
        assert await caller.cap("day") == (0, 0)

    @pytest.mark.parametrize(("on_expiry", "used"), [("release", 0), ("charge", 60)])
    async def test_expiry_frees_or_uses_a_cap(self, open_store: OpenStore, on_expiry: str, used: int) -> None:
        """An expired lease counts no more, or at what it was charged; its late settle puts that right."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.reserve("a lease", 60, terms(on_expiry=on_expiry))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.cap("day") == (used, 0)
        await later.settle("a lease", 25)
        assert await later.cap("day") == (25, 0)

    async def test_late_release_takes_back_what_expiry_used(self, open_store: OpenStore) -> None:
        """A charge at expiry counts no more when it comes back."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.reserve("a lease", 60, terms(on_expiry="charge"))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        await later.release("a lease")
        assert await later.cap("day") == (0, 0)

    async def test_held_over_the_end_of_a_window(self, open_store: OpenStore) -> None:
        """A hold counts in every window until it closes, and what it cost counts where it is settled."""
        caller = await funded(open_store)
        await caller.set_cap("hour", 100)
        await caller.deduct(40)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.cap("hour") == (0, 60)
        await later.settle("a lease", 50)
        assert await later.cap("hour") == (50, 0)

    async def test_settled_before_the_new_window_is_known(self, open_store: OpenStore) -> None:
        """Settle never asks: what it charges after a window's end counts in the window that runs then."""
        caller = await funded(open_store)
        await caller.set_cap("hour", 100)
        await caller.deduct(40)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS + MINUTE_MS))
        await later.settle("a lease", 30)
        assert await later.cap("hour") == (30, 0)
        await later.deduct(70, "up to it")
        with pytest.raises(CapReachedError):
            await later.deduct(1, "refused")

    async def test_settled_in_a_window_that_nobody_saw(self, open_store: OpenStore) -> None:
        """A charge in a window that ended unseen does not count in the one after."""
        caller = await funded(open_store)
        await caller.set_cap("hour", 100)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS + MINUTE_MS))
        await later.settle("a lease", 60)
        much_later = caller.at(await open_store(clock_offset_ms=5 * HOUR_MS))
        assert await much_later.cap("hour") == (0, 0)
        await much_later.deduct(100, "another")

    @pytest.mark.parametrize("action", ["warn", "notify"])
    async def test_soft_caps_let_pass(self, open_store: OpenStore, action: str) -> None:
        """A cap that warns lets pass what goes over it, and says so once in its window."""
        caller = await funded(open_store)
        cap = await caller.set_cap("hour", 100, action=action)
        within, over, more = [await caller.deduct(amount, f"{amount}") for amount in (100, 1, 5)]
        warning = CapWarning(cap_id=cap.cap_id, scope="account", action=action)
        assert [charged.warnings for charged in (within, over, more)] == [(), (warning,), ()]
        (crossing,) = (await entry_of(caller.store, over)).read_details().crossed
        assert (crossing.cap_id, crossing.action, crossing.scope) == (cap.cap_id, action, "account")
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert (await later.deduct(101, "in the next window")).warnings == (warning,)

    async def test_soft_caps_warn_of_holds_and_settles(self, open_store: OpenStore) -> None:
        """A hold that goes over a soft cap says so, a settle that does says so, and neither twice."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100, action="warn")
        assert (await caller.reserve("one", 90)).warnings == ()
        assert len((await caller.settle("one", 101)).warnings) == 1
        await caller.set_cap("week", 500, action="notify")
        assert [warning.action for warning in (await caller.reserve("two", 501)).warnings] == ["notify"]
        assert (await caller.settle("two", 600)).warnings == ()

    async def test_replay_warns_as_it_did(self, open_store: OpenStore) -> None:
        """A charge that is made again gives its first warnings again."""
        caller = await funded(open_store)
        await caller.set_cap("day", 10, action="warn")
        first = await caller.deduct(11)
        again = await caller.deduct(11)
        assert (again.replayed, again.warnings) == (True, first.warnings)

    async def test_models_have_caps(self, open_store: OpenStore) -> None:
        """A cap of a model counts that model's part of each charge, and nothing else."""
        caller = await funded(open_store)
        await caller.set_cap("day", 50, scope="model/gpt-4o")
        await caller.deduct(500, "another model", models=(("claude", 500),))
        await caller.deduct(500, "no model")
        await caller.deduct(90, "two models", models=(("gpt-4o", 40), ("claude", 50)))
        assert await caller.cap("day", "model/gpt-4o") == (40, 0)
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(11, "refused", models=(("gpt-4o", 11),))
        assert (refused.value.scope, micro(refused.value.needed)) == ("model/gpt-4o", 11)
        await caller.reserve("a lease", 100, models=(("gpt-4o", 10), ("claude", 90)))
        assert await caller.cap("day", "model/gpt-4o") == (40, 10)
        await caller.settle("a lease", 7, models=(("gpt-4o", 7),))
        assert await caller.cap("day", "model/gpt-4o") == (47, 0)

    async def test_models_count_what_was_charged(self, open_store: OpenStore) -> None:
        """A model's cap counts the charge of a settle that falls short, not the cost of the work."""
        caller = Caller(await open_store())
        await caller.add(50)
        await caller.set_cap("day", 500, scope="model/gpt-4o")
        await caller.reserve("a lease", 50, models=(("gpt-4o", 50),))
        settled = await caller.settle("a lease", 80, models=(("gpt-4o", 80),))
        assert (micro(settled.amount), micro(settled.shortfall)) == (50, 30)
        assert await caller.cap("day", "model/gpt-4o") == (50, 0)

    async def test_settle_for_credits_counts_for_the_lease_s_model(self, open_store: OpenStore) -> None:
        """A lease that was held for a model and is settled for an amount of credits counts for that model."""
        caller = await funded(open_store)
        await caller.set_cap("day", 500, scope="model/gpt-4o")
        await caller.reserve("a lease", 50, models=(("gpt-4o", 50),))
        await caller.settle("a lease", 80)
        assert await caller.cap("day", "model/gpt-4o") == (80, 0)

    async def test_entries_say_what_was_counted(self, open_store: OpenStore) -> None:
        """The journal says of each charge towards which caps it counted."""
        caller = await funded(open_store)
        cap = await caller.set_cap("day", 100)
        await caller.reserve("a lease", 30)
        for result in (await caller.deduct(20), await caller.settle("a lease", 25)):
            (part,) = (await entry_of(caller.store, result)).read_details().caps
            assert (part.cap_id, part.scope) == (cap.cap_id, "account")
            assert part.amount == micro(result.amount)

    async def test_credits_in_do_not_count(self, open_store: OpenStore) -> None:
        """Only charges count: what comes in does not make room, and corrections by hand use nothing."""
        caller = await funded(open_store)
        await caller.set_cap("day", 100)
        await caller.deduct(50)
        await caller.add(1000, "more")
        described = await caller.describe()
        assert [cap.remaining for cap in described.caps] == [Decimal("0.000050")]
