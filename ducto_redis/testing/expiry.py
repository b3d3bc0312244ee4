"""Changes by the passing of time. The clock is moved, never waited for."""

import pytest

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import (
    InsufficientCreditsError,
    InvalidAmountError,
    LeaseClosedError,
    LeaseNotFoundError,
)
from ducto_redis.money import MAX_MICRO
from ducto_redis.store.contract import CreditStore, JournalledStore
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    KNOWN,
    MINUTE_MS,
    NEVER,
    add,
    deduct,
    entry_of,
    extend,
    key,
    micro,
    numbers_of,
    release,
    renew,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.inspection import read_journal
from ducto_redis.testing.opening import ConformanceTests, OpenStore, unwatched

LEASE = "a lease"
MANY = 150
"""More leases than two calls apply: a call applies 64."""


def operations(store: JournalledStore) -> list[str]:
    """Return the operations in the journal."""
    return [entry.operation for entry in read_journal(store)]


def last(store: JournalledStore, operation: str) -> JournalEntry:
    """Return the last entry of that operation."""
    return [entry for entry in read_journal(store) if entry.operation == operation][-1]


async def open_many(store: CreditStore, *, on_expiry: str = "release", amount: int = 1, count: int = MANY) -> None:
    """Open leases that expire in a minute, without looking at the state after each of them."""
    for number in range(count):
        await reserve(unwatched(store), f"lease {number}", amount, terms(on_expiry=on_expiry))


@pytest.mark.asyncio
class ExpiryConformance(ConformanceTests):
    """Expiry, late closing, forgetting and sweeping."""

    async def test_expiry_comes_before_a_change_of_the_account(self, open_store: OpenStore) -> None:
        """A change of what the account is comes after all that has fallen due, however much that is."""
        store = await open_store.journalled()
        await add(store, MANY)
        await open_many(store)
        later = await open_store.journalled(clock_offset_ms=MINUTE_MS)
        await later.create_team(ACCOUNT, "a team", "", key("team"), cause=b"")
        made = operations(later)
        assert made.count("expire") == MANY
        assert made[-1] == "create_team"

    @pytest.mark.parametrize("touch", ["add", "deduct", "reserve", "settle", "release", "sweep"])
    async def test_expiry_is_applied_on_touch(self, open_store: OpenStore, touch: str) -> None:
        """The first operation on the account journals expired leases, as entries before its own."""
        store = await open_store.journalled()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        await reserve(store, "another", 5, terms(ttl_ms=DAY_MS))
        later = await open_store.journalled(clock_offset_ms=MINUTE_MS)
        match touch:
            case "add":
                await add(later, 1, "touch")
            case "deduct":
                await deduct(later, 95)
            case "reserve":
                await reserve(later, "touch", 95, terms(ttl_ms=HOUR_MS))
            case "settle":
                await settle(later, "another", 1)
            case "release":
                await release(later, "another")
            case "sweep":
                await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        made = operations(later)
        assert made[3] == "expire"
        assert made[4:] == {"sweep": [], "add": ["add_credits"]}.get(touch, [touch])
        entry = last(later, "expire")
        assert (entry.operation_key, entry.amount, entry.balance_change) == (f"lease/{LEASE}/expire", 30, 0)

    async def test_a_lease_expires_at_its_very_time(self, open_store: OpenStore) -> None:
        """Until its expiry a lease holds; nothing else makes it hold longer."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        before = await open_store(clock_offset_ms=MINUTE_MS // 2)
        assert await numbers_of(before) == (100, 30, 70)
        after = await open_store(clock_offset_ms=MINUTE_MS)
        assert await numbers_of(after) == (100, 0, 100)

    async def test_reads_count_what_is_due(self, open_store: OpenStore) -> None:
        """The balance counts what has expired, released or charged as each lease says, and writes nothing."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, "released", 30)
        await reserve(store, "charged", 20, terms(on_expiry="charge"))
        await reserve(store, "open", 10, terms(ttl_ms=DAY_MS))
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert await numbers_of(later) == (80, 10, 70)
        assert [lease.lease_id for lease in (await later.list_leases(ACCOUNT)).leases] == ["open"]
        await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        assert await numbers_of(later) == (80, 10, 70)

    async def test_late_settle(self, open_store: OpenStore) -> None:
        """An expired lease is charged what the work cost, from what is available, and the answer says late."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        later = await open_store(clock_offset_ms=HOUR_MS)
        settled = await settle(later, LEASE, 45)
        assert (micro(settled.amount), micro(settled.shortfall), settled.late) == (45, 0, True)
        assert await numbers_of(later) == (55, 0, 55)
        again = await settle(later, LEASE, 45)
        assert (again.late, again.replayed) == (True, True)

    async def test_late_settle_has_no_hold(self, open_store: OpenStore) -> None:
        """Others may spend an expired lease's hold; its late settle takes the rest and names the shortfall."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        later = await open_store(clock_offset_ms=HOUR_MS)
        await reserve(later, "another", 90, terms(ttl_ms=DAY_MS))
        settled = await settle(later, LEASE, 30)
        assert (micro(settled.amount), micro(settled.shortfall), settled.late) == (10, 20, True)
        assert await numbers_of(later) == (90, 90, 0)

    async def test_expiry_with_charge(self, open_store: OpenStore) -> None:
        """A lease that is charged on expiry costs its hold."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(on_expiry="charge"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        assert await numbers_of(later) == (70, 0, 70)

    @pytest.mark.parametrize(("cost", "balance"), [(0, 100), (12, 88), (30, 70), (55, 45)])
    async def test_late_settle_after_a_charge(self, open_store: OpenStore, cost: int, balance: int) -> None:
        """A charge at expiry is part of the late settle's: more is taken, less comes back."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(on_expiry="charge"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        settled = await settle(later, LEASE, cost)
        assert (micro(settled.amount), micro(settled.shortfall), settled.late) == (cost, 0, True)
        assert await numbers_of(later) == (balance, 0, balance)
        assert (await entry_of(later, settled)).balance_change == balance - 70

    async def test_late_settle_after_a_charge_falls_short(self, open_store: OpenStore) -> None:
        """The charge at expiry pays first; beyond it only available credits do."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(on_expiry="charge"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        await reserve(later, "another", 60, terms(ttl_ms=DAY_MS))
        settled = await settle(later, LEASE, 45)
        assert (micro(settled.amount), micro(settled.shortfall)) == (40, 5)
        assert await numbers_of(later) == (60, 60, 0)

    async def test_late_release(self, open_store: OpenStore) -> None:
        """A late release gives back what expiry charged, and holds nothing any more to be let go."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, "released", 20)
        await reserve(store, "charged", 30, terms(on_expiry="charge"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        for lease_id, comes_back in (("released", 0), ("charged", 30)):
            released = await release(later, lease_id)
            assert micro(released.amount) == 0
            assert (await entry_of(later, released)).balance_change == comes_back
        assert await numbers_of(later) == (100, 0, 100)

    async def test_what_comes_back_respects_the_limit(self, open_store: OpenStore) -> None:
        """A charge does not come back where the balance would pass 2**53 - 1; the lease can be closed once it fits."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(on_expiry="charge"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        await add(later, MAX_MICRO - 80, "to 10 below the limit")
        with pytest.raises(InvalidAmountError):
            await release(later, LEASE)
        with pytest.raises(InvalidAmountError):
            await settle(later, LEASE, 19)
        await settle(later, LEASE, 20)
        assert await numbers_of(later) == (MAX_MICRO, 0, MAX_MICRO)

    async def test_more_is_due_than_a_call_applies(self, open_store: OpenStore) -> None:
        """However much has expired, what it held can be spent at once; a call journals 64 of them at most."""
        store = await open_store.journalled()
        await add(store, MANY)
        await open_many(store)
        later = await open_store.journalled(clock_offset_ms=HOUR_MS)
        await add(later, 1, "one call")
        assert operations(later).count("expire") == 64
        await deduct(later, MANY + 1)
        assert operations(later).count("expire") == MANY
        assert await numbers_of(later) == (0, 0, 0)

    async def test_only_what_is_needed_is_applied(self, open_store: OpenStore) -> None:
        """A call that is admitted after the first 64 asks for no more."""
        store = await open_store.journalled()
        await add(store, MANY)
        await open_many(store)
        later = await open_store.journalled(clock_offset_ms=HOUR_MS)
        await reserve(later, "fits", 64)
        assert operations(later).count("expire") == 64
        assert micro((await later.get_balance(ACCOUNT, conditions=KNOWN)).available) == MANY - 64

    @pytest.mark.parametrize("operation", ["reserve", "extend"])
    async def test_nothing_is_refused_before_all_is_applied(self, open_store: OpenStore, operation: str) -> None:
        """A refusal for want of credits is the last word only when nothing more is due."""
        store = await open_store()
        await add(store, MANY + 10)
        await reserve(store, LEASE, 10, terms(ttl_ms=DAY_MS))
        await open_many(store)
        later = await open_store(clock_offset_ms=HOUR_MS)
        if operation == "reserve":
            await reserve(later, "all", MANY)
        else:
            await extend(later, LEASE, MANY)
        assert micro((await later.get_balance(ACCOUNT, conditions=KNOWN)).available) == 0

    async def test_refusal_after_all_is_applied(self, open_store: OpenStore) -> None:
        """A charge without credits is refused, however many calls it takes to know."""
        store = await open_store()
        await add(store, MANY)
        await open_many(store)
        later = await open_store(clock_offset_ms=HOUR_MS)
        with pytest.raises(InsufficientCreditsError) as refused:
            await deduct(later, MANY + 1)
        assert (micro(refused.value.held), micro(refused.value.available)) == (0, MANY)

    async def test_no_shortfall_before_all_is_applied(self, open_store: OpenStore) -> None:
        """A settle leaves no shortfall while leases that have expired seem to hold what could pay."""
        store = await open_store()
        await add(store, MANY)
        await open_many(store)
        later = await open_store(clock_offset_ms=HOUR_MS)
        settled = await settle(later, "lease 149", MANY)
        assert (micro(settled.amount), micro(settled.shortfall), settled.late) == (MANY, 0, True)

    @pytest.mark.parametrize("operation", ["add", "reserve", "extend"])
    async def test_no_limit_is_reached_before_all_is_applied(self, open_store: OpenStore, operation: str) -> None:
        """An amount passes the limit only when nothing more is due that makes room for it."""
        store = await open_store()
        half = MAX_MICRO // 2
        await add(store, MAX_MICRO)
        amount, count = half // 100, 100
        await reserve(store, LEASE, 1, terms(ttl_ms=DAY_MS, floor=NEVER))
        await open_many(store, amount=amount, count=count, on_expiry="charge")
        later = await open_store(clock_offset_ms=HOUR_MS)
        match operation:
            case "add":
                await add(later, amount * count, "what fits")
            case "reserve":
                await reserve(later, "what fits", MAX_MICRO - 1, terms(floor=NEVER))
            case _:
                await extend(later, LEASE, MAX_MICRO - 1)

    async def test_the_lease_asked_for_comes_first(self, open_store: OpenStore) -> None:
        """A lease that has expired is known as expired, however many others expired with it."""
        store = await open_store()
        await add(store, MANY)
        await open_many(store)
        later = await open_store(clock_offset_ms=HOUR_MS)
        with pytest.raises(LeaseClosedError) as closed:
            await reserve(later, "lease 149", 1)
        assert closed.value.how == "expired"

    async def test_expired_leases_are_forgotten_after_a_day(self, open_store: OpenStore) -> None:
        """A day after its expiry the record goes, journalled; until then it can be settled."""
        store = await open_store.journalled()
        await add(store, 100)
        for lease_id in ("one", "two"):
            await reserve(store, lease_id, 30)
        within = await open_store.journalled(clock_offset_ms=DAY_MS)
        await within.sweep_partition(within.namespace.partition_of(ACCOUNT))
        assert (await settle(within, "one", 5)).late
        after = await open_store.journalled(clock_offset_ms=DAY_MS + MINUTE_MS)
        await after.sweep_partition(after.namespace.partition_of(ACCOUNT))
        assert operations(after).count("forget") == 1
        assert last(after, "forget").operation_key == "lease/two/forget"
        with pytest.raises(LeaseNotFoundError):
            await settle(after, "two", 5)
        assert await numbers_of(after) == (95, 0, 95)

    async def test_what_was_charged_stays_charged_when_forgotten(self, open_store: OpenStore) -> None:
        """Forgetting a lease that was charged on expiry changes no balance."""
        store = await open_store.journalled()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(on_expiry="charge"))
        for offset_ms in (2 * DAY_MS, 2 * DAY_MS + MINUTE_MS):
            after = await open_store.journalled(clock_offset_ms=offset_ms)
            await after.sweep_partition(after.namespace.partition_of(ACCOUNT))
        assert operations(after)[-2:] == ["expire", "forget"]
        assert await numbers_of(after) == (70, 0, 70)

    async def test_sweep(self, open_store: OpenStore) -> None:
        """A sweep visits the accounts on which something is due, at most as many as asked, and no others."""
        store = await open_store(partitions=1)
        for account in ("u1", "u2", "u3", "never due"):
            await add(store, 100, account=account)
        for account in ("u1", "u2", "u3"):
            await reserve(store, LEASE, 30, account=account)
        assert (await store.sweep_partition(0)).accounts == 0
        later = await open_store(clock_offset_ms=MINUTE_MS, partitions=1)
        first = await later.sweep_partition(0, limit=2)
        assert (first.accounts, first.leases_expired) == (2, 2)
        second = await later.sweep_partition(0, limit=2)
        assert (second.accounts, second.leases_expired) == (1, 1)
        assert (await later.sweep_partition(0)).accounts == 0

    async def test_sweep_of_an_account_with_much_due(self, open_store: OpenStore) -> None:
        """One visit applies everything that is due on an account."""
        store = await open_store()
        await add(store, MANY)
        await open_many(store)
        later = await open_store(clock_offset_ms=HOUR_MS)
        swept = await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        assert (swept.accounts, swept.leases_expired) == (1, MANY)

    async def test_sweep_after_everything_was_closed(self, open_store: OpenStore) -> None:
        """The time at which a closed lease would have expired passes with one entry, and the account is due no more."""
        store = await open_store.journalled()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        await settle(store, LEASE, 30)
        later = await open_store.journalled(clock_offset_ms=HOUR_MS)
        partition = later.namespace.partition_of(ACCOUNT)
        assert (await later.sweep_partition(partition)).leases_expired == 0
        assert operations(later)[-1] == "sweep"
        assert (await later.sweep_partition(partition)).accounts == 0

    async def test_renewed_lease_is_not_swept(self, open_store: OpenStore) -> None:
        """A lease that was renewed outlives the time at which it first was due."""
        store = await open_store.journalled()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        await renew(store, LEASE, DAY_MS)
        later = await open_store.journalled(clock_offset_ms=HOUR_MS)
        await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        assert operations(later)[-1] == "sweep"
        assert await numbers_of(later) == (100, 30, 70)
        assert (await later.sweep_partition(later.namespace.partition_of(ACCOUNT))).accounts == 0

    async def test_leases_expire_each_at_its_time(self, open_store: OpenStore) -> None:
        """The account stays due for the lease that expires next."""
        store = await open_store.journalled()
        await add(store, 100)
        for minutes in (3, 1, 2):
            await reserve(store, f"{minutes} minutes", 10, terms(ttl_ms=minutes * MINUTE_MS))
        partition = store.namespace.partition_of(ACCOUNT)
        for minutes in (1, 2, 3):
            later = await open_store.journalled(clock_offset_ms=minutes * MINUTE_MS)
            assert (await later.sweep_partition(partition)).leases_expired == 1
            assert last(later, "expire").operation_key == f"lease/{minutes} minutes/expire"
