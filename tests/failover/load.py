"""Callers that charge accounts on every partition while a test hurts the servers, and what they were told.

Each charge has an idempotency key of its own. Afterwards every one is asked for again, whatever its caller was told,
and then the journal must hold each exactly once.
"""

import asyncio
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from ducto_redis.store.cluster_client import ClusterClient
from ducto_redis.testing.inspection import assert_fold, read_journal

PARTITIONS = 16
CREDITS = 1_000_000
CALLERS = 16
PACE_SECONDS = 0.01
"""Between two charges of a caller: enough of them to be hurt, few enough to be repeated afterwards."""
NO_LONGER_SECONDS = 3.0
"""How far past its deadline a call may end on a busy machine; one that hangs would never end."""


class Load(ABC):
    """Charges accounts, from `with` to its end, and remembers what became of each.

    Args:
        url: of the servers.
        namespace: a new one.
        timeout_seconds: of the manager.

    Attributes:
        charged: the keys whose charge was acknowledged, with their accounts.
        unknown: those whose outcome the caller was not told.
    """

    def __init__(self, url: str, namespace: str, *, timeout_seconds: float = 10.0) -> None:
        self.url = url
        self.namespace = namespace
        self.timeout_seconds = timeout_seconds
        self.charged: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self._stores: list[RedisStore] = []
        self._stopping = threading.Event()
        with self.manager() as manager:
            partition_of = manager.store.namespace.partition_of
            names: dict[int, str] = {}
            for name in map(str, itertools.count()):
                names.setdefault(partition_of(name), name)
                if len(names) == PARTITIONS:
                    break
            self.accounts = [names[partition] for partition in range(PARTITIONS)]
            for account in self.accounts:
                manager.add_credits(account, CREDITS)
        self._wait_for_replicas()  # what a test begins with is not what it may lose
        self._thread = ThreadPoolExecutor(1)

    def store(self, *, blocking: bool = True) -> RedisStore:
        """A store of the accounts; one that blocks is closed with the load."""
        store = RedisStore(
            self.url,
            namespace=self.namespace,
            partitions=PARTITIONS,
            blocking=blocking,
            timeout_seconds=self.timeout_seconds,
        )
        if blocking:
            self._stores.append(store)
        return store

    def manager(self) -> CreditManager:
        """A blocking manager of the accounts."""
        return CreditManager(self.store())

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        self.wait_for_charges(CALLERS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._running.result()
        self._thread.shutdown()

    def close(self) -> None:
        """Lets go of all connections."""
        for store in self._stores:
            run_sync(store.close())

    def wait_for_charges(self, count: int) -> None:
        """Waits until so many more were acknowledged."""
        enough = len(self.charged) + count
        give_up = time.monotonic() + 30
        while len(self.charged) < enough:
            if self._running.done():
                self._running.result()
            assert time.monotonic() < give_up, f"{len(self.charged)} charges after 30 seconds, {enough} were expected"
            time.sleep(0.005)

    def repeat(self) -> None:
        """Asks for every charge once more, with its key; of those without an answer until there is one."""
        with self.manager() as manager, ThreadPoolExecutor(CALLERS) as threads:
            calls = (self.charged | self.unknown).items()
            list(threads.map(lambda call: manager.deduct(call[1], 1, idempotency_key=call[0]), calls))

    def check(self) -> None:
        """Asserts that every charge was made exactly once: by the journal, by the balances, and by the accounts."""
        store = self.store()
        expected = Counter((self.charged | self.unknown).values())
        made = Counter(entry.operation_key for entry in read_journal(store) if entry.operation == "deduct")
        assert made == Counter(f"key/{key}" for key in (*self.charged, *self.unknown))
        with self.manager() as manager:
            for account in self.accounts:
                assert manager.get_balance(account).balance == CREDITS - expected[account]
        assert_fold(store)

    @abstractmethod
    def _run(self) -> None:
        """Charge until it is to stop."""

    def _wait_for_replicas(self) -> None:
        client = self.store().redis()
        for node in client.primaries().values() if isinstance(client, ClusterClient) else [client]:
            replicas = node.info("replication")["connected_slaves"]
            assert node.wait(replicas, 10_000) >= replicas > 0

    def _calls(self, caller: int) -> Iterator[tuple[str, str]]:
        for number in itertools.count():
            if self._stopping.is_set():
                return
            yield f"{caller}-{number}", self.accounts[(caller + number) % PARTITIONS]

    def _was_unknown(self, key: str, account: str, error: StoreUnavailableError) -> None:
        assert error.operation_key == key
        self.unknown[key] = account


class AsyncLoad(Load):
    """Tasks that share an `AsyncCreditManager`."""

    def _run(self) -> None:
        asyncio.run(self._call())

    async def _call(self) -> None:
        async with AsyncCreditManager(self.store(blocking=False)) as manager:
            await asyncio.gather(*(self._charge(manager, caller) for caller in range(CALLERS)))

    async def _charge(self, manager: AsyncCreditManager, caller: int) -> None:
        for key, account in self._calls(caller):
            try:
                async with asyncio.timeout(self.timeout_seconds + NO_LONGER_SECONDS):
                    await manager.deduct(account, 1, idempotency_key=key)
            except StoreUnavailableError as error:
                self._was_unknown(key, account, error)
            else:
                self.charged[key] = account
            await asyncio.sleep(PACE_SECONDS)


class BlockingLoad(Load):
    """Threads that share a `CreditManager`."""

    def _run(self) -> None:
        with self.manager() as manager, ThreadPoolExecutor(CALLERS) as threads:
            for done in [threads.submit(self._charge, manager, caller) for caller in range(CALLERS)]:
                done.result()

    def _charge(self, manager: CreditManager, caller: int) -> None:
        for key, account in self._calls(caller):
            started = time.monotonic()
            try:
                manager.deduct(account, 1, idempotency_key=key)
            except StoreUnavailableError as error:
                self._was_unknown(key, account, error)
            else:
                self.charged[key] = account
            assert time.monotonic() - started < self.timeout_seconds + NO_LONGER_SECONDS
            time.sleep(PACE_SECONDS)


LOADS: dict[str, type[Load]] = {"async": AsyncLoad, "blocking": BlockingLoad}
