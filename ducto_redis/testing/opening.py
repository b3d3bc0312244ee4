"""Opening the stores under test, and saying what cannot be tested on them."""

import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import pytest
import pytest_asyncio

from ducto_redis.store.contract import CreditStore, JournalledStore, NamespaceState
from ducto_redis.testing.watching import WatchedStore

PARTITIONS = 2
JOURNAL_LIMIT = 10_000

MakeStore: TypeAlias = Callable[..., CreditStore | Awaitable[CreditStore]]
"""Makes a store. It is a function, or a coroutine function, of as many of these arguments as the store can do:

    namespace: text, another one for each test. Stores of one namespace have the same accounts, which are none at first.
    clock_offset_ms: milliseconds by which the store's clock is ahead of the true time; stores of one namespace may have
        different ones.
    partitions: shares of the accounts.
    journal_limit: entries in a partition's journal above which nothing new is admitted.

They are passed by name. Tests that need one that the function does not take are skipped, and say so.
"""

_WITHOUT = {
    "clock_offset_ms": "the store's clock cannot be moved",
    "partitions": "the number of partitions cannot be chosen",
    "journal_limit": "the journal has no limit",
}


class OpenStore:
    """Opens the stores of one test over the same data, and closes them all at its end."""

    def __init__(self, make_store: MakeStore) -> None:
        self._make_store = make_store
        self._parameters = inspect.signature(make_store).parameters
        self._namespace = f"conformance-{uuid.uuid4().hex[:12]}"
        self._opened: list[CreditStore] = []

    async def __call__(
        self,
        *,
        clock_offset_ms: int | None = None,
        partitions: int | None = None,
        journal_limit: int | None = None,
        create: bool = True,
    ) -> CreditStore:
        """Make a watched store. A setting that is None is left to the store.

        Args:
            clock_offset_ms, partitions, journal_limit: see `MakeStore`; the test is skipped where they cannot be had.
            create: whether to create the namespace where there is none.
        """
        options: dict[str, Any] = {"namespace": self._namespace}
        for name, asked, usual in (
            ("clock_offset_ms", clock_offset_ms, 0),
            ("partitions", partitions, PARTITIONS),
            ("journal_limit", journal_limit, JOURNAL_LIMIT),
        ):
            if self._takes(name):
                options[name] = usual if asked is None else asked
            elif asked is not None:
                pytest.skip(f"make_store takes no {name}: {_WITHOUT[name]}")
        if not self._takes("namespace"):
            del options["namespace"]
        made = self._make_store(**options)
        store = await made if inspect.isawaitable(made) else made
        self._opened.append(store)
        if create and await store.read_namespace() is NamespaceState.MISSING:
            await store.create_namespace()
        return cast("CreditStore", WatchedStore(store))

    async def journalled(self, **options: Any) -> JournalledStore:
        """Make a watched store for a test of its journal, or of its keys."""
        store = await self(**options)
        inner = unwatched(store)
        if not isinstance(inner, JournalledStore):
            pytest.skip(f"{type(inner).__name__} is no JournalledStore: its journal cannot be read from outside")
        return cast("JournalledStore", store)

    async def close(self) -> None:
        """Close every store."""
        for store in reversed(self._opened):
            await store.close()

    def _takes(self, name: str) -> bool:
        parameters = self._parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def unwatched(store: CreditStore) -> CreditStore:
    """Return the store itself: for many steps that nobody has to watch."""
    return store.inner if isinstance(store, WatchedStore) else store


class ConformanceTests:
    """The fixtures that all parts of the suite share."""

    @pytest.fixture
    def make_store(self, request: pytest.FixtureRequest) -> MakeStore:
        """The function under test: that of `--ducto-store`, unless a subclass gives its own."""
        make_store: MakeStore = request.getfixturevalue("ducto_store")
        return make_store

    @pytest_asyncio.fixture
    async def open_store(self, make_store: MakeStore) -> AsyncIterator[OpenStore]:
        """Opens watched stores."""
        open_store = OpenStore(make_store)
        yield open_store
        await open_store.close()
