"""Credits that expire: lazily, by a sweep, and under leases that rest on them."""

import pytest

from ducto_redis.engine.operation import PLAIN, Conditions
from ducto_redis.errors import InsufficientCreditsError
from ducto_redis.testing.caller import Caller
from ducto_redis.testing.calls import DAY_MS, HOUR_MS, KNOWN, MINUTE_MS, add, entry_of, micro, terms
from ducto_redis.testing.inspection import read_journal
from ducto_redis.testing.opening import ConformanceTests, OpenStore

MANY = 150
"""More grants than two calls expire: a call applies 64 changes."""


async def expiring(open_store: OpenStore, amount: int = 100, *, pool: int = 0) -> Caller:
    """Return a caller whose account has credits that expire in an hour, and others that do not."""
    caller = Caller(await open_store())
    if pool:
        await caller.add(pool, "pool")
    await add_expiring(caller, amount, HOUR_MS)
    return caller


async def add_expiring(caller: Caller, amount: int, in_ms: int, name: str = "expiring", **grant: int) -> None:
    """Add credits that expire in so many milliseconds."""
    now = (await caller.describe()).now
    await caller.add(amount, name, type=name, expires_ms=round(now.timestamp() * 1000) + in_ms, **grant)


async def sweep(caller: Caller, *, dry_run: bool = False) -> tuple[int, int, int]:
    """Sweep the account's partition: grants and leases that expired, and the credits that went."""
    swept = await caller.store.sweep_partition(caller.store.namespace.partition_of(caller.account), dry_run=dry_run)
    return swept.grants_expired, swept.leases_expired, micro(swept.credits_expired)


@pytest.mark.asyncio
class GrantExpiryConformance(ConformanceTests):
    """Expiry of credits."""

    async def test_an_expired_grant_pays_nothing(self, open_store: OpenStore) -> None:
        """From the moment of its expiry a grant admits nothing, also where no sweep ran."""
        caller = await expiring(open_store, pool=20)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        with pytest.raises(InsufficientCreditsError) as refused:
            await later.deduct(21)
        assert micro(refused.value.available) == 20
        with pytest.raises(InsufficientCreditsError):
            await later.reserve("refused", 21)
        await later.deduct(20)
        assert await later.numbers() == (0, 0, 0)

    @pytest.mark.parametrize("conditions", [PLAIN, KNOWN])
    async def test_the_first_grant_of_an_account(self, open_store: OpenStore, conditions: Conditions) -> None:
        """Credits that expire are told apart from the first on, whatever the caller knows of the account."""
        store = await open_store()
        caller = Caller(store)
        await add(store, 20, "pool", caller.account)
        expires_ms = round((await caller.describe()).now.timestamp() * 1000) + HOUR_MS
        await add(store, 100, "expiring", caller.account, expires_ms=expires_ms, conditions=conditions)
        assert [micro(grant.remaining) for grant in (await caller.describe()).grants] == [100, 20]
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.numbers() == (20, 0, 20)

    async def test_until_then_it_pays(self, open_store: OpenStore) -> None:
        """Until its expiry a grant is there, whole."""
        caller = await expiring(open_store)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS - MINUTE_MS))
        await later.deduct(100)

    async def test_reads_count_what_has_expired(self, open_store: OpenStore) -> None:
        """Balance and description are without what has expired, and write nothing."""
        caller = await expiring(open_store, pool=20)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.numbers() == (20, 0, 20)
        assert [grant for grant in (await later.describe()).grants if grant.number] == []

    async def test_sweep_of_grants(self, open_store: OpenStore) -> None:
        """A sweep expires what nobody touched, says how much, and does so once."""
        caller = await expiring(open_store, pool=20)
        assert await sweep(caller) == (0, 0, 0)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await sweep(later) == (1, 0, 100)
        assert await sweep(later) == (0, 0, 0)
        assert await later.numbers() == (20, 0, 20)

    async def test_dry_sweep(self, open_store: OpenStore) -> None:
        """A dry run says what a sweep would do, as often as it is asked."""
        caller = await expiring(open_store, pool=20)
        await caller.reserve("a lease", 5)
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        for _ in range(2):
            assert await sweep(later, dry_run=True) == (1, 1, 100)
        assert await sweep(later) == (1, 1, 100)
        assert await sweep(later, dry_run=True) == (0, 0, 0)

    async def test_dry_sweep_page_by_page(self, open_store: OpenStore) -> None:
        """A dry run can pass over the accounts that were seen before: they stay due."""
        callers = [Caller(await open_store(partitions=1), account=name) for name in ("a", "b", "c")]
        for caller in callers:
            await add_expiring(caller, 10, HOUR_MS)
        store = await open_store(partitions=1, clock_offset_ms=HOUR_MS)
        pages = [await store.sweep_partition(0, limit=2, dry_run=True, skip=skip) for skip in (0, 2, 3)]
        assert [(page.accounts, page.grants_expired, micro(page.credits_expired)) for page in pages] == [
            (2, 2, 20),
            (1, 1, 10),
            (0, 0, 0),
        ]
        assert (await store.sweep_partition(0)).grants_expired == 3

    async def test_entry_of_an_expiry(self, open_store: OpenStore) -> None:
        """An expired grant has an entry of its own, which names it."""
        store = await open_store.journalled()
        caller = Caller(store)
        await add_expiring(caller, 100, HOUR_MS)
        await caller.deduct(30)
        later = await open_store.journalled(clock_offset_ms=HOUR_MS)
        await sweep(caller.at(later))
        entry = read_journal(later)[-1]
        assert (entry.operation, entry.operation_key) == ("expire_grant", "grant/1/expire")
        assert (entry.amount, entry.balance_change) == (70, -70)
        (part,) = entry.read_details().grants
        assert (part.number, part.amount, part.type) == (1, 70, "expiring")

    async def test_leases_that_rest_on_it(self, open_store: OpenStore) -> None:
        """Credits that leases rest on stay when their grant expires, and pay for these leases alone."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        assert await later.numbers() == (60, 60, 0)
        assert await sweep(later) == (1, 0, 40)
        with pytest.raises(InsufficientCreditsError):
            await later.deduct(1)
        await later.add(50, "new")
        await later.deduct(50, "the new ones")
        settled = await later.settle("a lease", 60)
        assert (micro(settled.amount), micro(settled.shortfall)) == (60, 0)
        assert await later.numbers() == (0, 0, 0)

    @pytest.mark.parametrize("end", ["settle", "release", "expiry"])
    async def test_what_closes_expires_the_rest(self, open_store: OpenStore, end: str) -> None:
        """A lease on an expired grant lets its unspent credits expire in the step that closes it."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=12 * HOUR_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        await sweep(later)
        if end == "settle":
            settled = await later.settle("a lease", 10)
            assert micro(settled.balance_after) in (0, 50)
        elif end == "release":
            await later.release("a lease")
        else:
            later = caller.at(await open_store(clock_offset_ms=DAY_MS))
            assert await sweep(later) == (0, 1, 60)
        assert await later.numbers() == (0, 0, 0)

    @pytest.mark.parametrize("on_expiry", ["release", "charge"])
    async def test_late_comes_to_the_same(self, open_store: OpenStore, on_expiry: str) -> None:
        """A late visit leaves the state of prompt ones: leases and grants expire in their order."""
        ends = []
        for visits in ([90 * MINUTE_MS, 3 * HOUR_MS], [3 * HOUR_MS]):
            caller = Caller(await open_store(), account=f"visited {len(visits)} times")
            await caller.add(100, "pool")
            await add_expiring(caller, 100, 2 * HOUR_MS)
            await caller.reserve("a lease", 60, terms(ttl_ms=HOUR_MS, on_expiry=on_expiry))
            for offset_ms in visits:
                later = caller.at(await open_store(clock_offset_ms=offset_ms))
                await sweep(later)
            ends.append(await later.numbers())
        assert ends == [(100, 0, 100)] * 2

    async def test_what_leases_rest_on_expires_once(self, open_store: OpenStore) -> None:
        """A grant that leases rest on is not sent through its expiry again, whatever else has been due for long."""
        caller = Caller(await open_store())
        await caller.add(50, "pool")
        await add_expiring(caller, 100, 2 * DAY_MS)
        await caller.reserve("forgotten for days", 1, terms(ttl_ms=MINUTE_MS))
        await caller.reserve("a lease", 120, terms(ttl_ms=10 * DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=5 * DAY_MS))
        assert await sweep(later) == (1, 1, 30)
        assert await later.numbers() == (120, 120, 0)
        await later.add(500, "new")
        assert await sweep(later) == (0, 0, 0)
        assert await later.numbers() == (620, 120, 500)

    async def test_settle_spends_what_has_expired_first(self, open_store: OpenStore) -> None:
        """A lease's work is paid from the expired grants that it rests on, then in the usual order."""
        caller = await expiring(open_store, pool=100)
        await caller.reserve("a lease", 150, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        await sweep(later)
        assert await later.numbers() == (150, 150, 0)
        await later.settle("a lease", 60)
        assert await later.numbers() == (90, 0, 90)

    async def test_other_leases_keep_what_they_rest_on(self, open_store: OpenStore) -> None:
        """A lease that closes lets only those credits expire that no other lease rests on."""
        caller = await expiring(open_store)
        for lease_id in ("one", "two"):
            await caller.reserve(lease_id, 50, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        await later.release("one")
        assert await later.numbers() == (50, 50, 0)
        settled = await later.settle("two", 50)
        assert micro(settled.shortfall) == 0
        assert await later.numbers() == (0, 0, 0)

    async def test_new_credits_do_not_expire_with_old_ones(self, open_store: OpenStore) -> None:
        """Credits that come in while leases rest on an expired grant are not taken for it."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        await sweep(later)
        await later.add(500, "new")
        assert await later.numbers() == (560, 60, 500)
        await sweep(later)
        await later.release("a lease")
        assert await later.numbers() == (500, 0, 500)

    async def test_new_charges_leave_it_to_the_leases(self, open_store: OpenStore) -> None:
        """A charge takes nothing of an expired grant that leases rest on, though it would come first."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        await later.add(50, "new")
        await later.deduct(20)
        assert await later.numbers() == (90, 60, 30)
        await later.release("a lease")
        assert await later.numbers() == (30, 0, 30)

    async def test_soonest_expiry_first(self, open_store: OpenStore) -> None:
        """Of several grants that expired under a lease the one that expired first is spent first."""
        caller = await expiring(open_store)
        await add_expiring(caller, 100, 2 * HOUR_MS, "later")
        await caller.reserve("a lease", 200, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=3 * HOUR_MS))
        settled = await later.settle("a lease", 120)
        entry = await entry_of(later.store, settled)
        assert [(part.type, part.amount) for part in entry.read_details().grants] == [("expiring", 100), ("later", 20)]
        assert await later.numbers() == (0, 0, 0)

    async def test_renewing_keeps_no_grant_alive(self, open_store: OpenStore) -> None:
        """An expired grant admits no extension of the lease that rests on it."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 60, terms(ttl_ms=DAY_MS))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        with pytest.raises(InsufficientCreditsError):
            await later.extend("a lease", 1)

    async def test_overdraft_does_not_feed_on_grants(self, open_store: OpenStore) -> None:
        """An expired grant under leases that hold more than there is stays until one of them closes."""
        caller = await expiring(open_store)
        await caller.reserve("a lease", 130, terms(ttl_ms=DAY_MS, floor=-30))
        later = caller.at(await open_store(clock_offset_ms=2 * HOUR_MS))
        assert await later.numbers() == (100, 130, -30)
        settled = await later.settle("a lease", 130)
        assert (micro(settled.amount), micro(settled.shortfall)) == (130, 0)
        assert await later.numbers() == (-30, 0, -30)

    async def test_many_grants_at_once(self, open_store: OpenStore) -> None:
        """However many grants have expired, none of them pays; one sweep expires them all."""
        caller = Caller(await open_store())
        await caller.add(5, "pool")
        many = caller.at(caller.store.inner)  # type: ignore[attr-defined]
        for number in range(MANY):
            await add_expiring(many, 1, HOUR_MS, f"{number}")
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.numbers() == (5, 0, 5)
        with pytest.raises(InsufficientCreditsError):
            await later.deduct(6)
        await sweep(later)
        assert await later.numbers() == (5, 0, 5)
        await later.deduct(5)
