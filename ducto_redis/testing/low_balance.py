"""Low-balance levels: each fires once on the way down, whoever charges, and is armed again by credits that come in."""

import pytest

from ducto_redis.engine.operation import Charge
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import entry_of, key, micro
from ducto_redis.testing.opening import ConformanceTests, OpenStore

LEVELS = (50, 20, 10)


async def funded(open_store: OpenStore, amount: int = 100) -> Caller:
    """Return a caller whose account has credits."""
    caller = Caller(await open_store())
    await caller.add(amount)
    return caller


async def fired(caller: Caller, amount: int, name: str, levels: tuple[int, ...] = LEVELS) -> list[int]:
    """Return the levels that a charge takes the balance to, or below."""
    charged = await caller.deduct(amount, name, low_levels=levels)
    crossed = [micro(level) for level in charged.low_levels]
    assert list((await entry_of(caller.store, charged)).read_details().low) == crossed
    return sorted(crossed, reverse=True)


@pytest.mark.asyncio
class LowBalanceConformance(ConformanceTests):
    """Low-balance levels."""

    async def test_once_on_the_way_down(self, open_store: OpenStore) -> None:
        """A level fires when a charge takes the balance to it or below, and not again while it is there."""
        caller = await funded(open_store)
        assert await fired(caller, 49, "to 51") == []
        assert await fired(caller, 1, "to 50") == [50]
        assert await fired(caller, 10, "to 40") == []
        assert await fired(caller, 25, "to 15") == [20]
        assert [micro(level) for level in (await caller.describe()).low_levels] in ([20, 50], [50, 20])

    async def test_several_levels_at_once(self, open_store: OpenStore) -> None:
        """A charge that passes several levels fires them all."""
        caller = await funded(open_store)
        assert await fired(caller, 95, "to 5") == [50, 20, 10]

    async def test_replay_fires_as_it_did(self, open_store: OpenStore) -> None:
        """A charge that is made again gives the levels of its first answer, and fires nothing anew."""
        caller = await funded(open_store)
        assert await fired(caller, 60, "to 40") == [50]
        assert await fired(caller, 60, "to 40") == [50]
        assert await fired(caller, 1, "to 39") == []

    async def test_armed_by_what_comes_in(self, open_store: OpenStore) -> None:
        """Credits that lift the balance above a level arm it; one that is not reached stays as it is."""
        caller = await funded(open_store)
        await fired(caller, 95, "to 5")
        await caller.add(10, "to 15")
        assert await fired(caller, 6, "to 9") == [10]
        await caller.add(91, "to 100")
        assert await fired(caller, 95, "to 5 again") == [50, 20, 10]

    async def test_armed_only_above_the_level(self, open_store: OpenStore) -> None:
        """A balance that comes back to exactly a level has not left it."""
        caller = await funded(open_store)
        await fired(caller, 60, "to 40")
        await caller.add(10, "to 50")
        assert await fired(caller, 5, "to 45") == []

    async def test_refunds_and_corrections_arm(self, open_store: OpenStore) -> None:
        """Credits that come back arm a level, and so does a correction upwards."""
        caller = await funded(open_store)
        charged = await caller.deduct(60, "to 40", low_levels=LEVELS)
        entry = await entry_of(caller.store, charged)
        charge = Charge(entry.transaction_id, entry.charged, entry.details, entry.time_ms)
        await caller.store.refund(caller.account, charge, 20, key("refund"), expired_to_balance=True, cause=b"")
        assert await fired(caller, 20, "to 40 again") == [50]
        await caller.ask(
            lambda c: caller.store.adjust_credits(
                caller.account, 20, key("corrected"), force=False, conditions=c, cause=b""
            )
        )
        assert await fired(caller, 20, "to 40 once more") == [50]

    async def test_settle_fires(self, open_store: OpenStore) -> None:
        """A lease fires when it is settled, not when it holds."""
        caller = await funded(open_store)
        await caller.reserve("a lease", 90, low_levels=LEVELS)
        settled = await caller.settle("a lease", 55, low_levels=LEVELS)
        assert [micro(level) for level in settled.low_levels] == [50]

    async def test_holds_do_not_count(self, open_store: OpenStore) -> None:
        """Levels are about the balance, not about what is available."""
        caller = await funded(open_store)
        await caller.reserve("a lease", 90)
        assert await fired(caller, 5, "to 95") == []

    async def test_allowance_does_not_count(self, open_store: OpenStore) -> None:
        """A charge that the allowance pays takes the balance nowhere."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.set_plan("pro")
        await caller.add(30)
        assert await fired(caller, 100, "from the allowance") == []
        assert await fired(caller, 5, "from the balance") == [50]

    async def test_callers_have_levels_of_their_own(self, open_store: OpenStore) -> None:
        """A level that another caller does not know fires for the one who does."""
        caller = await funded(open_store)
        assert await fired(caller, 30, "to 70", (80,)) == [80]
        assert await fired(caller, 5, "to 65", (75,)) == [75]
        assert await fired(caller, 5, "to 60", (80, 75)) == []
