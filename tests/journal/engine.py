"""Changes to accounts, made through a blocking store, without a manager."""

from ducto_redis.engine.operation import PLAIN, LeaseTerms, NewGrant, OperationKey, Price
from ducto_redis.run_sync import run_sync
from ducto_redis.store.contract import CreditStore

KEPT_MS = 3_600_000


class Engine:
    """A namespace with accounts to change."""

    def __init__(self, store: CreditStore) -> None:
        self.store = store
        self._keys = 0

    def create(self) -> None:
        run_sync(self.store.create_namespace())

    def add(self, account: str, amount: int = 1, key: str = "") -> None:
        self._keys += 1
        operation_key = OperationKey(f"key/{key or self._keys}", KEPT_MS, "f")
        run_sync(
            self.store.add_credits(account, NewGrant(amount, "purchase"), operation_key, conditions=PLAIN, cause=b"")
        )

    def deduct(self, account: str, amount: int = 1) -> None:
        self._keys += 1
        operation_key = OperationKey(f"key/{self._keys}", KEPT_MS, "f")
        run_sync(self.store.deduct(account, Price(amount), operation_key, floor=0, conditions=PLAIN, cause=b""))

    def reserve(self, account: str, lease_id: str, amount: int, *, ttl_ms: int = 600_000) -> None:
        terms = LeaseTerms(
            floor=0,
            ttl_ms=ttl_ms,
            on_expiry="release",
            operation_type="chat",
            owner="test",
            metadata=b"",
            fingerprint="f",
        )
        run_sync(self.store.reserve(account, lease_id, Price(amount), terms, conditions=PLAIN, cause=b""))

    def settle(self, account: str, lease_id: str, amount: int) -> None:
        run_sync(self.store.settle(account, lease_id, Price(amount), conditions=PLAIN, fingerprint="f", cause=b""))

    def accounts_of(self, partition: int, count: int = 1) -> list[str]:
        """Names of accounts that belong to a partition."""
        names = (f"account-{number}" for number in range(1_000_000))
        its = (name for name in names if self.store.namespace.partition_of(name) == partition)
        return [next(its) for _ in range(count)]

    def journal_length(self, partition: int) -> int:
        length: int = self.store.redis().xlen(self.store.namespace.journal(partition))
        return length
