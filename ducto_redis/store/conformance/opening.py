"""Opening the stores under test, each watched: after every operation the whole state is looked at."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, cast

import pytest
import pytest_asyncio

from ducto_redis.errors import CreditError, RepriceLease, StalePricing
from ducto_redis.store.conformance.inspection import BY_ITSELF, Snapshot, dump
from ducto_redis.store.contract import CreditStore, NamespaceState

PARTITIONS = 2
JOURNAL_LIMIT = 10_000

_WITHOUT_MARK = {"publish_pricing", "activate_pricing", "sweep_partition"}
"""Operations whose results do not say whether they changed something."""
_CHANGES = {"add_credits", "deduct", "reserve", "settle", "release", "renew", "extend", *_WITHOUT_MARK}
_READS = {"get_balance", "list_leases", "read_pricing"}


class StoreFactory(Protocol):
    """Makes stores over the same data, which is empty at first. Nothing is connected or created by it."""

    def __call__(self, *, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
        """A store.

        Args:
            clock_offset_ms: milliseconds by which its clock is ahead, as `load_scripts(clock_offset_ms=...)` has it.
            journal_limit: entries in a partition's journal above which nothing new is admitted.
            partitions: shares of the accounts.
        """


class OpenStore:
    """Opens the stores of one test over the same data, and closes them all at its end."""

    def __init__(self, factory: StoreFactory) -> None:
        self._factory = factory
        self._opened: list[CreditStore] = []

    async def __call__(
        self,
        *,
        clock_offset_ms: int = 0,
        journal_limit: int = JOURNAL_LIMIT,
        partitions: int = PARTITIONS,
        create: bool = True,
    ) -> CreditStore:
        """A watched store; the namespace is created where there is none, unless `create` is False."""
        store = self._factory(clock_offset_ms=clock_offset_ms, journal_limit=journal_limit, partitions=partitions)
        self._opened.append(store)
        if create and await store.read_namespace() is NamespaceState.MISSING:
            await store.create_namespace()
        return cast("CreditStore", WatchedStore(store))

    async def close(self) -> None:
        """Close every store."""
        for store in reversed(self._opened):
            await store.close()


class WatchedStore:
    """A store that looks at its whole state before and after every operation.

    A change is one entry of its own name, after those of what has fallen due; a replay, a refusal and a read are none,
    and touch nothing else either.
    """

    def __init__(self, store: CreditStore) -> None:
        self.inner = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        return self._watched(name, method) if name in _CHANGES or name in _READS else method

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            before = dump(self.inner)
            try:
                result = await method(*args, **options)
            except (CreditError, StalePricing, RepriceLease):
                self._check(name, before, changed=False)
                raise
            changed = None if name in _WITHOUT_MARK else name not in _READS and not result.replayed
            self._check(name, before, changed=changed)
            return result

        return call

    def _check(self, name: str, before: Snapshot, *, changed: bool | None) -> None:
        after = dump(self.inner)
        known = {entry.entry_id for entry in before.journal()}
        made = [entry.operation for entry in after.journal() if entry.entry_id not in known]
        own = [operation for operation in made if operation not in BY_ITSELF]
        if changed is not None:
            assert own == ([name] if changed else []), f"entries of {name}"
        if name in _READS or not made:
            assert after == before, f"{name} changed something"
        after.check()


class ConformanceTests:
    """What all parts of the suite share."""

    @pytest_asyncio.fixture
    async def open_store(self, store_factory: StoreFactory) -> AsyncIterator[OpenStore]:
        """Opens watched stores."""
        open_store = OpenStore(store_factory)
        yield open_store
        await open_store.close()

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        """To be given by who uses the suite."""
        raise NotImplementedError("a subclass of StoreConformance gives the fixture store_factory")
