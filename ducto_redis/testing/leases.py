"""The life of a lease: reserve, settle, release, renew, extend, list_leases, and each of them twice."""

import pytest

from ducto_redis.engine.operation import Price
from ducto_redis.errors import (
    IdempotencyConflictError,
    InsufficientCreditsError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    RepriceLease,
)
from ducto_redis.store.contract import CreditStore
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    OWNER,
    add,
    deduct,
    entry_of,
    extend,
    micro,
    numbers_of,
    release,
    renew,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore, unwatched

LEASE = "a lease"


STATES = ("unknown", "open", "expired", "settled", "released", "settled late", "released late")
TABLE = {
    # step               unknown, open, expired, settled, released, settled late, released late
    "reserve":           "done     replayed  expired   settled   released  settled   released",
    "reserve otherwise": "done     conflict  conflict  settled   released  settled   released",
    "settle":            "missing  done      done      replayed  released  replayed  released",
    "settle otherwise":  "missing  done      done      conflict  released  conflict  released",
    "release":           "missing  done      done      settled   replayed  settled   replayed",
    "renew":             "missing  done      expired   settled   released  settled   released",
    "extend":            "missing  done      expired   settled   released  settled   released",
}  # fmt: skip
REFUSALS: dict[type[Exception], str] = {
    LeaseNotFoundError: "missing",
    LeaseExpiredError: "expired",
    IdempotencyConflictError: "conflict",
}


async def outcome(store: CreditStore, step: str) -> str:
    """Return the outcome of a step on the lease: `done`, `replayed`, or a word for the refusal."""
    try:
        match step:
            case "reserve":
                replayed = (await reserve(store, LEASE, 10)).replayed
            case "reserve otherwise":
                replayed = (await reserve(store, LEASE, 11, terms(fingerprint="something else"))).replayed
            case "settle":
                replayed = (await settle(store, LEASE, 4)).replayed
            case "settle otherwise":
                replayed = (await settle(store, LEASE, 5)).replayed
            case "release":
                replayed = (await release(store, LEASE)).replayed
            case "renew":
                replayed = (await renew(store, LEASE, HOUR_MS)).replayed
            case _:
                replayed = (await extend(store, LEASE, 2)).replayed
    except LeaseClosedError as closed:
        return closed.how
    except (LeaseNotFoundError, LeaseExpiredError, IdempotencyConflictError) as refused:
        return REFUSALS[type(refused)]
    return "replayed" if replayed else "done"


@pytest.mark.asyncio
class LeaseConformance(ConformanceTests):
    """Leases while their time lasts, and every step in every state."""

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("step", TABLE)
    async def test_every_step_in_every_state(self, open_store: OpenStore, step: str, state: str) -> None:
        """A step on a lease comes to what the table says, and done again it is a replay or the same refusal."""
        now = await open_store()
        later = await open_store(clock_offset_ms=2 * MINUTE_MS)
        await add(now, 100)
        if state != "unknown":
            await reserve(now, LEASE, 10)
        store = later if state == "expired" or state.endswith("late") else now
        if state.startswith("settled"):
            await settle(store, LEASE, 4)
        elif state.startswith("released"):
            await release(store, LEASE)
        expected = TABLE[step].split()[STATES.index(state)]
        assert await outcome(store, step) == expected
        assert await outcome(store, step) == ("replayed" if expected == "done" else expected)

    async def test_reserve(self, open_store: OpenStore) -> None:
        """A lease holds its amount: it is no longer available, and still in the balance."""
        store = await open_store()
        await add(store, 100)
        lease = await reserve(store, LEASE, Price(30, version=2, activation=3), terms(), cause=b"{}")
        assert (micro(lease.amount), micro(lease.balance_after), micro(lease.available)) == (30, 100, 70)
        assert (lease.lease_id, lease.version, lease.replayed) == (LEASE, 2, False)
        entry = await entry_of(store, lease)
        assert (entry.operation, entry.operation_key) == ("reserve", f"lease/{LEASE}/reserve")
        assert (entry.amount, entry.balance_change, entry.version, entry.cause) == (30, 0, 2, "{}")
        assert round(lease.expires_at.timestamp() * 1000) - entry.time_ms <= MINUTE_MS

    async def test_reserve_is_exact_at_the_floor(self, open_store: OpenStore) -> None:
        """All that is available above the floor can be held, and not one micro-credit more."""
        store = await open_store()
        await add(store, 10)
        await reserve(store, "first", 4)
        with pytest.raises(InsufficientCreditsError) as refused:
            await reserve(store, LEASE, 5, terms(floor=2))
        assert (micro(refused.value.needed), micro(refused.value.available)) == (5, 6)
        assert (micro(refused.value.held), micro(refused.value.floor)) == (4, 2)
        await reserve(store, LEASE, 4, terms(floor=2))
        assert await numbers_of(store) == (10, 8, 2)

    async def test_unknown_account_cannot_reserve(self, open_store: OpenStore) -> None:
        """An account without credits can hold nothing, unless the floor lies below zero."""
        store = await open_store()
        with pytest.raises(InsufficientCreditsError):
            await reserve(store, LEASE, 1)
        await reserve(store, LEASE, 1, terms(floor=-1))
        assert await numbers_of(store) == (0, 1, -1)

    async def test_reserve_again_shows_the_lease_as_it_is(self, open_store: OpenStore) -> None:
        """A repeated reserve finds the same lease, with what it holds and how long it lives by now."""
        store = await open_store()
        await add(store, 100)
        first = await reserve(store, LEASE, 10)
        await extend(store, LEASE, 5)
        renewed = await renew(store, LEASE, HOUR_MS)
        again = await reserve(store, LEASE, 10)
        assert again.replayed
        assert (again.transaction_id, micro(again.amount)) == (first.transaction_id, 15)
        assert again.expires_at == renewed.expires_at

    async def test_settle_below_the_hold(self, open_store: OpenStore) -> None:
        """The unspent part of a hold is available again."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        settled = await settle(store, LEASE, Price(12), cause=b"{}")
        assert (micro(settled.amount), micro(settled.shortfall), settled.late) == (12, 0, False)
        assert (micro(settled.balance_after), micro(settled.available)) == (88, 88)
        entry = await entry_of(store, settled)
        assert (entry.operation, entry.operation_key) == ("settle", f"lease/{LEASE}/settle")
        assert (entry.amount, entry.balance_change, entry.shortfall, entry.cause) == (12, -12, 0, "{}")

    async def test_settle_for_nothing(self, open_store: OpenStore) -> None:
        """Work that cost nothing is settled for nothing."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        settled = await settle(store, LEASE, 0)
        assert (micro(settled.amount), micro(settled.shortfall)) == (0, 0)
        assert await numbers_of(store) == (100, 0, 100)

    async def test_settle_above_the_hold(self, open_store: OpenStore) -> None:
        """The cost beyond the hold is charged from available credits."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        settled = await settle(store, LEASE, 100)
        assert (micro(settled.amount), micro(settled.shortfall)) == (100, 0)
        assert await numbers_of(store) == (0, 0, 0)

    async def test_settle_never_takes_what_others_hold(self, open_store: OpenStore) -> None:
        """Another lease's hold pays for that lease alone; the rest of the cost is the shortfall, journalled."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        await reserve(store, "another", 50)
        settled = await settle(store, LEASE, 60)
        assert (micro(settled.amount), micro(settled.shortfall)) == (50, 10)
        assert await numbers_of(store) == (50, 50, 0)
        entry = await entry_of(store, settled)
        assert (entry.amount, entry.balance_change, entry.shortfall) == (60, -50, 10)
        assert micro((await settle(store, "another", 50)).shortfall) == 0

    async def test_settle_stops_at_the_lease_s_floor(self, open_store: OpenStore) -> None:
        """Beyond its hold a lease is charged down to the floor that it was admitted under, in overdraft too."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, "strict", 30, terms(floor=20))
        assert micro((await settle(store, "strict", 90)).shortfall) == 10
        assert await numbers_of(store) == (20, 0, 20)
        await reserve(store, "overdraft", 5, terms(floor=-10))
        settled = await settle(store, "overdraft", 31)
        assert (micro(settled.amount), micro(settled.shortfall)) == (30, 1)
        assert await numbers_of(store) == (-10, 0, -10)

    async def test_hold_pays_though_the_account_is_below_its_floor(self, open_store: OpenStore) -> None:
        """A lease's own hold pays for its work, also where the account fell below the lease's floor meanwhile."""
        store = await open_store()
        await add(store, 50)
        await reserve(store, LEASE, 30, terms(floor=10))
        await deduct(store, 40, floor=-20)
        settled = await settle(store, LEASE, 35)
        assert (micro(settled.amount), micro(settled.shortfall)) == (30, 5)
        assert await numbers_of(store) == (-20, 0, -20)

    async def test_settle_replays_its_first_answer(self, open_store: OpenStore) -> None:
        """Settled twice is charged once, and the second answer is the first."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        first = await settle(store, LEASE, 40)
        await add(store, 50, "later")
        again = await settle(store, LEASE, 40)
        assert again.replayed
        assert (again.transaction_id, again.amount, again.balance_after) == (
            first.transaction_id,
            first.amount,
            first.balance_after,
        )

    async def test_settle_at_the_lease_s_prices(self, open_store: OpenStore) -> None:
        """A cost that was priced under another version is asked for again; an amount of credits has no version."""
        store = await open_store()
        await add(store, 100)
        for lease_id in ("one", "two", "three"):
            await reserve(store, lease_id, Price(10, version=2, activation=2), terms())
        with pytest.raises(RepriceLease) as asked:
            await settle(store, "one", Price(9, version=3))
        assert asked.value.version == 2
        with pytest.raises(RepriceLease):
            await extend(store, "one", Price(9, version=3), "more")
        extended = await extend(store, "one", Price(9, version=2), "more")
        priced, unpriced = await settle(store, "one", Price(9, version=2)), await settle(store, "two", 9)
        versions = [(await entry_of(store, result)).version for result in (extended, priced, unpriced)]
        assert versions == [2, 2, 0]

    async def test_entries_carry_the_version_of_their_price(self, open_store: OpenStore) -> None:
        """A lease that was opened for credits can be settled for usage; the entry says under which version."""
        store = await open_store()
        await add(store, 100)
        reserved = await reserve(store, LEASE, 10)
        extended = await extend(store, LEASE, Price(9, version=3), "more")
        settled = await settle(store, LEASE, Price(9, version=3))
        versions = [(await entry_of(store, result)).version for result in (reserved, extended, settled)]
        assert versions == [0, 3, 3]

    async def test_release(self, open_store: OpenStore) -> None:
        """A released lease holds nothing and costs nothing; released again it gives the same answer."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        released = await release(store, LEASE)
        assert (micro(released.amount), micro(released.balance_after), micro(released.available)) == (30, 100, 100)
        entry = await entry_of(store, released)
        assert (entry.operation, entry.amount, entry.balance_change) == ("release", 30, 0)
        assert (await release(store, LEASE)).transaction_id == released.transaction_id

    async def test_renew(self, open_store: OpenStore) -> None:
        """A renewed lease outlives its first time; renewing for less never shortens it."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30)
        renewed = await renew(store, LEASE, HOUR_MS, "one")
        shorter = await renew(store, LEASE, MINUTE_MS, "two")
        assert shorter.expires_at == renewed.expires_at
        later = await open_store(clock_offset_ms=HOUR_MS // 2)
        assert await numbers_of(later) == (100, 30, 70)
        await settle(later, LEASE, 30)

    async def test_extend(self, open_store: OpenStore) -> None:
        """An extended lease holds more, under its own floor; the same key extends once."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 30, terms(floor=20))
        extended = await extend(store, LEASE, 10)
        assert (micro(extended.amount), micro(extended.available)) == (40, 60)
        again = await extend(store, LEASE, 10)
        assert (again.replayed, again.transaction_id) == (True, extended.transaction_id)
        with pytest.raises(IdempotencyConflictError):
            await extend(store, LEASE, 11, fingerprint="something else")
        with pytest.raises(InsufficientCreditsError):
            await extend(store, LEASE, 41, "too much")
        await extend(store, LEASE, 40, "all")
        assert await numbers_of(store) == (100, 80, 20)
        assert micro((await settle(store, LEASE, 80)).amount) == 80

    async def test_leases_belong_to_accounts(self, open_store: OpenStore) -> None:
        """The same lease id of another account is another lease."""
        store = await open_store()
        await add(store, 100, account="u1")
        await add(store, 100, account="u2")
        await reserve(store, LEASE, 10, account="u1")
        with pytest.raises(LeaseNotFoundError):
            await settle(store, LEASE, 10, account="u2")
        assert not (await reserve(store, LEASE, 20, account="u2")).replayed

    async def test_list_leases(self, open_store: OpenStore) -> None:
        """The open leases are listed with all that people want to know of them, the others are not."""
        store = await open_store()
        await add(store, 100)
        price, lease_terms = Price(7, version=2, activation=2), terms(metadata=b'{"job":"x"}', ttl_ms=DAY_MS)
        opened = await reserve(store, LEASE, price, lease_terms)
        await reserve(store, "expired by then", 1)
        await reserve(store, "settled by then", 1, terms(ttl_ms=DAY_MS))
        await settle(store, "settled by then", 1)
        later = await open_store(clock_offset_ms=HOUR_MS)
        (lease,) = (await later.list_leases(ACCOUNT)).leases
        assert (lease.lease_id, lease.account, micro(lease.amount), lease.version) == (LEASE, ACCOUNT, 7, 2)
        assert (lease.operation_type, lease.owner, lease.metadata) == ("chat", OWNER, '{"job":"x"}')
        assert lease.expires_at == opened.expires_at
        assert (lease.expires_at - lease.created_at).total_seconds() * 1000 == DAY_MS
        assert lease.age_seconds >= HOUR_MS / 1000

    async def test_list_leases_page_by_page(self, open_store: OpenStore) -> None:
        """The pages together hold every open lease."""
        store = await open_store()
        await add(store, 1000)
        raw = unwatched(store)
        for number in range(60):
            await reserve(raw, f"lease {number}", 1)
        found: set[str] = set()
        cursor, pages = 0, 0
        while True:
            page = await store.list_leases(ACCOUNT, cursor=cursor, count=10)
            found |= {lease.lease_id for lease in page.leases}
            cursor, pages = page.cursor, pages + 1
            if not cursor:
                break
        assert found == {f"lease {number}" for number in range(60)}
        assert pages > 1

    async def test_expired_lease_says_so(self, open_store: OpenStore) -> None:
        """Renewing and extending an expired lease is its own error, whether or not it was touched since."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 10)
        later = await open_store(clock_offset_ms=MINUTE_MS)
        for _ in range(2):
            with pytest.raises(LeaseExpiredError):
                await renew(later, LEASE, MINUTE_MS)
            with pytest.raises(LeaseExpiredError):
                await extend(later, LEASE, 1)
