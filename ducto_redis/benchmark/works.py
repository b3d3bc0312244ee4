"""The operations that are measured, as each contender does them: on one account, the hardest case."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

from ducto_redis.benchmark.bare import UNIQUE, Command
from ducto_redis.benchmark.harness import BenchmarkError, Target
from ducto_redis.benchmark.setting import ACCOUNT, Setting, prepare
from ducto_redis.engine.operation import Operation
from ducto_redis.manager import AsyncCreditManager, CreditManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.store.redis import RedisStore

R = TypeVar("R")

ESTIMATE = UsageMetrics(model="gpt-4o", input_tokens=1200, output_tokens=4096)
USAGE = UsageMetrics(model="gpt-4o", input_tokens=1200, cache_read_tokens=256, output_tokens=300)


class Work(ABC):
    """One operation, or some that belong together. `unique` is an id of twelve digits that no other call has.

    Attributes:
        name: of the work.
        journalled: journal entries that it makes.
        round_trips: to the server, one after the other.
        share: what the manager should reach of the bare script.
        threads_share: what threads should reach of the event loop.
        of_nothing: what the bare script should reach of `return 1`.
        of_ping: round trips that one call alone may take.
    """

    name: ClassVar[str]
    journalled: ClassVar[int]
    round_trips: ClassVar[int] = 1
    share: ClassVar[Target | None] = None
    threads_share: ClassVar[Target | None] = None
    of_nothing: ClassVar[Target | None] = None
    of_ping: ClassVar[Target | None] = None

    @abstractmethod
    async def by_manager(self, manager: AsyncCreditManager, account: str, unique: str) -> None:
        """Through the manager of an event loop."""

    @abstractmethod
    def by_thread(self, manager: CreditManager, account: str, unique: str) -> None:
        """Through the manager of threads."""

    async def commands(self, setting: Setting, namespace: str, account: str = ACCOUNT) -> list[Command]:
        """Record the manager's operation, with UNIQUE as the id. The namespace is prepared for it.

        What the recorded call leaves under its id is deleted, so that it can be sent again.
        """
        store = RedisStore(setting.redis_url, namespace=namespace)
        async with AsyncCreditManager(store) as manager:
            await prepare(manager, account)
            await manager.get_balance(account)
            recorded = await record(setting, store, lambda: self.by_manager(manager, account, UNIQUE))
        # The manager may have looked for a new pricing document in between.
        key = store.namespace.account(account).keys[0]
        commands = [command for command in recorded if command.keys[0] == key]
        if len(commands) != self.round_trips:
            raise BenchmarkError(f"{self.name} took {len(commands)} round trips, not {self.round_trips}")
        return commands


class AddCredits(Work):
    name = "add_credits"
    journalled = 1

    async def by_manager(self, manager: AsyncCreditManager, account: str, unique: str) -> None:
        await manager.add_credits(account, 1, idempotency_key=unique)

    def by_thread(self, manager: CreditManager, account: str, unique: str) -> None:
        manager.add_credits(account, 1, idempotency_key=unique)


class Deduct(Work):
    name = "deduct"
    journalled = 1
    share = Target(at_least=0.8)
    threads_share = Target(at_least=0.4)
    of_nothing = Target(at_least=0.14)
    of_ping = Target(at_most=1.5)

    async def by_manager(self, manager: AsyncCreditManager, account: str, unique: str) -> None:
        await manager.deduct(account, USAGE, idempotency_key=unique)

    def by_thread(self, manager: CreditManager, account: str, unique: str) -> None:
        manager.deduct(account, USAGE, idempotency_key=unique)


class ReserveAndSettle(Work):
    name = "reserve + settle"
    journalled = 2
    round_trips = 2
    share = Target(at_least=0.75)
    threads_share = Target(at_least=0.4)

    async def by_manager(self, manager: AsyncCreditManager, account: str, unique: str) -> None:
        await manager.reserve(account, ESTIMATE, lease_id=unique)
        await manager.settle(account, unique, USAGE)

    def by_thread(self, manager: CreditManager, account: str, unique: str) -> None:
        manager.reserve(account, ESTIMATE, lease_id=unique)
        manager.settle(account, unique, USAGE)


class GetBalance(Work):
    name = "get_balance"
    journalled = 0

    async def by_manager(self, manager: AsyncCreditManager, account: str, unique: str) -> None:
        await manager.get_balance(account)

    def by_thread(self, manager: CreditManager, account: str, unique: str) -> None:
        manager.get_balance(account)


DEDUCT = Deduct()
WORKS: tuple[Work, ...] = (AddCredits(), DEDUCT, ReserveAndSettle(), GetBalance())


async def record(setting: Setting, store: RedisStore, do: Callable[[], Awaitable[None]]) -> list[Command]:
    """Record a store's operation while `do` runs. Keys left under UNIQUE are deleted: it can be sent again."""
    run = store.run
    recorder = _Recorder(run)
    store.run = recorder.run  # type: ignore[method-assign]
    try:
        await do()
    finally:
        store.run = run  # type: ignore[method-assign]
    commands = [Command.of(operation) for operation in recorder.operations]
    with setting.redis() as client:
        forget = [key for command in commands for key in command.keys if UNIQUE.encode() in key]
        if forget:
            client.unlink(*forget)
    return commands


class _Recorder:
    """A recorder that stands before a store's `run`, and keeps what passes."""

    def __init__(self, run: Callable[[Operation[Any]], Awaitable[Any]]) -> None:
        self._run = run
        self.operations: list[Operation[Any]] = []

    async def run(self, operation: Operation[R]) -> R:
        """Record an operation, and run it."""
        self.operations.append(operation)
        result: R = await self._run(operation)
        return result
