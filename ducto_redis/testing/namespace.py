"""The namespace: created once, by whoever comes first."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ducto_redis.engine.operation import CapRule, Charge, Conditions, Terms
from ducto_redis.errors import PartitionMismatchError, RecoveryNeededError
from ducto_redis.store.contract import CreditStore, NamespaceState
from ducto_redis.testing.calls import (
    ACCOUNT,
    KNOWN,
    add,
    deduct,
    extend,
    key,
    numbers_of,
    release,
    renew,
    reserve,
    settle,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore, unwatched

LEASE = "a lease"

CHARGE = Charge("0-1-1-0", 1, "", 1)
OPERATIONS: dict[str, Callable[[CreditStore], Awaitable[object]]] = {
    "add_credits": lambda store: add(store, 1, "new"),
    "deduct": lambda store: deduct(store, 1, floor=-10),
    "reserve": lambda store: reserve(store, "new", 1),
    "settle": lambda store: settle(store, LEASE, 1),
    "release": lambda store: release(store, LEASE),
    "renew": lambda store: renew(store, LEASE, 1),
    "extend": lambda store: extend(store, LEASE, 1),
    "adjust_credits": lambda store: store.adjust_credits(
        ACCOUNT, 1, key("new"), force=True, conditions=KNOWN, cause=b""
    ),
    "refund": lambda store: store.refund(ACCOUNT, CHARGE, 1, key("new"), expired_to_balance=True, cause=b""),
    "set_plan": lambda store: store.set_plan(
        ACCOUNT, "pro", "", key("new"), conditions=Conditions(terms=Terms("pro")), cause=b""
    ),
    "set_cap": lambda store: store.set_cap(
        ACCOUNT, CapRule("account", "total", 1), key("new"), conditions=KNOWN, cause=b""
    ),
    "remove_cap": lambda store: store.remove_cap(ACCOUNT, "account", "1", key("new"), cause=b""),
    "raise_cap": lambda store: store.raise_cap(ACCOUNT, "account", "1", 1, 2**42, key("new"), cause=b""),
    "clear_cap": lambda store: store.clear_cap(ACCOUNT, "account", "1", key("new"), cause=b""),
    "freeze": lambda store: store.freeze(ACCOUNT, "why", key("new"), cause=b""),
    "create_team": lambda store: store.create_team(ACCOUNT, "a team", "ann", key("new"), cause=b""),
    "set_member": lambda store: store.set_member(ACCOUNT, "ann", "member", key("new"), cause=b""),
    "dry_run": lambda store: reserve(store, "new", 0, dry_run=True),
    "describe": lambda store: store.describe(ACCOUNT, conditions=KNOWN),
    "get_balance": lambda store: store.get_balance(ACCOUNT, conditions=KNOWN),
    "list_leases": lambda store: store.list_leases(ACCOUNT),
    "find_lease": lambda store: store.find_lease(ACCOUNT, LEASE),
    "publish_pricing": lambda store: store.publish_pricing("{}", key("new"), cause=b""),
    "activate_pricing": lambda store: store.activate_pricing(1, cause=b""),
    "read_pricing": lambda store: store.read_pricing(),
}


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
        """Who creates a namespace that is there finds it as it is."""
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
        """Where the namespace was never created no operation makes an account, and none makes it."""
        store = unwatched(await open_store(create=False))
        with pytest.raises(RecoveryNeededError):
            await OPERATIONS[operation](store)
        assert await store.read_namespace() is NamespaceState.MISSING
