"""Grants: credits that are told apart, for they expire or have a priority, and the order in which they are spent."""

from decimal import Decimal

import pytest

from ducto_redis.errors import ConfigError, InvalidAmountError
from ducto_redis.testing.caller import Caller
from ducto_redis.testing.calls import ACCOUNT, DAY_MS, HOUR_MS, NEVER, entry_of, key, micro
from ducto_redis.testing.opening import ConformanceTests, OpenStore, unwatched

GRANTS_AN_ACCOUNT = 256


async def now_ms(caller: Caller) -> int:
    """Return the store's time."""
    return round((await caller.describe()).now.timestamp() * 1000)


async def remaining(caller: Caller) -> dict[str, int]:
    """Return the rest of each grant, by its type, without the pool."""
    return {grant.type: micro(grant.remaining) for grant in (await caller.describe()).grants if grant.number}


@pytest.mark.asyncio
class GrantConformance(ConformanceTests):
    """Adding and spending."""

    async def test_a_grant_of_its_own(self, open_store: OpenStore) -> None:
        """Credits that expire are in the balance, and described with all that they are."""
        caller = Caller(await open_store())
        expires_ms = await now_ms(caller) + DAY_MS
        added = await caller.add(100, type="bonus", expires_ms=expires_ms, priority=20)
        assert added.expires_at is not None
        assert round(added.expires_at.timestamp() * 1000) == expires_ms
        described = await caller.describe()
        (grant,) = [grant for grant in described.grants if grant.number]
        assert (grant.type, micro(grant.amount), micro(grant.remaining)) == ("bonus", 100, 100)
        assert (grant.priority, grant.expires_at) == (20, added.expires_at)
        assert grant.number == (await entry_of(caller.store, added)).seq
        assert grant.added_at is not None
        assert abs((described.now - grant.added_at).total_seconds()) < 60
        assert await caller.numbers() == (100, 0, 100)

    async def test_plain_credits_are_no_grant(self, open_store: OpenStore) -> None:
        """Credits without expiry at the default priority are the pool, whatever their type."""
        caller = Caller(await open_store())
        assert (await caller.add(100, type="bonus")).expires_at is None
        assert await remaining(caller) == {}

    async def test_credits_that_have_expired(self, open_store: OpenStore) -> None:
        """Credits whose expiry is over already are refused."""
        caller = Caller(await open_store())
        with pytest.raises(ConfigError):
            await caller.add(100, expires_ms=await now_ms(caller) - 1)
        assert await caller.numbers() == (0, 0, 0)

    async def test_spending_order(self, open_store: OpenStore) -> None:
        """The lower priority number first, then the soonest expiry, then the oldest; the pool stands at 50, never."""
        caller = Caller(await open_store())
        now = await now_ms(caller)
        await caller.add(10, "pool")
        await caller.add(10, "1", type="late", priority=90)
        await caller.add(10, "2", type="next week", expires_ms=now + 7 * DAY_MS)
        await caller.add(10, "3", type="tomorrow", expires_ms=now + DAY_MS)
        await caller.add(10, "4", type="tomorrow too", expires_ms=now + DAY_MS)
        await caller.add(10, "5", type="first of all", priority=1)
        await caller.add(10, "6", type="early", priority=30, expires_ms=now + 30 * DAY_MS)
        order = ["first of all", "early", "tomorrow", "tomorrow too", "next week", "pool", "late"]
        left = {name: 10 for name in order if name != "pool"}
        for number, name in enumerate(order):
            charged = await caller.deduct(10, f"charge {number}")
            left.pop(name, None)
            assert await remaining(caller) == left, name
            (*parts,) = (await entry_of(caller.store, charged)).read_details().grants
            assert [(part.type, part.amount) for part in parts] == ([] if name == "pool" else [(name, 10)])
        assert await caller.numbers() == (0, 0, 0)

    async def test_one_charge_from_several(self, open_store: OpenStore) -> None:
        """A charge that no single grant can pay takes the next ones too, and its entry says what each paid."""
        caller = Caller(await open_store())
        await caller.add(50, "pool")
        await caller.add(10, "1", type="one", priority=1)
        await caller.add(10, "2", type="two", priority=2)
        charged = await caller.deduct(25)
        entry = await entry_of(caller.store, charged)
        assert [(part.type, part.amount, part.priority) for part in entry.read_details().grants] == [
            ("one", 10, 1),
            ("two", 10, 2),
        ]
        assert (entry.balance_change, await remaining(caller)) == (-25, {})
        assert await caller.numbers() == (45, 0, 45)

    async def test_leases_spend_in_the_same_order(self, open_store: OpenStore) -> None:
        """A hold leaves the grants alone; what the lease is settled for is spent in order."""
        caller = Caller(await open_store())
        await caller.add(50, "pool")
        await caller.add(30, "1", type="one", priority=1)
        await caller.reserve("a lease", 60)
        assert await remaining(caller) == {"one": 30}
        settled = await caller.settle("a lease", 20)
        assert await remaining(caller) == {"one": 10}
        (part,) = (await entry_of(caller.store, settled)).read_details().grants
        assert (part.type, part.amount) == ("one", 20)

    async def test_debt_is_the_pool_s(self, open_store: OpenStore) -> None:
        """A balance below zero is a debt of the pool, and new credits pay it before they are a grant."""
        caller = Caller(await open_store())
        await caller.add(10, "1", type="one", priority=1)
        await caller.deduct(30, floor=-100)
        assert (await caller.numbers(), await remaining(caller)) == ((-20, 0, -20), {})
        await caller.add(50, "2", type="two", expires_ms=await now_ms(caller) + DAY_MS)
        assert (await caller.numbers(), await remaining(caller)) == ((30, 0, 30), {"two": 30})
        (grant,) = [grant for grant in (await caller.describe()).grants if grant.number]
        assert micro(grant.amount) == 50

    async def test_credits_that_a_debt_swallows(self, open_store: OpenStore) -> None:
        """A grant that a debt takes whole leaves nothing that could expire."""
        caller = Caller(await open_store())
        await caller.deduct(100, floor=NEVER)
        await caller.add(50, expires_ms=await now_ms(caller) + HOUR_MS)
        assert await remaining(caller) == {}
        later = caller.at(await open_store(clock_offset_ms=DAY_MS))
        assert await later.numbers() == (-50, 0, -50)

    async def test_adding_is_safe_to_repeat(self, open_store: OpenStore) -> None:
        """The same key grants once."""
        caller = Caller(await open_store())
        await caller.add(10, "once", type="one", priority=1)
        assert (await caller.add(10, "once", type="one", priority=1)).replayed
        assert (await caller.numbers(), await remaining(caller)) == ((10, 0, 10), {"one": 10})

    async def test_grants_are_limited(self, open_store: OpenStore) -> None:
        """An account has at most 256 grants at a time; plain credits come in all the same."""
        caller = Caller(await open_store())
        many = caller.at(unwatched(caller.store))
        for number in range(GRANTS_AN_ACCOUNT):
            await many.add(1, f"{number}", priority=number % 40)
        with pytest.raises(InvalidAmountError):
            await caller.add(1, "one more", priority=1)
        await caller.add(1, "plain")
        await caller.deduct(1)
        await caller.add(1, "one more", priority=1)
        assert await caller.numbers() == (GRANTS_AN_ACCOUNT + 1, 0, GRANTS_AN_ACCOUNT + 1)

    async def test_pool_among_the_grants(self, open_store: OpenStore) -> None:
        """A description's grants are without the pool, which has the number 0 in a list."""
        caller = Caller(await open_store())
        await caller.add(50, "pool")
        await caller.add(30, "1", type="one", priority=1)
        described = await caller.describe()
        assert sum((grant.remaining for grant in described.grants if grant.number), Decimal(0)) == Decimal("0.000030")
        assert [micro(grant.remaining) for grant in described.grants if not grant.number] in ([], [50])

    async def test_a_grant_s_metadata_is_journalled(self, open_store: OpenStore) -> None:
        """Credits that come in keep their cause in the journal."""
        caller = Caller(await open_store())
        added = await caller.add(10, priority=1, cause=b'{"type":"bonus"}')
        entry = await entry_of(caller.store, added)
        assert (entry.operation, entry.balance_change, entry.cause) == ("add_credits", 10, '{"type":"bonus"}')
        assert key("a grant").text == entry.operation_key
        assert entry.account == ACCOUNT
