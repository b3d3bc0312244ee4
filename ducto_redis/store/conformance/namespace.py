"""The namespace: created once, and never again by itself when Redis has lost its memory."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ducto_redis.errors import PartitionMismatchError, RecoveryNeededError
from ducto_redis.store.conformance.calls import ACCOUNT, add, deduct, extend, key, numbers_of, reserve, settle
from ducto_redis.store.conformance.inspection import dump, keys_of
from ducto_redis.store.conformance.opening import ConformanceTests, OpenStore
from ducto_redis.store.contract import CreditStore, NamespaceState

LEASE = "a lease"

OPERATIONS: dict[str, Callable[[CreditStore], Awaitable[object]]] = {
    "add_credits": lambda store: add(store, 1, "new"),
    "deduct": lambda store: deduct(store, 1, floor=-10),
    "reserve": lambda store: reserve(store, "new", 1),
    "settle": lambda store: settle(store, LEASE, 1),
    "release": lambda store: store.release(ACCOUNT, LEASE, cause=b""),
    "renew": lambda store: store.renew(ACCOUNT, LEASE, key("renewed"), ttl_ms=1),
    "extend": lambda store: extend(store, LEASE, 1),
    "get_balance": lambda store: store.get_balance(ACCOUNT),
    "list_leases": lambda store: store.list_leases(ACCOUNT),
    "publish_pricing": lambda store: store.publish_pricing("{}", key("new"), cause=b""),
    "activate_pricing": lambda store: store.activate_pricing(1, cause=b""),
    "read_pricing": lambda store: store.read_pricing(),
}


def metas(store: CreditStore) -> list[dict[bytes, bytes]]:
    """The partitions' own records."""
    return [store.redis().hgetall(store.namespace.meta(partition)) for partition in store.partitions()]


@pytest.mark.asyncio
class NamespaceConformance(ConformanceTests):
    """Creation, mismatch and loss."""

    async def test_create(self, open_store: OpenStore) -> None:
        """A namespace is missing until it is created; every partition then has its record, with the ledger's group."""
        store = await open_store(create=False)
        assert await store.read_namespace() is NamespaceState.MISSING
        assert keys_of(store) == []
        await store.create_namespace()
        assert await store.read_namespace() is NamespaceState.OPEN
        records = metas(store)
        assert len({record[b"namespace_id"] for record in records}) == 1
        for record in records:
            assert (record[b"state"], record[b"epoch"], record[b"group/ledger"]) == (b"open", b"1", b"1")
            assert int(record[b"partitions"]) == store.namespace.partitions

    async def test_creating_again_changes_nothing(self, open_store: OpenStore) -> None:
        """Who creates a namespace that is there finds it as it is."""
        store = await open_store()
        await add(store, 1)
        before = dump(store)
        await (await open_store()).create_namespace()
        assert dump(store) == before

    async def test_created_by_many_at_once(self, open_store: OpenStore) -> None:
        """Several that create it at the same time make one namespace."""
        stores = [await open_store(create=False) for _ in range(8)]
        await asyncio.gather(*(store.create_namespace() for store in stores))
        assert {await store.read_namespace() for store in stores} == {NamespaceState.OPEN}
        assert len({record[b"namespace_id"] for record in metas(stores[0])}) == 1

    async def test_a_creation_that_was_cut_short_is_finished(self, open_store: OpenStore) -> None:
        """A namespace whose creator died half-way is finished by the next that looks, under the same id."""
        store = await open_store()
        (first, *rest) = metas(store)
        store.redis().hset(store.namespace.meta(0), "state", "creating")
        for partition in range(1, store.namespace.partitions):
            store.redis().delete(store.namespace.meta(partition))
        assert await store.read_namespace() is NamespaceState.OPEN
        assert metas(store) == [first, *rest]

    @pytest.mark.parametrize("partitions", [1, 3])
    async def test_another_number_of_partitions(self, open_store: OpenStore, partitions: int) -> None:
        """A client with another number of partitions is refused, and told the right one."""
        await open_store(partitions=2)
        with pytest.raises(PartitionMismatchError, match="partitions=2"):
            await (await open_store(create=False, partitions=partitions)).read_namespace()

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_without_a_namespace_nothing_happens(self, open_store: OpenStore, operation: str) -> None:
        """Where the namespace was never created, or Redis was emptied, no operation makes an account."""
        store = await open_store(create=False)
        with pytest.raises(RecoveryNeededError):
            await OPERATIONS[operation](store)
        assert keys_of(store) == []

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_no_fresh_accounts_after_a_loss(self, open_store: OpenStore, operation: str) -> None:
        """After Redis was emptied under a client that goes on, no account starts afresh."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, LEASE, 10)
        store.redis().delete(*keys_of(store))
        with pytest.raises(RecoveryNeededError):
            await OPERATIONS[operation](store)
        assert keys_of(store) == []

    async def test_partition_that_is_not_open(self, open_store: OpenStore) -> None:
        """A partition whose state is not open makes no accounts; those that are there go on."""
        store = await open_store()
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
        store = await open_store()
        store.redis().delete(store.namespace.meta(lost))
        with pytest.raises(RecoveryNeededError, match=f"partition {lost} "):
            await store.read_namespace()

    async def test_partition_of_another_namespace_life(self, open_store: OpenStore) -> None:
        """A partition whose record has another id belongs to another life of the namespace: it counts as lost."""
        store = await open_store()
        store.redis().hset(store.namespace.meta(1), "namespace_id", "another")
        with pytest.raises(RecoveryNeededError, match="partition 1 "):
            await store.read_namespace()
