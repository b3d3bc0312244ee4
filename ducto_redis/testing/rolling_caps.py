"""Spend caps whose window ends now: 60 buckets and the one that has just begun, strict at the edge."""

import pytest

from ducto_redis.errors import CapReachedError
from ducto_redis.testing.caller import WINDOWS, Caller
from ducto_redis.testing.calls import HOUR_MS, MINUTE_MS, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore


async def capped(open_store: OpenStore, window: str = "hour", **rule: str) -> Caller:
    """Return a caller whose account has credits and a rolling cap of 100."""
    caller = Caller(await open_store())
    await caller.add(10_000)
    await caller.set_cap(window, 100, rolling=True, **rule)
    return caller


@pytest.mark.asyncio
class RollingCapConformance(ConformanceTests):
    """Rolling windows."""

    @pytest.mark.parametrize("window", WINDOWS)
    async def test_it_rolls(self, open_store: OpenStore, window: str) -> None:
        """Spending counts for the length of the window, and at most one bucket longer."""
        caller = await capped(open_store, window)
        await caller.deduct(100)
        bucket_ms = WINDOWS[window] // 60
        within = caller.at(await open_store(clock_offset_ms=WINDOWS[window] - bucket_ms))
        with pytest.raises(CapReachedError) as refused:
            await within.deduct(1, "refused")
        assert (micro(refused.value.used), refused.value.window_end) == (100, None)
        after = caller.at(await open_store(clock_offset_ms=WINDOWS[window] + 2 * bucket_ms))
        assert await after.cap(window) == (0, 0)
        await after.deduct(100, "another")

    async def test_it_forgets_bit_by_bit(self, open_store: OpenStore) -> None:
        """Each charge leaves the window at its own time."""
        caller = await capped(open_store)
        await caller.deduct(60)
        half = caller.at(await open_store(clock_offset_ms=HOUR_MS // 2))
        await half.deduct(40, "another")
        full = caller.at(await open_store(clock_offset_ms=HOUR_MS + 2 * MINUTE_MS))
        assert await full.cap("hour") == (40, 0)
        await full.deduct(60, "room again")
        with pytest.raises(CapReachedError):
            await full.deduct(1, "refused")

    async def test_nothing_is_asked(self, open_store: OpenStore) -> None:
        """A rolling window needs no bounds: nobody is asked, however much later it is."""
        caller = await capped(open_store)
        later = caller.at(await open_store(clock_offset_ms=100 * HOUR_MS))
        await later.deduct(1)
        assert later.asked == []

    async def test_holds_count_until_they_close(self, open_store: OpenStore) -> None:
        """A hold counts however old it is; what it cost counts from when it is settled."""
        caller = await capped(open_store)
        await caller.reserve("a lease", 70, terms(ttl_ms=100 * HOUR_MS))
        later = caller.at(await open_store(clock_offset_ms=10 * HOUR_MS))
        assert await later.cap("hour") == (0, 70)
        await later.settle("a lease", 50)
        assert await later.cap("hour") == (50, 0)
        after = caller.at(await open_store(clock_offset_ms=11 * HOUR_MS + 2 * MINUTE_MS))
        assert await after.cap("hour") == (0, 0)

    async def test_it_warns_again(self, open_store: OpenStore) -> None:
        """A rolling cap that warned warns again once it was below its limit in between."""
        caller = await capped(open_store, action="warn")
        over, more = await caller.deduct(101), await caller.deduct(1, "more")
        assert (len(over.warnings), more.warnings) == (1, ())
        after = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        below, again = await after.deduct(50, "below"), await after.deduct(51, "over again")
        assert (below.warnings, len(again.warnings)) == ((), 1)
