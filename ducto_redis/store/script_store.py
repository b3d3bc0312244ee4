"""Stores whose rules are the Lua scripts, whatever runs them."""

import secrets
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, TypeVar

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import (
    PLAIN,
    CapRule,
    Charge,
    Conditions,
    LeaseTerms,
    NewGrant,
    Operation,
    OperationKey,
    Page,
    PartitionRecord,
    Price,
    PricingState,
)
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.refusals import MoreIsDue
from ducto_redis.engine.scripts import Script, Scripts
from ducto_redis.errors import CreditError, PartitionMismatchError, RecoveryNeededError, StoreUnavailableError
from ducto_redis.money import from_micro
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
from ducto_redis.store.contract import CreditStore, NamespaceState

R = TypeVar("R")

DEFAULT_JOURNAL_LIMIT = 1_000_000
"""Entries in a partition's journal above which nothing new is admitted."""

_SIGNALS_KEPT = 1000
_OPEN = "open"
_CREATING = "creating"


class OperationStore(CreditStore):
    """A store whose methods are operations: a script, its keys, its arguments, and how its reply is read.

    Attributes:
        journal_limit: entries in a partition's journal above which nothing new is admitted.
        operations: makes the operations of its namespace.
    """

    def __init__(self, namespace: Namespace, scripts: Scripts, *, journal_limit: int = DEFAULT_JOURNAL_LIMIT) -> None:
        self.namespace = namespace
        self.journal_limit = journal_limit
        self.operations = Operations(namespace, scripts)

    @abstractmethod
    def run(self, operation: Operation[R]) -> Awaitable[R]:
        """Run an operation as one atomic step, again as long as more is due, and return its result.

        Raises:
            CreditError: what the operation's refusals mean.
            StoreUnavailableError: if the engine did not answer; whether it took effect is unknown.
        """

    @property
    def scripts(self) -> Scripts:
        """The scripts that it runs."""
        return self.operations.scripts

    async def read_namespace(self) -> NamespaceState:
        run, operations = self.run, self.operations
        first = await run(operations.read_partition(0))
        if first is not None:
            self._check_partitions(first)
        if first is not None and first.state != _OPEN:
            # Somebody is creating it, or died while doing so: finishing it is safe.
            await self._finish(first.namespace_id)
            return NamespaceState.OPEN
        missing = []
        for partition in range(1, self.namespace.partitions):
            record = await run(operations.read_partition(partition))
            if record is None or (first is not None and record.namespace_id != first.namespace_id):
                missing.append(partition)
        if first is None and len(missing) == self.namespace.partitions - 1:
            return NamespaceState.MISSING
        if first is None and await run(operations.read_partition(0)) is not None:
            return await self.read_namespace()  # somebody created it in between: partition 0 is written first
        if first is None or missing:
            lost = ", ".join(map(str, missing if first is not None else [0, *missing]))
            raise RecoveryNeededError(
                f"the records of partition {lost} of namespace {self.namespace.name!r} are gone: a server lost its"
                " memory. Restore its data (AOF, RDB or a replica), then try again"
            )
        return NamespaceState.OPEN

    async def create_namespace(self) -> None:
        winner = await self.run(self.operations.create_partition(0, secrets.token_hex(8), _CREATING))
        await self._finish(winner)

    async def _finish(self, namespace_id: str) -> None:
        # Partition 0 is opened last: while it is not, whoever connects finishes what was begun.
        for partition in range(self.namespace.partitions - 1, -1, -1):
            await self.run(self.operations.create_partition(partition, namespace_id, _OPEN))

    def _check_partitions(self, record: PartitionRecord) -> None:
        if record.partitions != self.namespace.partitions:
            raise PartitionMismatchError(
                f"namespace {self.namespace.name!r} was created with {record.partitions} partitions, not with"
                f" {self.namespace.partitions}: their number is fixed; connect with partitions={record.partitions}"
            )

    async def add_credits(
        self, account: str, grant: NewGrant, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AddResult:
        return await self.run(
            self.operations.add_credits(
                account, grant, key, conditions=conditions, cause=cause, journal_limit=self.journal_limit
            )
        )

    async def adjust_credits(
        self, account: str, amount: int, key: OperationKey, *, force: bool, conditions: Conditions, cause: bytes
    ) -> AdjustResult:
        return await self.run(
            self.operations.adjust_credits(
                account,
                amount,
                key,
                force=force,
                conditions=conditions,
                cause=cause,
                journal_limit=self.journal_limit,
            )
        )

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
        return await self.run(
            self.operations.refund(
                account,
                charge,
                amount,
                key,
                expired_to_balance=expired_to_balance,
                cause=cause,
                journal_limit=self.journal_limit,
            )
        )

    async def read_entry(self, partition: int, entry_id: str) -> JournalEntry | None:
        return await self.run(self.operations.read_entry(partition, entry_id))

    async def get_balance(self, account: str, *, conditions: Conditions) -> Balance:
        return await self.run(self.operations.get_balance(account, conditions=conditions))

    async def describe(self, account: str, *, conditions: Conditions) -> AccountDescription:
        return await self.run(self.operations.describe(account, conditions=conditions))

    async def deduct(
        self, account: str, price: Price, key: OperationKey, *, floor: int, conditions: Conditions, cause: bytes
    ) -> DeductResult:
        return await self.run(
            self.operations.deduct(
                account,
                price,
                key,
                floor=floor,
                conditions=conditions,
                cause=cause,
                journal_limit=self.journal_limit,
            )
        )

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
        return await self.run(
            self.operations.reserve(
                account,
                lease_id,
                price,
                terms,
                conditions=conditions,
                cause=cause,
                journal_limit=self.journal_limit,
                dry_run=dry_run,
            )
        )

    async def settle(
        self, account: str, lease_id: str, price: Price, *, conditions: Conditions, fingerprint: str, cause: bytes
    ) -> SettleResult:
        return await self.run(
            self.operations.settle(
                account, lease_id, price, conditions=conditions, fingerprint=fingerprint, cause=cause
            )
        )

    async def release(self, account: str, lease_id: str, *, cause: bytes) -> ReleaseResult:
        return await self.run(self.operations.release(account, lease_id, cause=cause))

    async def renew(self, account: str, lease_id: str, key: OperationKey, *, ttl_ms: int) -> RenewResult:
        return await self.run(self.operations.renew(account, lease_id, key, ttl_ms=ttl_ms))

    async def extend(
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> ExtendResult:
        return await self.run(
            self.operations.extend(
                account,
                lease_id,
                price,
                key,
                conditions=conditions,
                cause=cause,
                journal_limit=self.journal_limit,
            )
        )

    async def set_plan(
        self, account: str, plan: str, time_zone: str, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.set_plan(
                account, plan, time_zone, key, conditions=conditions, cause=cause, journal_limit=self.journal_limit
            )
        )

    async def set_cap(
        self, account: str, rule: CapRule, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.set_cap(
                account, rule, key, conditions=conditions, cause=cause, journal_limit=self.journal_limit
            )
        )

    async def remove_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.remove_cap(account, scope, cap_id, key, cause=cause, journal_limit=self.journal_limit)
        )

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
        return await self.run(
            self.operations.raise_cap(
                account,
                scope,
                cap_id,
                limit,
                until_ms,
                key,
                conditions=conditions,
                cause=cause,
                journal_limit=self.journal_limit,
            )
        )

    async def clear_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.clear_cap(
                account, scope, cap_id, key, conditions=conditions, cause=cause, journal_limit=self.journal_limit
            )
        )

    async def freeze(
        self, account: str, reason: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> AccountChange:
        return await self.run(self.operations.freeze(account, reason, key, conditions=conditions, cause=cause))

    async def create_team(
        self, account: str, name: str, owner: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.create_team(account, name, owner, key, cause=cause, journal_limit=self.journal_limit)
        )

    async def set_member(
        self, account: str, member: str, role: str, key: OperationKey, *, cause: bytes
    ) -> AccountChange:
        return await self.run(
            self.operations.set_member(account, member, role, key, cause=cause, journal_limit=self.journal_limit)
        )

    async def list_leases(self, account: str, *, cursor: int = 0, count: int = 100) -> Page:
        return await self.run(self.operations.list_leases(account, cursor=cursor, count=count))

    async def find_lease(self, account: str, lease_id: str) -> LeaseStatus | None:
        return await self.run(self.operations.find_lease(account, lease_id))

    async def keep_value(
        self, account: str | None, name: str, value: bytes, *, ttl_ms: int, replaces: bytes | None = None
    ) -> bytes:
        return await self.run(self.operations.keep_value(account, name, value, ttl_ms=ttl_ms, replaces=replaces))

    async def kept_value(self, account: str | None, name: str) -> bytes | None:
        return await self.run(self.operations.kept_value(account, name))

    async def sweep_partition(
        self, partition: int, *, limit: int = 100, dry_run: bool = False, skip: int = 0
    ) -> SweepResult:
        accounts = await self.run(self.operations.due_accounts(partition, limit, skip))
        leases = grants = credits = 0
        failed: CreditError | None = None
        for account in accounts:
            try:
                more = True
                while more:
                    swept = await self.run(self.operations.sweep(account, dry_run=dry_run))
                    leases += swept.leases
                    grants += swept.grants
                    credits += swept.credits
                    more = swept.more and not dry_run
            except StoreUnavailableError:
                raise
            except CreditError as error:  # one account that cannot be swept must not keep the others from it
                failed = failed or error
        if failed is not None:
            raise failed
        return SweepResult(
            accounts=len(accounts),
            leases_expired=leases,
            grants_expired=grants,
            credits_expired=from_micro(credits),
        )

    async def publish_pricing(self, document: str, key: OperationKey, *, cause: bytes) -> PricingVersion:
        return await self.run(self.operations.publish_pricing(document, key, cause=cause))

    async def activate_pricing(self, version: int, *, cause: bytes) -> PricingVersion:
        return await self.run(self.operations.activate_pricing(version, cause=cause))

    async def read_pricing(self, version: int = 0, *, known: int = 0) -> PricingState:
        return await self.run(self.operations.read_pricing(version, known=known))

    async def signal(self, account: str, event: bytes, *, unheard: bool = False) -> bool:
        return await self.run(self.operations.signal(account, event, _SIGNALS_KEPT, unheard=unheard))


class ScriptStore(OperationStore):
    """A store that brings its own storage for the scripts: what a store for another database begins with.

    A subclass writes `execute`, `close` and the attributes of a `CreditStore`; docs/custom-stores.md shows one.

    Args:
        namespace: whose keys it uses.
        scripts: of `load_scripts`.
        journal_limit: entries in a partition's journal above which nothing new is admitted.
    """

    async def run(self, operation: Operation[R]) -> R:
        while True:
            reply = await self.execute(operation.script, operation.keys, operation.args)
            try:
                return operation.result(reply)
            except MoreIsDue:  # a step stays short: what is left of it is done by the same operation again
                continue

    @abstractmethod
    async def execute(self, script: Script, keys: tuple[bytes, ...], args: tuple[str | bytes | int, ...]) -> Any:
        """Run a script as one atomic step: nobody sees half of it, and where it fails nothing of it is kept.

        Args:
            script: its `text` is Lua that takes `KEYS`, `ARGV` and `redis.call`, as Redis gives them.
            keys: all that it touches; they belong to one partition.
            args: a number stands for its text.

        Returns:
            The reply, as Redis gives it: bytes, an int, None, or a list of these.

        Raises:
            StoreError: if the script failed. StoreUnavailableError: if the storage could not be reached.
        """
