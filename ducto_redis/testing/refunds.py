"""Refunds: a charge goes back to where it came from, whole or in parts, and never more of it than there was."""

import pytest

from ducto_redis.engine.operation import Charge
from ducto_redis.errors import IdempotencyConflictError, InvalidAmountError, RefundError
from ducto_redis.money import MAX_MICRO
from ducto_redis.results import DeductResult, RefundResult, SettleResult
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import DAY_MS, HOUR_MS, entry_of, key, micro
from ducto_redis.testing.opening import ConformanceTests, OpenStore


async def charge_of(caller: Caller, result: DeductResult | SettleResult) -> Charge:
    """Return a charge, as its entry describes it."""
    entry = await entry_of(caller.store, result)
    return Charge(entry.transaction_id, entry.charged, entry.details, entry.time_ms)


async def refund(
    caller: Caller, charge: Charge, amount: int | None = None, name: str = "a refund", *, to_balance: bool = True
) -> RefundResult:
    """Give a charge back."""
    operation_key = key(name, str(amount))
    return await caller.store.refund(
        caller.account, charge, amount, operation_key, expired_to_balance=to_balance, cause=b"{}"
    )


async def expiring(caller: Caller, amount: int, name: str, priority: int = 10) -> None:
    """Add credits that expire in an hour."""
    now_ms = round((await caller.describe()).now.timestamp() * 1000)
    await caller.add(amount, name, type=name, expires_ms=now_ms + HOUR_MS, priority=priority)


async def remaining(caller: Caller) -> dict[str, int]:
    """Return the rest of each grant, by its type."""
    return {grant.type: micro(grant.remaining) for grant in (await caller.describe()).grants if grant.number}


@pytest.mark.asyncio
class RefundConformance(ConformanceTests):
    """Refunds: their amounts, and the places that they go back to."""

    async def test_refund(self, open_store: OpenStore) -> None:
        """A charge comes back whole, and is journalled with the charge that it is of."""
        caller = Caller(await open_store())
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30))
        refunded = await refund(caller, charge)
        assert (micro(refunded.amount), micro(refunded.refunded), micro(refunded.lost)) == (30, 30, 0)
        assert (refunded.refund_of, micro(refunded.balance_after)) == (charge.transaction_id, 100)
        entry = await entry_of(caller.store, refunded)
        assert (entry.operation, entry.amount, entry.balance_change, entry.cause) == ("refund", 30, 30, "{}")
        assert entry.read_details().refund_of == charge.transaction_id
        assert await caller.numbers() == (100, 0, 100)

    async def test_refund_in_parts(self, open_store: OpenStore) -> None:
        """Parts add up to the charge, and no further; the last one may be all that is left."""
        caller = Caller(await open_store())
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30))
        assert micro((await refund(caller, charge, 10, "one")).refunded) == 10
        assert micro((await refund(caller, charge, 5, "two")).refunded) == 15
        with pytest.raises(RefundError):
            await refund(caller, charge, 16, "too much")
        assert micro((await refund(caller, charge, None, "the rest")).amount) == 15
        for amount in (1, None):
            with pytest.raises(RefundError):
                await refund(caller, charge, amount, "nothing is left")
        assert await caller.numbers() == (100, 0, 100)

    async def test_never_more_than_was_charged(self, open_store: OpenStore) -> None:
        """More than the charge is refused, at once and whole."""
        caller = Caller(await open_store())
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30))
        with pytest.raises(RefundError):
            await refund(caller, charge, 31)
        assert await caller.numbers() == (70, 0, 70)

    async def test_refunding_is_safe_to_repeat(self, open_store: OpenStore) -> None:
        """The same key refunds once; with another amount it is a conflict."""
        caller = Caller(await open_store())
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30))
        first = await refund(caller, charge, 10)
        again = await refund(caller, charge, 10)
        assert (again.replayed, again.transaction_id, again.refunded) == (True, first.transaction_id, first.refunded)
        with pytest.raises(IdempotencyConflictError):
            await refund(caller, charge, 11)
        assert await caller.numbers() == (80, 0, 80)

    async def test_charges_are_told_apart(self, open_store: OpenStore) -> None:
        """A refund of one charge leaves another alone."""
        caller = Caller(await open_store())
        await caller.add(100)
        charges = [await charge_of(caller, await caller.deduct(30, name)) for name in ("one", "two")]
        for number, charge in enumerate(charges):
            await refund(caller, charge, None, f"{number}")
        assert await caller.numbers() == (100, 0, 100)

    async def test_refund_of_a_settled_lease(self, open_store: OpenStore) -> None:
        """The charge of a settle can be refunded: not its shortfall, and not its hold."""
        caller = Caller(await open_store())
        await caller.add(50)
        await caller.reserve("a lease", 50)
        charge = await charge_of(caller, await caller.settle("a lease", 60))
        assert charge.amount == 50
        with pytest.raises(RefundError):
            await refund(caller, charge, 51)
        await refund(caller, charge)
        assert await caller.numbers() == (50, 0, 50)

    async def test_order_of_what_comes_back(self, open_store: OpenStore) -> None:
        """To the pool first, then to the grants, the last that paid first, then to the allowance."""
        caller = Caller(await open_store(), Document({"pro": Plan(10)}))
        await caller.add(10, "pool")
        await caller.set_plan("pro")
        await expiring(caller, 10, "first", 1)
        await expiring(caller, 10, "second", 2)
        charge = await charge_of(caller, await caller.deduct(40))
        seen = []
        for step in range(8):
            refunded = await refund(caller, charge, 5, f"{step}")
            assert micro(refunded.lost) == 0
            left = await remaining(caller)
            balance = (await caller.numbers())[0]
            seen.append(
                (balance - sum(left.values()), left.get("second", 0), left.get("first", 0), await caller.left())
            )
        assert seen == [
            (5, 0, 0, 0),
            (10, 0, 0, 0),
            (10, 5, 0, 0),
            (10, 10, 0, 0),
            (10, 10, 5, 0),
            (10, 10, 10, 0),
            (10, 10, 10, 5),
            (10, 10, 10, 10),
        ]

    async def test_grant_that_was_used_up(self, open_store: OpenStore) -> None:
        """A grant that was spent whole comes back with its expiry, its priority and its type."""
        caller = Caller(await open_store())
        await expiring(caller, 10, "bonus", 7)
        (before,) = [grant for grant in (await caller.describe()).grants if grant.number]
        charge = await charge_of(caller, await caller.deduct(10))
        await refund(caller, charge, 4)
        (after,) = [grant for grant in (await caller.describe()).grants if grant.number]
        assert (after.number, after.type, after.priority) == (before.number, "bonus", 7)
        assert (after.expires_at, micro(after.remaining)) == (before.expires_at, 4)
        later = caller.at(await open_store(clock_offset_ms=DAY_MS))
        assert await later.numbers() == (0, 0, 0)

    @pytest.mark.parametrize(("to_balance", "balance", "lost"), [(True, 30, 0), (False, 20, 10)])
    async def test_grant_that_has_expired(
        self, open_store: OpenStore, to_balance: bool, balance: int, lost: int
    ) -> None:
        """Credits of a grant that expired meanwhile go to the pool or nowhere, as asked."""
        caller = Caller(await open_store())
        await caller.add(20, "pool")
        await expiring(caller, 10, "bonus")
        charge = await charge_of(caller, await caller.deduct(30))
        later = caller.at(await open_store(clock_offset_ms=DAY_MS))
        refunded = await refund(later, charge, to_balance=to_balance)
        assert (micro(refunded.amount), micro(refunded.lost)) == (30, lost)
        assert (await later.numbers(), await remaining(later)) == ((balance, 0, balance), {})
        entry = await entry_of(later.store, refunded)
        assert (entry.amount, entry.balance_change, entry.read_details().lost) == (30, balance, lost)

    async def test_allowance_of_this_period(self, open_store: OpenStore) -> None:
        """The allowance's share goes back to the allowance."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.set_plan("pro")
        charge = await charge_of(caller, await caller.deduct(70))
        refunded = await refund(caller, charge, 50)
        assert (micro(refunded.allowance_restored), micro(refunded.lost)) == (50, 0)
        assert (await caller.numbers(), await caller.allowance()) == ((0, 0, 0), (20, 0, 80))

    async def test_allowance_of_a_period_that_is_over(self, open_store: OpenStore) -> None:
        """The share of an earlier period's allowance is lost with it, and is neither allowance nor credits now."""
        caller = Caller(await open_store(), Document({"pro": Plan(100)}))
        await caller.set_plan("pro")
        charge = await charge_of(caller, await caller.deduct(70))
        later = caller.at(await open_store(clock_offset_ms=31 * DAY_MS))
        await later.deduct(10, "in the new period")
        refunded = await refund(later, charge)
        assert (micro(refunded.allowance_restored), micro(refunded.lost)) == (0, 70)
        assert (await later.numbers(), await later.allowance()) == ((0, 0, 0), (10, 0, 90))

    async def test_caps_get_room_back(self, open_store: OpenStore) -> None:
        """A refund counts no more in the caps that counted the charge, each its share."""
        caller = Caller(await open_store())
        await caller.add(1000)
        for rule in ({}, {"scope": "model/a"}, {"scope": "model/b"}):
            await caller.set_cap("day", 500, **rule)
        charge = await charge_of(caller, await caller.deduct(100, models=(("a", 80), ("b", 20))))
        await refund(caller, charge, 50)
        assert [await caller.cap("day", scope) for scope in ("account", "model/a", "model/b")] == [
            (50, 0),
            (40, 0),
            (10, 0),
        ]
        await refund(caller, charge, None, "the rest")
        assert [await caller.cap("day", scope) for scope in ("account", "model/a", "model/b")] == [(0, 0)] * 3

    async def test_caps_of_another_window_stay(self, open_store: OpenStore) -> None:
        """A refund makes no room in a window that the charge was not in."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.set_cap("hour", 500)
        await caller.set_cap("total", 900)
        charge = await charge_of(caller, await caller.deduct(100))
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        await later.deduct(30, "in the next window")
        await refund(later, charge)
        assert (await later.cap("hour"), await later.cap("total")) == ((30, 0), (30, 0))

    async def test_rolling_caps_get_room_back_while_they_count_it(self, open_store: OpenStore) -> None:
        """A rolling cap gets room back for as long as it counts the charge."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.set_cap("hour", 500, rolling=True)
        charge = await charge_of(caller, await caller.deduct(100))
        half = caller.at(await open_store(clock_offset_ms=HOUR_MS // 2))
        await half.deduct(30, "half an hour later")
        await refund(half, charge, 60)
        assert await half.cap("hour") == (70, 0)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS + HOUR_MS // 4))
        await refund(later, charge, 40, "the rest")
        assert await later.cap("hour") == (30, 0)

    async def test_member_s_spending_shrinks(self, open_store: OpenStore) -> None:
        """A refund takes back what the member is said to have spent."""
        caller = Caller(await open_store(), account="acme")
        await caller.store.create_team("acme", "Acme", "ann", key("founded"), cause=b"")
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30, member="ann"))
        await refund(caller, charge, 10)
        team = (await caller.describe()).team
        assert team is not None
        assert [micro(member.spent) for member in team.members] == [20]

    async def test_refunds_respect_the_limit(self, open_store: OpenStore) -> None:
        """A refund that would take the balance over 2**53 - 1 micro-credits is refused, until there is room."""
        caller = Caller(await open_store())
        await caller.add(100)
        charge = await charge_of(caller, await caller.deduct(30))
        await caller.add(MAX_MICRO - 80, "to ten below the limit")
        with pytest.raises(InvalidAmountError):
            await refund(caller, charge, 11)
        await refund(caller, charge, 10)
        assert (await caller.numbers())[0] == MAX_MICRO
