"""The operations that are measured, as each contender does them: always on one account, the hardest case."""

from abc import ABC, abstractmethod
from typing import ClassVar

from msgspec import Struct

from benchmarks.bare import UNIQUE, Command
from benchmarks.setting import Setting, prepare
from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.cause import Cause, encode_cause
from ducto_redis.engine.operation import PLAIN, LeaseTerms, NewGrant, Operation, OperationKey, Price
from ducto_redis.store.contract import CreditStore
from ducto_redis.store.redis import RedisStore

ACCOUNT = "customer-0001"
ESTIMATE = UsageMetrics(model="gpt-4o", input_tokens=1200, output_tokens=4096)
USAGE = UsageMetrics(model="gpt-4o", input_tokens=1200, cache_read_tokens=256, output_tokens=300)

_DAY_MS = 86_400_000
_FINGERPRINT = "abcdefghijkl"


class StoreCall(Struct, frozen=True):
    """What a manager would hand to the store, made once: what is left is the store's own work."""

    price: Price
    cause: bytes

    @classmethod
    def of(cls, usage: UsageMetrics, micro: int) -> "StoreCall":
        return cls(Price(micro, 1, 1), encode_cause(Cause((usage,))))


_HOLD = StoreCall.of(ESTIMATE, 43_960_000)
_CHARGE = StoreCall.of(USAGE, 5_680_000)
_TERMS = LeaseTerms(0, 600_000, "release", "default", "bench", b"", _FINGERPRINT)


class Work(ABC):
    """One operation, or some that belong together. `unique` is an id of twelve digits that no other call has."""

    name: ClassVar[str]
    journalled: ClassVar[int]
    """Journal entries that it makes."""
    round_trips: ClassVar[int] = 1

    @abstractmethod
    async def by_manager(self, manager: AsyncCreditManager, unique: str) -> None:
        """Through the manager of an event loop."""

    @abstractmethod
    def by_thread(self, manager: CreditManager, unique: str) -> None:
        """Through the manager of threads."""

    @abstractmethod
    async def by_store(self, store: CreditStore, unique: str) -> None:
        """Through the store, with prices, keys and causes made before."""

    async def commands(self, setting: Setting, namespace: str) -> list[Command]:
        """What the manager sends for it, recorded, with UNIQUE as the id. Nothing of the recorded call is kept."""
        recorder = _Recorder(setting.redis_url)
        store = RedisStore(setting.redis_url, namespace=namespace)
        async with AsyncCreditManager(store) as manager:
            await prepare(manager, ACCOUNT)
            await manager.pricing.active()
            link, store.link = store.link, recorder
            await self.by_manager(manager, UNIQUE)
            store.link = link
        await recorder.close()
        commands = [Command.of(operation) for operation in recorder.operations]
        with setting.redis() as client:
            forget = [key for command in commands for key in command.keys if UNIQUE.encode() in key]
            if forget:
                client.unlink(*forget)
        return commands


class AddCredits(Work):
    name = "add_credits"
    journalled = 1

    async def by_manager(self, manager: AsyncCreditManager, unique: str) -> None:
        await manager.add_credits(ACCOUNT, 1, idempotency_key=unique)

    def by_thread(self, manager: CreditManager, unique: str) -> None:
        manager.add_credits(ACCOUNT, 1, idempotency_key=unique)

    async def by_store(self, store: CreditStore, unique: str) -> None:
        key = OperationKey(f"key/{unique}", 35 * _DAY_MS, _FINGERPRINT)
        await store.add_credits(
            ACCOUNT, NewGrant(1_000_000, "purchase"), key, conditions=PLAIN, cause=b'{"type":"purchase"}'
        )


class Deduct(Work):
    name = "deduct"
    journalled = 1

    async def by_manager(self, manager: AsyncCreditManager, unique: str) -> None:
        await manager.deduct(ACCOUNT, USAGE, idempotency_key=unique)

    def by_thread(self, manager: CreditManager, unique: str) -> None:
        manager.deduct(ACCOUNT, USAGE, idempotency_key=unique)

    async def by_store(self, store: CreditStore, unique: str) -> None:
        key = OperationKey(f"key/{unique}", _DAY_MS, _FINGERPRINT)
        await store.deduct(ACCOUNT, _CHARGE.price, key, floor=0, conditions=PLAIN, cause=_CHARGE.cause)


class ReserveAndSettle(Work):
    name = "reserve + settle"
    journalled = 2
    round_trips = 2

    async def by_manager(self, manager: AsyncCreditManager, unique: str) -> None:
        await manager.reserve(ACCOUNT, ESTIMATE, lease_id=unique)
        await manager.settle(ACCOUNT, unique, USAGE)

    def by_thread(self, manager: CreditManager, unique: str) -> None:
        manager.reserve(ACCOUNT, ESTIMATE, lease_id=unique)
        manager.settle(ACCOUNT, unique, USAGE)

    async def by_store(self, store: CreditStore, unique: str) -> None:
        await store.reserve(ACCOUNT, unique, _HOLD.price, _TERMS, conditions=PLAIN, cause=_HOLD.cause)
        await store.settle(
            ACCOUNT, unique, _CHARGE.price, conditions=PLAIN, fingerprint=_FINGERPRINT, cause=_CHARGE.cause
        )


class GetBalance(Work):
    name = "get_balance"
    journalled = 0

    async def by_manager(self, manager: AsyncCreditManager, unique: str) -> None:
        await manager.get_balance(ACCOUNT)

    def by_thread(self, manager: CreditManager, unique: str) -> None:
        manager.get_balance(ACCOUNT)

    async def by_store(self, store: CreditStore, unique: str) -> None:
        await store.get_balance(ACCOUNT, conditions=PLAIN)


WORKS: tuple[Work, ...] = (AddCredits(), Deduct(), ReserveAndSettle(), GetBalance())


class _Recorder(AsyncLink):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.operations: list[Operation[object]] = []

    async def run(self, operation, *, timeout_seconds=None):  # type: ignore[no-untyped-def]
        self.operations.append(operation)
        return await super().run(operation, timeout_seconds=timeout_seconds)
