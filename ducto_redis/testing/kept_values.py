"""Values that are kept beside accounts for a time, and what became of a lease."""

import asyncio

import pytest

from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    add,
    micro,
    numbers_of,
    release,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore

ANY_BYTES = bytes(range(256)) + b"\t\n 1\r\n\x1f"


@pytest.mark.asyncio
class KeptValueConformance(ConformanceTests):
    """Values, and leases that are looked up."""

    async def test_kept(self, open_store: OpenStore) -> None:
        """A value is kept as it is, whatever its bytes, until another takes its place. Other names have none."""
        store = await open_store()
        assert await store.kept_value(ACCOUNT, "a name") is None
        assert await store.keep_value(ACCOUNT, "a name", ANY_BYTES, ttl_ms=MINUTE_MS) == ANY_BYTES
        assert await store.kept_value(ACCOUNT, "a name") == ANY_BYTES
        assert await store.keep_value(ACCOUNT, "a name", b"another", ttl_ms=MINUTE_MS) == b"another"
        assert await store.kept_value(ACCOUNT, "a name") == b"another"
        assert await store.kept_value(ACCOUNT, "a") is None

    async def test_large(self, open_store: OpenStore) -> None:
        """A value may have 1 MiB."""
        store = await open_store()
        large = b"\xff\x00" * 2**19
        await store.keep_value(ACCOUNT, "large", large, ttl_ms=MINUTE_MS)
        assert await store.kept_value(ACCOUNT, "large") == large

    async def test_values_belong_to_accounts(self, open_store: OpenStore) -> None:
        """Accounts do not see each other's values, nor those that are kept beside none of them."""
        store = await open_store()
        for account, value in ((ACCOUNT, b"1"), ("u2", b"2"), (None, b"3")):
            await store.keep_value(account, "a name", value, ttl_ms=MINUTE_MS)
        assert await store.kept_value(ACCOUNT, "a name") == b"1"
        assert await store.kept_value("u2", "a name") == b"2"
        assert await store.kept_value(None, "a name") == b"3"

    async def test_only_if(self, open_store: OpenStore) -> None:
        """A value that replaces a certain one, or none, is kept only there; the answer is what is kept then."""
        store = await open_store()
        assert await store.keep_value(ACCOUNT, "m", b"first", ttl_ms=MINUTE_MS, replaces=b"another") == b""
        assert await store.keep_value(ACCOUNT, "m", b"first", ttl_ms=MINUTE_MS, replaces=b"") == b"first"
        assert await store.keep_value(ACCOUNT, "m", b"second", ttl_ms=MINUTE_MS, replaces=b"") == b"first"
        assert await store.keep_value(ACCOUNT, "m", b"second", ttl_ms=MINUTE_MS, replaces=b"other") == b"first"
        assert await store.kept_value(ACCOUNT, "m") == b"first"
        assert await store.keep_value(ACCOUNT, "m", b"second", ttl_ms=MINUTE_MS, replaces=b"first") == b"second"
        assert await store.kept_value(ACCOUNT, "m") == b"second"

    async def test_again(self, open_store: OpenStore) -> None:
        """A call that is made again after it took effect, for its answer was lost, is answered as the first time."""
        store = await open_store()
        for replaces in (b"", b""):
            assert await store.keep_value(ACCOUNT, "n", b"first", ttl_ms=MINUTE_MS, replaces=replaces) == b"first"
        for replaces in (b"first", b"first"):
            assert await store.keep_value(ACCOUNT, "n", b"second", ttl_ms=MINUTE_MS, replaces=replaces) == b"second"

    async def test_the_first_wins(self, open_store: OpenStore) -> None:
        """Of many that keep a value where none is, one does, and all are told which."""
        stores = [await open_store() for _ in range(4)]
        values = [b"%d" % number for number in range(4)]
        told = await asyncio.gather(
            *(
                store.keep_value(ACCOUNT, "n", value, ttl_ms=MINUTE_MS, replaces=b"")
                for store, value in zip(stores, values, strict=True)
            )
        )
        assert len(set(told)) == 1
        assert told[0] in values

    async def test_a_value_is_no_part_of_the_account(self, open_store: OpenStore) -> None:
        """Keeping a value changes nothing of an account, and makes none."""
        store = await open_store()
        await add(store, 5)
        await store.keep_value(ACCOUNT, "n", b"value", ttl_ms=MINUTE_MS)
        await store.keep_value("nobody", "n", b"value", ttl_ms=MINUTE_MS)
        assert await numbers_of(store) == (5, 0, 5)
        await add(store, 5, "more")  # looks at every key of a `JournalledStore`
        assert await numbers_of(store, "nobody") == (0, 0, 0)

    async def test_no_lease(self, open_store: OpenStore) -> None:
        """Of an id that no lease has there is nothing to find."""
        store = await open_store()
        await add(store, 100)
        assert await store.find_lease(ACCOUNT, "a lease") is None
        await reserve(store, "a lease", 10)
        assert await store.find_lease("u2", "a lease") is None
        assert await store.find_lease(ACCOUNT, "a") is None

    async def test_open_lease(self, open_store: OpenStore) -> None:
        """An open lease says what it holds, since when and until when, and what it was reserved with."""
        store = await open_store()
        await add(store, 100)
        reserved = await reserve(store, "a lease", 10, terms(metadata=b'{"a":1}'))
        found = await store.find_lease(ACCOUNT, "a lease")
        assert found is not None
        assert (found.account, found.lease_id, found.state, micro(found.amount)) == (ACCOUNT, "a lease", "open", 10)
        assert (found.transaction_id, found.expires_at) == (reserved.transaction_id, reserved.expires_at)
        assert found.metadata == '{"a":1}'

    @pytest.mark.parametrize("how", ["settled", "released"])
    async def test_closed_lease(self, open_store: OpenStore, how: str) -> None:
        """A closed lease says how it was closed, and by which transaction."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, "a lease", 10)
        closed = await (settle(store, "a lease", 7) if how == "settled" else release(store, "a lease"))
        found = await store.find_lease(ACCOUNT, "a lease")
        assert found is not None
        assert (found.state, found.transaction_id, found.expires_at) == (how, closed.transaction_id, None)
        assert micro(found.amount) == (7 if how == "settled" else 10)

    async def test_expired_lease(self, open_store: OpenStore) -> None:
        """A lease has expired as soon as its time is over, whoever came by. A day later it is forgotten."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, "a lease", 10, terms(ttl_ms=MINUTE_MS, metadata=b"{}"))
        later = await open_store(clock_offset_ms=HOUR_MS)
        for _ in range(2):
            found = await later.find_lease(ACCOUNT, "a lease")
            assert found is not None
            assert (found.state, found.metadata) == ("expired", "{}")
            await add(later, 1, "touched")
        much_later = await open_store(clock_offset_ms=2 * DAY_MS)
        await add(much_later, 1, "touched again")
        assert await much_later.find_lease(ACCOUNT, "a lease") is None
