"""Stores whose rules are the Lua scripts, whatever runs them."""

import secrets
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import Operation, PartitionRecord
from ducto_redis.engine.operations import DEFAULT_JOURNAL_LIMIT, Operations
from ducto_redis.engine.refusals import MoreIsDue
from ducto_redis.engine.scripts import Script, Scripts
from ducto_redis.errors import CreditError, PartitionMismatchError, RecoveryNeededError, StoreUnavailableError
from ducto_redis.money import from_micro
from ducto_redis.results import SweepResult
from ducto_redis.store.contract import CreditStore, NamespaceState

P = ParamSpec("P")
R = TypeVar("R")

_OPEN = "open"
_CREATING = "creating"


def _runs(
    make: Callable[Concatenate[Operations, P], Operation[R]],
) -> Callable[Concatenate["OperationStore", P], Coroutine[Any, Any, R]]:
    """Return the method of a store that runs an operation, with the operation's own arguments."""

    def method(self: "OperationStore", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self.run(make(self.operations, *args, **kwargs))

    return method


class OperationStore(CreditStore):
    """A store whose methods are operations: a script, its keys, its arguments, and how its reply is read.

    Args:
        operations: the operations of its namespace.
    """

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.namespace = operations.namespace

    @abstractmethod
    def run(self, operation: Operation[R]) -> Coroutine[Any, Any, R]:
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

    add_credits = _runs(Operations.add_credits)
    adjust_credits = _runs(Operations.adjust_credits)
    refund = _runs(Operations.refund)
    read_entry = _runs(Operations.read_entry)
    get_balance = _runs(Operations.get_balance)
    describe = _runs(Operations.describe)
    deduct = _runs(Operations.deduct)
    reserve = _runs(Operations.reserve)
    settle = _runs(Operations.settle)
    release = _runs(Operations.release)
    renew = _runs(Operations.renew)
    extend = _runs(Operations.extend)
    set_plan = _runs(Operations.set_plan)
    set_cap = _runs(Operations.set_cap)
    remove_cap = _runs(Operations.remove_cap)
    raise_cap = _runs(Operations.raise_cap)
    clear_cap = _runs(Operations.clear_cap)
    freeze = _runs(Operations.freeze)
    create_team = _runs(Operations.create_team)
    set_member = _runs(Operations.set_member)
    list_leases = _runs(Operations.list_leases)
    find_lease = _runs(Operations.find_lease)
    keep_value = _runs(Operations.keep_value)
    kept_value = _runs(Operations.kept_value)
    publish_pricing = _runs(Operations.publish_pricing)
    activate_pricing = _runs(Operations.activate_pricing)
    read_pricing = _runs(Operations.read_pricing)
    signal = _runs(Operations.signal)

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


class ScriptStore(OperationStore):
    """A store that brings its own storage for the scripts: what a store for another database begins with.

    A subclass writes `execute`, `close` and the attributes of a `CreditStore`; docs/custom-stores.md shows one.

    Args:
        namespace: whose keys it uses.
        scripts: of `load_scripts`.
        journal_limit: entries in a partition's journal above which nothing new is admitted.
    """

    def __init__(self, namespace: Namespace, scripts: Scripts, *, journal_limit: int = DEFAULT_JOURNAL_LIMIT) -> None:
        super().__init__(Operations(namespace, scripts, journal_limit=journal_limit))

    async def run(self, operation: Operation[R]) -> R:
        while True:
            reply = await self.execute(operation.script, operation.keys, operation.args)
            try:
                return operation.result(reply)
            except MoreIsDue:  # a step stays short: the rest is done by a sweep, or by the same operation again
                sweep = operation.sweep
                if sweep is not None:
                    await self.execute(sweep.script, sweep.keys, sweep.args)

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
