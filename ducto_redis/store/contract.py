"""The contract between managers and engines.

Amounts are integer micro-credits, times milliseconds, and both were checked by the manager. Every method that changes
something can be repeated with the same key or lease id: it takes effect once, and the first result is given again with
`replayed` set. A refusal changes nothing. All methods are coroutines; those of a blocking store never suspend.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import (
    PLAIN,
    CapRule,
    Charge,
    Conditions,
    LeaseTerms,
    NewGrant,
    OperationKey,
    Page,
    Price,
    PricingState,
)
from ducto_redis.errors import ConfigError
from ducto_redis.results import (
    AccountChange,
    AccountDescription,
    AddResult,
    AdjustResult,
    Balance,
    DeductResult,
    ExtendResult,
    LeaseStatus,
    PricingVersion,
    RefundResult,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
    SweepResult,
)


class NamespaceState(Enum):
    """The state of a namespace in a store."""

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
        """Return the state of the namespace.

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
    async def add_credits(
        self, account: str, grant: NewGrant, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AddResult:
        """Add credits: to the balance's pool, or as a grant of their own where they expire or have a priority.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, TermsNeeded, InvalidAmountError (over the limit, or more than
            256 grants), ConfigError (they have expired already), JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def adjust_credits(
        self, account: str, amount: int, key: OperationKey, *, force: bool, conditions: Conditions, cause: bytes
    ) -> AdjustResult:
        """Correct the balance by a signed amount; below what is available only with `force`.

        Raises:
            those of add_credits, InsufficientCreditsError
        """

    @abstractmethod
    async def refund(
        self,
        account: str,
        charge: Charge,
        amount: int | None,
        key: OperationKey,
        *,
        expired_to_balance: bool,
        cause: bytes,
    ) -> RefundResult:
        """Give a charge back, all that is left of it or `amount`, to where it came from.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, RefundError (more than is left), InvalidAmountError (over the
            limit), JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def read_entry(self, partition: int, entry_id: str) -> JournalEntry | None:
        """Return an entry that the partition's journal still holds, or None. Raises StoreUnavailableError."""

    @abstractmethod
    async def get_balance(self, account: str, *, conditions: Conditions) -> Balance:
        """Return the account's balance, as it would be with what is due; a new account's is what it would begin with.

        Raises:
            RecoveryNeededError, TermsNeeded, StoreUnavailableError
        """

    @abstractmethod
    async def describe(self, account: str, *, conditions: Conditions) -> AccountDescription:
        """Return all that the account is, as it stands now. What has fallen due is counted, and nothing is written.

        Raises:
            RecoveryNeededError, TermsNeeded, StoreUnavailableError
        """

    @abstractmethod
    async def deduct(
        self, account: str, price: Price, key: OperationKey, *, floor: int, conditions: Conditions, cause: bytes
    ) -> DeductResult:
        """Charge if allowance and available credits together do not fall below the floor by it.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, StalePricing, TermsNeeded, AccountFrozenError,
            MemberNotFoundError, CapReachedError, InsufficientCreditsError, JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def reserve(
        self,
        account: str,
        lease_id: str,
        price: Price,
        terms: LeaseTerms,
        *,
        conditions: Conditions,
        cause: bytes,
        dry_run: bool = False,
    ) -> ReserveResult:
        """Open a lease if allowance and available credits together do not fall below its floor by it. The lease id is
        the key. With `dry_run` nothing is written: the result is what would be.

        With a parent among the conditions it is opened inside that lease: its hold is taken out of the parent's.

        Raises:
            RecoveryNeededError, IdempotencyConflictError, LeaseClosedError, StalePricing, TermsNeeded,
            AccountFrozenError, MemberNotFoundError, ConcurrencyLimitError, CapReachedError, InsufficientCreditsError,
            InvalidAmountError (over the limit), JournalFullError, StoreUnavailableError; with a parent also
            LeaseNotFoundError, LeaseExpiredError, LeaseClosedError (all of the parent), ConfigError (too deep),
            RepriceLease
        """

    @abstractmethod
    async def settle(
        self, account: str, lease_id: str, price: Price, *, conditions: Conditions, fingerprint: str, cause: bytes
    ) -> SettleResult:
        """Close the lease and charge what the work cost, from its hold and from what is available above its floor.

        Of the conditions plan, models, low_levels and skip_allowance count.

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
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> ExtendResult:
        """Let the lease hold that much more, under the floor that it was admitted under, for the same member.

        Raises:
            those of renew, RepriceLease, TermsNeeded, AccountFrozenError, CapReachedError, InsufficientCreditsError,
            InvalidAmountError (over the limit), JournalFullError
        """

    @abstractmethod
    async def set_plan(
        self, account: str, plan: str, time_zone: str, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AccountChange:
        """Assign a plan, or take it away (""). The conditions hold the new plan's terms. An empty time zone leaves the
        account's own as it is.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, TermsNeeded (of the new plan), JournalFullError,
            StoreUnavailableError
        """

    @abstractmethod
    async def set_cap(
        self, account: str, rule: CapRule, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AccountChange:
        """Set a spend cap. One of the same scope, window, kind (calendar or rolling), time zone and action gets the
        new limit, and keeps what it has counted.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, TermsNeeded (bounds of its window), MemberNotFoundError,
            InvalidAmountError (more than 16 of a scope), JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def remove_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        """Remove a spend cap of the account's own. Raises CapNotFoundError and what set_cap raises."""

    @abstractmethod
    async def raise_cap(
        self,
        account: str,
        scope: str,
        cap_id: str,
        limit: int,
        until_ms: int,
        key: OperationKey,
        *,
        conditions: Conditions = PLAIN,
        cause: bytes,
    ) -> AccountChange:
        """Give a spend cap another limit until a time, then its own again. Raises what remove_cap raises.

        `conditions`, of raise_cap and clear_cap, are needed for a cap of the plan that the account did not spend
        against yet: with them the terms are asked for, as by set_cap.
        """

    @abstractmethod
    async def clear_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> AccountChange:
        """Forget what was used of a spend cap's window; what is held stays. Raises what remove_cap raises."""

    @abstractmethod
    async def freeze(
        self, account: str, reason: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> AccountChange:
        """Freeze an account, or, with an empty reason, let it spend again.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, TermsNeeded (of a new account), StoreUnavailableError
        """

    @abstractmethod
    async def create_team(
        self, account: str, name: str, owner: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        """Make an account a team with its first member, the owner ("" for none). It gets no plan and no bonus by that.

        Raises:
            IdempotencyConflictError, RecoveryNeededError, ConfigError (it is a team already), JournalFullError,
            StoreUnavailableError
        """

    @abstractmethod
    async def set_member(
        self, account: str, member: str, role: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        """Add a member, change a member's role, or remove a member (role `removed`).

        Raises:
            TeamNotFoundError, MemberNotFoundError (nobody to remove), ConfigError (the last owner cannot go),
            IdempotencyConflictError, RecoveryNeededError, JournalFullError, StoreUnavailableError
        """

    @abstractmethod
    async def list_leases(self, account: str, *, cursor: int = 0, count: int = 100) -> Page:
        """Return a page of the account's open leases. A lease may be on two pages where leases change in between.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def find_lease(self, account: str, lease_id: str) -> LeaseStatus | None:
        """Return the state of a lease; None where there is none of that id, or it was closed too long ago.

        Raises:
            RecoveryNeededError, StoreUnavailableError
        """

    @abstractmethod
    async def keep_value(
        self, account: str | None, name: str, value: bytes, *, ttl_ms: int, replaces: bytes | None = None
    ) -> bytes:
        """Keep a value beside the account for `ttl_ms`, or, with None for the account, beside none of them. It is no
        part of the account: it has no entry, and whatever rebuilds accounts from their entries does not bring it back.

        Args:
            value: 1 to 2**20 bytes of any kind.
            replaces: only where this is what is kept, b"" for nothing; None: whatever is kept. A call that is made
                again after it took effect takes effect.

        Returns:
            What is kept now: `value`, or another that was not to be replaced.

        Raises:
            StoreUnavailableError, StoreError (there is no room)
        """

    @abstractmethod
    async def kept_value(self, account: str | None, name: str) -> bytes | None:
        """Return the value of that name that is kept beside the account, or None. Raises StoreUnavailableError."""

    @abstractmethod
    async def sweep_partition(
        self, partition: int, *, limit: int = 100, dry_run: bool = False, skip: int = 0
    ) -> SweepResult:
        """Apply what has fallen due on at most `limit` accounts of a partition.

        With `dry_run` say what would be, without the first `skip` accounts: they stay due.

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
        """Return the active version (0) or another one; without its text where the caller knows that version.

        Raises:
            PricingNotLoadedError (none was published), ConfigError (no such version), RecoveryNeededError,
            StoreUnavailableError
        """

    async def signal(self, account: str, event: bytes, *, unheard: bool = False) -> bool:
        """Tell those who listen that something was refused to the account, as an event in JSON. Nothing else changes.

        A store may leave it as it is, if it has nobody to tell.

        Args:
            unheard: whether it is kept for a while where nobody listens now.

        Returns:
            Whether it was told, or kept.

        Raises:
            StoreError
        """
        return False

    def partitions(self) -> Sequence[int]:
        """Return the numbers of the namespace's partitions."""
        return range(self.namespace.partitions)


class JournalledStore(CreditStore):
    """A store whose journal is streams of a Redis, which consumers read: workers of the ledger, handlers, `ducto`.

    A manager with a ledger needs one; without, any `CreditStore` will do.
    """

    @abstractmethod
    def blocking_twin(self) -> "JournalledStore":
        """Return a store of the same accounts that blocks, for a thread of its own. It is closed by itself."""

    @abstractmethod
    def journal_ends(self) -> dict[int, tuple[int, int]]:
        """Return the id of the last entry of each partition's journal that has one. Blocking."""

    @abstractmethod
    def live_workers(self, group: str) -> int:
        """Return the number of workers of a consumer group that are believed alive. Blocking."""

    @abstractmethod
    def redis(self) -> Any:
        """Return a synchronous redis-py client of the same data, for consumers of the journal and for tools."""

    @property
    @abstractmethod
    def scripts(self) -> Any:
        """The scripts that run on `redis()`."""


def journalled(store: CreditStore, what: str) -> JournalledStore:
    """Return the store, where its journal can be read by consumers.

    Args:
        store: any store.
        what: what needs the journal, for the message.

    Raises:
        ConfigError: if it is no `JournalledStore`.
    """
    if not isinstance(store, JournalledStore):
        raise ConfigError(f"{what} reads the journal, and {type(store).__name__} has none that consumers can read")
    return store
