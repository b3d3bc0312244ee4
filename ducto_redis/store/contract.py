"""The contract between managers and engines.

Amounts are integer micro-credits, times milliseconds, and both were checked by the manager. Every method that changes
something can be repeated with the same key or lease id: it takes effect once, and the first answer is given again with
`replayed` set. A refusal changes nothing. All methods are coroutines; those of a blocking store never suspend.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import LeaseTerms, OperationKey, Page, Price, PricingState
from ducto_redis.results import (
    AddResult,
    Balance,
    DeductResult,
    ExtendResult,
    PricingVersion,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
    SweepResult,
)


class NamespaceState(Enum):
    """What a store holds of its namespace."""

    OPEN = "open"
    MISSING = "missing"
    """Nothing: it was never created, or all of its memory is gone. Only the ledger can tell which."""


class CreditStore(ABC):
    """Holds accounts, leases and pricing documents, and changes them in single atomic steps.

    Attributes:
        namespace: whose keys it uses.
        blocking: whether its coroutines block instead of suspending.
        durable: whether its data outlives this process.
        local: whether its data lives in this process, or beside it for this process alone, so that the ledger's worker
            runs here too.
    """

    namespace: Namespace
    blocking: bool
    durable: bool
    local: bool

    @abstractmethod
    async def read_namespace(self) -> NamespaceState:
        """What there is of the namespace.

        Raises:
            PartitionMismatchError: if it was created with another number of partitions.
            RecoveryNeededError: if a part of it is gone.
            StoreUnavailableError: if the engine cannot be reached.
        """

    @abstractmethod
    async def create_namespace(self) -> None:
        """Create the namespace. Several processes may do so at once: one namespace comes of it."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and servers."""

    @abstractmethod
    async def add_credits(self, account: str, amount: int, key: OperationKey, *, cause: bytes) -> AddResult:
        """Add credits to the balance.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, InvalidAmountError (over the limit), JournalFullError,
            StoreUnavailableError
        """

    @abstractmethod
    async def get_balance(self, account: str) -> Balance:
        """What the account has; zero for one that nothing ever happened to. What has fallen due is counted.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def deduct(self, account: str, price: Price, key: OperationKey, *, floor: int, cause: bytes) -> DeductResult:
        """Charge if the available credits do not fall below the floor by it.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, StalePricing, InsufficientCreditsError, JournalFullError,
            StoreUnavailableError
        """

    @abstractmethod
    async def reserve(
        self, account: str, lease_id: str, price: Price, terms: LeaseTerms, *, cause: bytes
    ) -> ReserveResult:
        """Open a lease if the available credits do not fall below its floor by it. The lease id is the key.

        Raises:
            RecoveryNeededError, IdempotencyConflictError, LeaseClosedError, StalePricing, InsufficientCreditsError,
            InvalidAmountError (over the limit), JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def settle(
        self, account: str, lease_id: str, price: Price, *, fingerprint: str, cause: bytes
    ) -> SettleResult:
        """Close the lease and charge what the work cost, from its hold and from what is available above its floor.

        Raises:
            IdempotencyConflictError (settled for something else), LeaseClosedError (released), RecoveryNeededError,
            LeaseNotFoundError, RepriceLease, StoreUnavailableError
        """

    @abstractmethod
    async def release(self, account: str, lease_id: str, *, cause: bytes) -> ReleaseResult:
        """Close the lease without a charge.

        Raises:
            LeaseClosedError (settled), RecoveryNeededError, LeaseNotFoundError, StoreUnavailableError
        """

    @abstractmethod
    async def renew(self, account: str, lease_id: str, key: OperationKey, *, ttl_ms: int) -> RenewResult:
        """Let the lease live at least `ttl_ms` from now.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, LeaseClosedError, LeaseNotFoundError, LeaseExpiredError,
            StoreUnavailableError
        """

    @abstractmethod
    async def extend(
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, cause: bytes
    ) -> ExtendResult:
        """Let the lease hold that much more, under the floor that it was admitted under.

        Raises:
            those of renew, RepriceLease, InsufficientCreditsError, InvalidAmountError (over the limit),
            JournalFullError
        """

    @abstractmethod
    async def list_leases(self, account: str, *, cursor: int = 0, count: int = 100) -> Page:
        """A page of the account's open leases. A lease may be on two pages where leases change in between.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def sweep_partition(self, partition: int, *, limit: int = 100) -> SweepResult:
        """Apply what has fallen due on at most `limit` accounts of a partition.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def publish_pricing(self, document: str, key: OperationKey, *, cause: bytes) -> PricingVersion:
        """Store the next version of the pricing document, JSON, and activate it.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def activate_pricing(self, version: int, *, cause: bytes) -> PricingVersion:
        """Make a published version the active one.

        Raises:
            ConfigError (no such version), RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def read_pricing(self, version: int = 0, *, known: int = 0) -> PricingState:
        """The active version (0) or another one; without its text where the caller knows that version.

        Raises:
            PricingNotLoadedError (none was published), ConfigError (no such version), RecoveryNeededError,
            StoreUnavailableError
        """

    @abstractmethod
    def blocking_twin(self) -> "CreditStore":
        """A store of the same accounts that blocks, for a thread of its own. It is closed by itself."""

    @abstractmethod
    def journal_ends(self) -> dict[int, tuple[int, int]]:
        """The id of the last entry of each partition's journal that has one. Blocking."""

    @abstractmethod
    def live_workers(self, group: str) -> int:
        """How many workers of a consumer group are believed alive. Blocking."""

    @abstractmethod
    def redis(self) -> Any:
        """A synchronous redis-py client of the same data, for consumers of the journal and for tools."""

    @property
    @abstractmethod
    def scripts(self) -> Any:
        """The scripts that run on `redis()`."""

    def partitions(self) -> Sequence[int]:
        """The numbers of the namespace's partitions."""
        return range(self.namespace.partitions)
