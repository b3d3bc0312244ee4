"""Open leases of an operation type: their number is counted exactly."""

import pytest

from ducto_redis.errors import ConcurrencyLimitError, InsufficientCreditsError
from ducto_redis.testing.caller import Caller
from ducto_redis.testing.calls import HOUR_MS, MINUTE_MS, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore


async def funded(open_store: OpenStore) -> Caller:
    """Return a caller whose account has credits."""
    caller = Caller(await open_store())
    await caller.add(1000)
    return caller


@pytest.mark.asyncio
class ConcurrencyConformance(ConformanceTests):
    """The limit on open leases."""

    async def test_places_are_exact_at_the_limit(self, open_store: OpenStore) -> None:
        """As many leases as the limit are opened, and no more; the refusal says how many there are."""
        caller = await funded(open_store)
        for number in range(3):
            await caller.reserve(f"{number}", 1, max_concurrent=3)
        with pytest.raises(ConcurrencyLimitError) as refused:
            await caller.reserve("refused", 1, max_concurrent=3)
        assert (refused.value.operation_type, refused.value.limit, refused.value.running) == ("chat", 3, 3)

    async def test_no_place_at_all(self, open_store: OpenStore) -> None:
        """A limit of 0 opens nothing."""
        caller = await funded(open_store)
        with pytest.raises(ConcurrencyLimitError):
            await caller.reserve("refused", 1, max_concurrent=0)

    @pytest.mark.parametrize("end", ["settle", "release"])
    async def test_closing_frees_a_place(self, open_store: OpenStore, end: str) -> None:
        """A lease that is closed frees its place at once."""
        caller = await funded(open_store)
        await caller.reserve("one", 1, max_concurrent=1)
        await (caller.settle("one", 1) if end == "settle" else caller.release("one"))
        await caller.reserve("two", 1, max_concurrent=1)

    async def test_expiry_frees_a_place(self, open_store: OpenStore) -> None:
        """A lease that has expired frees its place, without a sweep."""
        caller = await funded(open_store)
        await caller.reserve("one", 1, max_concurrent=1)
        later = caller.at(await open_store(clock_offset_ms=MINUTE_MS))
        await later.reserve("two", 1, max_concurrent=1)

    async def test_renewed_lease_keeps_its_place(self, open_store: OpenStore) -> None:
        """A lease that was renewed keeps its place for as long as it lives."""
        caller = await funded(open_store)
        await caller.reserve("one", 1, terms(ttl_ms=HOUR_MS), max_concurrent=1)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS // 2))
        with pytest.raises(ConcurrencyLimitError):
            await later.reserve("two", 1, max_concurrent=1)

    async def test_operation_types_count_apart(self, open_store: OpenStore) -> None:
        """Leases of another operation type take no place."""
        caller = await funded(open_store)
        await caller.reserve("a chat", 1, max_concurrent=1)
        await caller.reserve("a batch", 1, terms(operation_type="batch"), max_concurrent=1)
        with pytest.raises(ConcurrencyLimitError) as refused:
            await caller.reserve("another batch", 1, terms(operation_type="batch"), max_concurrent=1)
        assert refused.value.operation_type == "batch"

    async def test_the_same_lease_again(self, open_store: OpenStore) -> None:
        """A repeated reserve is the lease that is open, also where there is no other place."""
        caller = await funded(open_store)
        await caller.reserve("one", 1, max_concurrent=1)
        assert (await caller.reserve("one", 1, max_concurrent=1)).replayed

    async def test_charges_take_no_place(self, open_store: OpenStore) -> None:
        """A charge in one step is not counted, nor refused for leases that are open."""
        caller = await funded(open_store)
        await caller.reserve("one", 1, max_concurrent=1)
        await caller.deduct(1, max_concurrent=1)

    async def test_it_comes_before_funds(self, open_store: OpenStore) -> None:
        """A refusal of both the limit and the balance names the limit."""
        caller = await funded(open_store)
        await caller.reserve("one", 1000, max_concurrent=1)
        with pytest.raises(ConcurrencyLimitError):
            await caller.reserve("two", 1, max_concurrent=1)
        with pytest.raises(InsufficientCreditsError):
            await caller.reserve("two", 1, max_concurrent=2)
