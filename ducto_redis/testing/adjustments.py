"""Corrections by hand: signed, with who and why in their cause."""

import pytest

from ducto_redis.errors import IdempotencyConflictError, InsufficientCreditsError, InvalidAmountError
from ducto_redis.money import MAX_MICRO
from ducto_redis.results import AdjustResult
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import entry_of, key, micro
from ducto_redis.testing.opening import ConformanceTests, OpenStore


async def adjust(caller: Caller, amount: int, name: str = "corrected", *, force: bool = False) -> AdjustResult:
    """Correct the balance."""
    operation_key = key(name, str(amount))
    return await caller.ask(
        lambda c: caller.store.adjust_credits(
            caller.account, amount, operation_key, force=force, conditions=c, cause=b'{"metadata":{"actor":"ann"}}'
        )
    )


@pytest.mark.asyncio
class AdjustmentConformance(ConformanceTests):
    """Up, down, and below what is available."""

    @pytest.mark.parametrize(("amount", "balance"), [(25, 125), (-25, 75), (-100, 0)])
    async def test_up_and_down(self, open_store: OpenStore, amount: int, balance: int) -> None:
        """The balance moves by the signed amount, journalled with its cause."""
        caller = Caller(await open_store())
        await caller.add(100)
        adjusted = await adjust(caller, amount)
        assert (micro(adjusted.amount), micro(adjusted.balance_after)) == (amount, balance)
        entry = await entry_of(caller.store, adjusted)
        assert (entry.operation, entry.amount, entry.balance_change) == ("adjust_credits", amount, amount)
        assert entry.cause == '{"metadata":{"actor":"ann"}}'

    async def test_below_what_is_available(self, open_store: OpenStore) -> None:
        """Credits that leases hold, and credits that are not there, are only taken by force."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve("a lease", 60)
        with pytest.raises(InsufficientCreditsError) as refused:
            await adjust(caller, -41)
        assert micro(refused.value.available) == 40
        await adjust(caller, -40)
        await adjust(caller, -70, "by force", force=True)
        assert await caller.numbers() == (-10, 60, -70)

    async def test_allowance_is_no_help(self, open_store: OpenStore) -> None:
        """A correction takes from the balance alone."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.set_plan("pro")
        await caller.add(10)
        with pytest.raises(InsufficientCreditsError):
            await adjust(caller, -11)
        await adjust(caller, -10)
        assert (await caller.numbers(), await caller.left()) == ((0, 0, 0), 100)

    async def test_corrections_follow_the_spending_order(self, open_store: OpenStore) -> None:
        """Credits are taken in spending order; credits that are given go to the pool, and pay its debt."""
        caller = Caller(await open_store())
        await caller.add(10, "pool")
        await caller.add(20, "first", type="first", priority=1)
        await adjust(caller, -15)
        (grant,) = [grant for grant in (await caller.describe()).grants if grant.number]
        assert micro(grant.remaining) == 5
        await adjust(caller, -40, "by force", force=True)
        await adjust(caller, 30, "given")
        described = await caller.describe()
        assert [grant for grant in described.grants if grant.number] == []
        assert micro(described.balance.balance) == 5

    async def test_it_is_no_spending(self, open_store: OpenStore) -> None:
        """A correction counts in no cap, and is refused by none."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.set_cap("day", 10)
        await adjust(caller, -50)
        assert await caller.cap("day") == (0, 0)

    async def test_correcting_is_safe_to_repeat(self, open_store: OpenStore) -> None:
        """The same key corrects once; with another amount it is a conflict."""
        caller = Caller(await open_store())
        await caller.add(100)
        await adjust(caller, -5)
        assert (await adjust(caller, -5)).replayed
        with pytest.raises(IdempotencyConflictError):
            await adjust(caller, -6)
        assert await caller.numbers() == (95, 0, 95)

    async def test_corrections_respect_the_limit(self, open_store: OpenStore) -> None:
        """No correction takes the balance beyond 2**53 - 1 micro-credits, in either direction."""
        caller = Caller(await open_store())
        await adjust(caller, MAX_MICRO)
        with pytest.raises(InvalidAmountError):
            await adjust(caller, 1, "one more")
        await adjust(caller, -MAX_MICRO, "all of it")
        await adjust(caller, -MAX_MICRO, "all of it again", force=True)
        with pytest.raises(InvalidAmountError):
            await adjust(caller, -1, "one more down", force=True)
