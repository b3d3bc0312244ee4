"""An account's own spend caps: set, changed, raised for a time, cleared and removed."""

from datetime import timedelta

import pytest

from ducto_redis.engine.operation import CapRule
from ducto_redis.errors import (
    CapNotFoundError,
    CapReachedError,
    ConfigError,
    IdempotencyConflictError,
    InvalidAmountError,
    MemberNotFoundError,
)
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, DAY_MS, HOUR_MS, entry_of, key, micro
from ducto_redis.testing.opening import ConformanceTests, OpenStore

CAPS_A_SCOPE = 16


async def capped(open_store: OpenStore, limit: int = 100) -> tuple[Caller, str]:
    """Return a caller whose account has credits and a cap of a day, and the cap's id."""
    caller = Caller(await open_store())
    await caller.add(10_000)
    cap = await caller.set_cap("day", limit)
    return caller, cap.cap_id


async def now_ms(caller: Caller) -> int:
    """Return the store's time."""
    return round((await caller.describe()).now.timestamp() * 1000)


@pytest.mark.asyncio
class OwnCapConformance(ConformanceTests):
    """Operations on the caps of an account."""

    async def test_set_cap(self, open_store: OpenStore) -> None:
        """A cap is described with all that it is, and journalled."""
        caller = Caller(await open_store())
        rule = CapRule("account", "day", 100, action="warn", time_zone="Asia/Tokyo")
        changed = await caller.ask(
            lambda c: caller.store.set_cap(ACCOUNT, rule, key("a cap"), conditions=c, cause=b"{}")
        )
        assert not changed.replayed
        entry = await entry_of(caller.store, changed)
        assert (entry.operation, entry.operation_key, entry.cause) == ("set_cap", "key/a cap", "{}")
        (cap,) = (await caller.describe()).caps
        assert (cap.account, cap.scope, cap.source, cap.window) == (ACCOUNT, "account", "own", "day")
        assert (cap.rolling, cap.action, cap.time_zone) == (False, "warn", "Asia/Tokyo")
        assert [micro(amount) for amount in (cap.limit, cap.used, cap.held, cap.remaining)] == [100, 0, 0, 100]
        assert cap.window_start is not None
        assert cap.window_end is not None
        assert cap.window_end - cap.window_start == timedelta(days=1)
        assert cap.raised_until is None

    async def test_new_limit_keeps_what_was_counted(self, open_store: OpenStore) -> None:
        """A cap of the same scope, window, time zone and action is the same cap: it gets the new limit."""
        caller, cap_id = await capped(open_store)
        await caller.deduct(60)
        await caller.reserve("a lease", 20)
        cap = await caller.set_cap("day", 70)
        assert cap.cap_id == cap_id
        assert [micro(amount) for amount in (cap.limit, cap.used, cap.held, cap.remaining)] == [70, 60, 20, 0]

    @pytest.mark.parametrize(
        "other", [{"action": "warn"}, {"time_zone": "Asia/Tokyo"}, {"rolling": True}, {"scope": "model/gpt-4o"}]
    )
    async def test_another_kind_is_another_cap(self, open_store: OpenStore, other: dict[str, str]) -> None:
        """Caps of another scope, kind of window, time zone or action stand side by side, and count for themselves."""
        caller, cap_id = await capped(open_store)
        await caller.deduct(60)
        another = await caller.set_cap("day", 50, **other)
        assert another.cap_id != cap_id or another.scope != "account"
        assert micro(another.used) == 0
        assert len((await caller.describe()).caps) == 2

    async def test_a_new_cap_counts_from_now(self, open_store: OpenStore) -> None:
        """Charges and holds from before a cap was set do not count towards it."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.deduct(500)
        await caller.reserve("a lease", 200)
        await caller.set_cap("day", 100)
        assert await caller.cap("day") == (0, 0)
        await caller.settle("a lease", 100)
        assert await caller.cap("day") == (100, 0)

    async def test_raise_for_a_time(self, open_store: OpenStore) -> None:
        """A raised limit holds until its time, then the cap's own one does."""
        caller, cap_id = await capped(open_store)
        await caller.deduct(100)
        until_ms = await now_ms(caller) + HOUR_MS
        await caller.store.raise_cap(ACCOUNT, "account", cap_id, 150, until_ms, key("raised"), cause=b"")
        (cap,) = (await caller.describe()).caps
        assert (micro(cap.limit), micro(cap.remaining)) == (150, 50)
        assert cap.raised_until is not None
        assert round(cap.raised_until.timestamp() * 1000) == until_ms
        await caller.deduct(20, "within the raised one")
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(31, "refused")
        assert micro(refused.value.limit) == 150
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        (cap,) = (await later.describe()).caps
        assert (micro(cap.limit), micro(cap.used), cap.raised_until) == (100, 120, None)
        with pytest.raises(CapReachedError):
            await later.deduct(1, "refused")

    async def test_raise_to_a_time_that_is_over(self, open_store: OpenStore) -> None:
        """A raise that has ended already is refused."""
        caller, cap_id = await capped(open_store)
        with pytest.raises(ConfigError):
            await caller.store.raise_cap(
                ACCOUNT, "account", cap_id, 150, await now_ms(caller) - 1, key("raised"), cause=b""
            )

    async def test_clear(self, open_store: OpenStore) -> None:
        """Clearing forgets what was used of the window; what leases hold stays."""
        caller, cap_id = await capped(open_store)
        await caller.deduct(60)
        await caller.reserve("a lease", 40)
        changed = await caller.store.clear_cap(ACCOUNT, "account", cap_id, key("cleared"), cause=b"")
        assert (await entry_of(caller.store, changed)).operation == "clear_cap"
        assert await caller.cap("day") == (0, 40)
        await caller.deduct(60, "another")
        with pytest.raises(CapReachedError):
            await caller.deduct(1, "refused")

    async def test_clear_arms_its_warning(self, open_store: OpenStore) -> None:
        """A cap that was cleared warns again."""
        caller = Caller(await open_store())
        await caller.add(1000)
        cap = await caller.set_cap("day", 10, action="warn")
        assert (await caller.deduct(11)).warnings
        await caller.store.clear_cap(ACCOUNT, "account", cap.cap_id, key("cleared"), cause=b"")
        assert (await caller.deduct(11, "another")).warnings

    async def test_remove(self, open_store: OpenStore) -> None:
        """A removed cap limits nothing, also not what leases hold that were counted in it."""
        caller, cap_id = await capped(open_store)
        await caller.reserve("a lease", 100)
        changed = await caller.store.remove_cap(ACCOUNT, "account", cap_id, key("removed"), cause=b"")
        assert (await entry_of(caller.store, changed)).operation == "remove_cap"
        await caller.deduct(500)
        await caller.settle("a lease", 100)
        assert (await caller.describe()).caps == ()

    async def test_lease_lowers_only_caps_that_it_is_recorded_in(self, open_store: OpenStore) -> None:
        """A lease that was opened before a cap was set lowers nothing of what others hold in it."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.reserve("before", 50)
        await caller.set_cap("day", 100)
        await caller.reserve("after", 30)
        await caller.release("before")
        assert await caller.cap("day") == (0, 30)

    @pytest.mark.parametrize("operation", ["raise_cap", "clear_cap", "remove_cap"])
    async def test_no_such_cap(self, open_store: OpenStore, operation: str) -> None:
        """A cap that the account does not have in that scope is named, with those that it has."""
        caller, cap_id = await capped(open_store)
        later = await now_ms(caller) + HOUR_MS
        values = (100, later) if operation == "raise_cap" else ()
        for scope, there_are in (("account", (cap_id,)), ("model/gpt-4o", ())):
            with pytest.raises(CapNotFoundError) as refused:
                await getattr(caller.store, operation)(ACCOUNT, scope, "another", *values, key("a change"), cause=b"")
            assert (refused.value.cap, refused.value.caps) == ("another", there_are)

    async def test_changes_are_safe_to_repeat(self, open_store: OpenStore) -> None:
        """The same key changes once; with another request it is a conflict."""
        caller, cap_id = await capped(open_store)
        await caller.deduct(60)
        await caller.store.clear_cap(ACCOUNT, "account", cap_id, key("cleared"), cause=b"")
        await caller.deduct(30, "another")
        again = await caller.store.clear_cap(ACCOUNT, "account", cap_id, key("cleared"), cause=b"")
        assert again.replayed
        assert await caller.cap("day") == (30, 0)
        with pytest.raises(IdempotencyConflictError):
            await caller.store.remove_cap(ACCOUNT, "account", cap_id, key("cleared", "another"), cause=b"")

    async def test_caps_of_a_plan_are_not_removed(self, open_store: OpenStore) -> None:
        """A cap that comes from the plan goes with the plan; it can be raised for a time."""
        document = Document({"pro": Plan(caps=(CapRule("account", "day", 10),))})
        caller = Caller(await open_store(), document)
        await caller.add(1000)
        await caller.set_plan("pro")
        await caller.deduct(10)
        (cap,) = (await caller.describe()).caps
        assert cap.source == "plan"
        with pytest.raises(ConfigError):
            await caller.store.remove_cap(ACCOUNT, "account", cap.cap_id, key("removed"), cause=b"")
        until_ms = await now_ms(caller) + HOUR_MS
        await caller.store.raise_cap(ACCOUNT, "account", cap.cap_id, 20, until_ms, key("raised"), cause=b"")
        await caller.deduct(10, "within the raised one")

    async def test_cap_of_a_member_needs_the_member(self, open_store: OpenStore) -> None:
        """A cap is only set for somebody who is a member."""
        caller, _ = await capped(open_store)
        with pytest.raises(MemberNotFoundError):
            await caller.set_cap("day", 10, scope="member/ann")

    async def test_caps_of_a_scope_are_limited(self, open_store: OpenStore) -> None:
        """A scope has at most 16 caps."""
        caller = Caller(await open_store())
        zones = [f"Etc/GMT+{hours}" for hours in range(CAPS_A_SCOPE + 1)]
        for zone in zones[:CAPS_A_SCOPE]:
            await caller.set_cap("day", 100, time_zone=zone)
        with pytest.raises(InvalidAmountError):
            await caller.set_cap("day", 100, time_zone=zones[-1])

    async def test_windows_of_two_time_zones(self, open_store: OpenStore) -> None:
        """Each cap follows the bounds that were given for its own time zone."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.set_cap("day", 100, time_zone="UTC")
        await caller.set_cap("day", 50, time_zone="Asia/Tokyo")
        later = caller.at(await open_store(clock_offset_ms=DAY_MS + HOUR_MS))
        await later.deduct(1)
        assert set(later.asked[0].windows) == {"day@UTC", "day@Asia/Tokyo"}
