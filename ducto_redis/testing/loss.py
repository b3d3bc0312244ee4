"""A namespace whose memory was lost: it never begins afresh by itself. Of stores whose journal is in Redis."""

import asyncio

import pytest

from ducto_redis.errors import RecoveryNeededError
from ducto_redis.store.contract import JournalledStore, NamespaceState
from ducto_redis.testing.calls import ACCOUNT, add, deduct, numbers_of, reserve
from ducto_redis.testing.inspection import dump, keys_of
from ducto_redis.testing.opening import ConformanceTests, OpenStore
from ducto_redis.testing.operations import LEASE, OPERATIONS


def metas(store: JournalledStore) -> list[dict[bytes, bytes]]:
    """Return the partitions' own records."""
    return [store.redis().hgetall(store.namespace.meta(partition)) for partition in store.partitions()]


@pytest.mark.asyncio
class LossConformance(ConformanceTests):
    """The partitions' records, and what is not done without them."""

    async def test_create(self, open_store: OpenStore) -> None:
        """Every partition of a namespace that was created has its record, with the ledger's group."""
        store = await open_store.journalled(create=False)
        assert keys_of(store) == []
        await store.create_namespace()
        assert await store.read_namespace() is NamespaceState.OPEN
        records = metas(store)
        assert len({record[b"namespace_id"] for record in records}) == 1
        for record in records:
            assert (record[b"state"], record[b"epoch"], record[b"group/ledger"]) == (b"open", b"1", b"1")
            assert int(record[b"partitions"]) == store.namespace.partitions

    async def test_created_by_many_at_once_is_one(self, open_store: OpenStore) -> None:
        """However many create it at the same time, all partitions have one id, and nothing is written twice."""
        stores = [await open_store.journalled(create=False) for _ in range(8)]
        await asyncio.gather(*(store.create_namespace() for store in stores))
        assert len({record[b"namespace_id"] for record in metas(stores[0])}) == 1
        before = dump(stores[0])
        await stores[1].create_namespace()
        assert dump(stores[0]) == before

    async def test_a_creation_that_was_cut_short_is_finished(self, open_store: OpenStore) -> None:
        """A namespace whose creator died half-way is finished by the next that looks, under the same id."""
        store = await open_store.journalled()
        (first, *rest) = metas(store)
        store.redis().hset(store.namespace.meta(0), "state", "creating")
        for partition in range(1, store.namespace.partitions):
            store.redis().delete(store.namespace.meta(partition))
        assert await store.read_namespace() is NamespaceState.OPEN
        assert metas(store) == [first, *rest]

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_no_fresh_accounts_after_a_loss(self, open_store: OpenStore, operation: str) -> None:
        """After Redis was emptied under a client that goes on, no account starts afresh."""
        store = await open_store.journalled()
        await add(store, 100)
        await reserve(store, LEASE, 10)
        store.redis().delete(*keys_of(store))
        with pytest.raises(RecoveryNeededError):
            await OPERATIONS[operation](store)
        assert keys_of(store) == []

    async def test_partition_that_is_not_open(self, open_store: OpenStore) -> None:
        """A partition whose state is not open makes no accounts; those that are there go on."""
        store = await open_store.journalled()
        await add(store, 5)
        store.redis().hset(store.namespace.meta(store.namespace.partition_of(ACCOUNT)), "state", "recovering")
        await deduct(store, 1)
        other = next(
            name
            for name in map(str, range(100))
            if store.namespace.partition_of(name) == store.namespace.partition_of(ACCOUNT)
        )
        with pytest.raises(RecoveryNeededError):
            await add(store, 5, account=other)
        assert await numbers_of(store) == (4, 0, 4)

    @pytest.mark.parametrize("lost", [0, 1])
    async def test_half_lost_namespace(self, open_store: OpenStore, lost: int) -> None:
        """A namespace that lost a partition is refused, and named."""
        store = await open_store.journalled()
        store.redis().delete(store.namespace.meta(lost))
        with pytest.raises(RecoveryNeededError, match=f"partition {lost} "):
            await store.read_namespace()

    async def test_partition_of_another_namespace_life(self, open_store: OpenStore) -> None:
        """A partition whose record has another id belongs to another life of the namespace: it counts as lost."""
        store = await open_store.journalled()
        store.redis().hset(store.namespace.meta(1), "namespace_id", "another")
        with pytest.raises(RecoveryNeededError, match="partition 1 "):
            await store.read_namespace()
