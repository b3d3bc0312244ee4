"""The namespace: created once, by whoever comes first."""

import asyncio

import pytest

from ducto_redis.errors import PartitionMismatchError, RecoveryNeededError
from ducto_redis.store.contract import NamespaceState
from ducto_redis.testing.calls import (
    add,
    numbers_of,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore, unwatched
from ducto_redis.testing.operations import OPERATIONS


@pytest.mark.asyncio
class NamespaceConformance(ConformanceTests):
    """Creation and mismatch."""

    async def test_missing_until_it_is_created(self, open_store: OpenStore) -> None:
        """A namespace is missing until it is created, and open from then on, for every store of it."""
        store = await open_store(create=False)
        assert await store.read_namespace() is NamespaceState.MISSING
        await store.create_namespace()
        assert await store.read_namespace() is NamespaceState.OPEN
        assert await (await open_store(create=False)).read_namespace() is NamespaceState.OPEN

    async def test_creating_again_changes_nothing(self, open_store: OpenStore) -> None:
        """Creating a namespace that is there leaves it as it is."""
        store = await open_store()
        await add(store, 1)
        await (await open_store()).create_namespace()
        assert await store.read_namespace() is NamespaceState.OPEN
        assert await numbers_of(store) == (1, 0, 1)

    async def test_created_by_many_at_once(self, open_store: OpenStore) -> None:
        """Several that create it at the same time make one namespace."""
        stores = [await open_store(create=False) for _ in range(8)]
        await asyncio.gather(*(store.create_namespace() for store in stores))
        assert {await store.read_namespace() for store in stores} == {NamespaceState.OPEN}

    @pytest.mark.parametrize("partitions", [1, 3])
    async def test_another_number_of_partitions(self, open_store: OpenStore, partitions: int) -> None:
        """A client with another number of partitions is refused, and told the right one."""
        await open_store(partitions=2)
        with pytest.raises(PartitionMismatchError, match="partitions=2"):
            await (await open_store(create=False, partitions=partitions)).read_namespace()

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_without_a_namespace_nothing_happens(self, open_store: OpenStore, operation: str) -> None:
        """No operation makes an account, or a namespace, before the namespace is created."""
        store = unwatched(await open_store(create=False))
        with pytest.raises(RecoveryNeededError):
            await OPERATIONS[operation](store)
        assert await store.read_namespace() is NamespaceState.MISSING
