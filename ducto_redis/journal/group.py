"""A consumer group of the journal: the commands that consumers give, each one script or plain read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from redis.exceptions import NoScriptError

from ducto_redis.engine.ids import check_id
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.scripts import Script, Scripts, run_script
from ducto_redis.errors import ConfigError, ConsumerGroupLostError, RecoveryNeededError
from ducto_redis.store.contract import CreditStore, journalled

LEDGER_GROUP = "ledger"
NEW = ">"
FIRST = "0-0"
_REASON_CHARACTERS = 2000


class JournalStore(Protocol):
    """The part of a store that consumers need."""

    namespace: Namespace

    @property
    def scripts(self) -> Scripts: ...

    def redis(self) -> Any: ...


class Read(Struct, frozen=True):
    """The outcome of a read.

    Attributes:
        status: "ok", "idle" (nothing more now), "lost" (another worker owns the partition) or "recreated" (the group
            was gone and begins anew).
        entries: entry ids and texts; a text is empty where the entry was deleted from the journal.
        last_id: where it is idle, the journal's last id.
    """

    status: str
    entries: Sequence[tuple[str, bytes]] = ()
    last_id: str = FIRST


class Group:
    """One consumer group of a namespace's journal. Raises redis-py's errors where the server cannot be reached.

    Args:
        store: whose journal it is.
        name: the group's name.

    Raises:
        ConfigError: if the store has no journal that consumers can read.
    """

    def __init__(self, store: JournalStore | CreditStore, name: str) -> None:
        self.name = check_id(name, "a consumer group")
        if isinstance(store, CreditStore):
            store = journalled(store, f"consumer group {name!r}")
        self.client = store.redis()
        self.namespace = store.namespace
        self._scripts = store.scripts
        self.partitions = range(self.namespace.partitions)

    def register(self) -> None:
        """Register the group in every partition, from the journal's beginning. Raises RecoveryNeededError."""
        calls = [
            ((self.namespace.meta(partition), self.namespace.journal(partition)), (self.name,))
            for partition in self.partitions
        ]
        for partition, reply in zip(self.partitions, self._run_all("register_group", calls), strict=True):
            self._check(partition, reply)

    def forget(self) -> bool:
        """Remove the group. Returns whether it was registered anywhere."""
        calls = [
            (
                (
                    self.namespace.meta(partition),
                    self.namespace.journal(partition),
                    self.namespace.claim(partition, self.name),
                ),
                (self.name,),
            )
            for partition in self.partitions
        ]
        return any(self._run_all("forget_group", calls))

    def join(self, worker_id: str, alive_ms: int) -> list[str]:
        """Say that a worker is alive, or with 0 that it leaves. Returns who is alive, sorted."""
        workers = self._run("join_workers", (self.namespace.workers(self.name),), (worker_id, alive_ms))
        return sorted(worker.decode() for worker in workers)

    def claim(self, worker_id: str, tokens: Mapping[int, str], claim_ms: int) -> dict[int, str]:
        """Claim partitions, or go on owning those whose token is given.

        Returns:
            The tokens of those that the worker owns now.

        Raises:
            RecoveryNeededError: if a partition's own record is gone.
            ConsumerGroupLostError: if the group is not registered there.
        """
        calls = [
            (
                (self.namespace.claim(partition, self.name), self.namespace.meta(partition)),
                (self.name, worker_id, token, claim_ms),
            )
            for partition, token in tokens.items()
        ]
        owned = {}
        for partition, reply in zip(tokens, self._run_all("claim_partition", calls), strict=True):
            self._check(partition, reply)
            if reply:
                owned[partition] = reply.decode()
        return owned

    def release(self, tokens: Mapping[int, str]) -> None:
        """Give partitions back."""
        calls = [((self.namespace.claim(partition, self.name),), (token,)) for partition, token in tokens.items()]
        self._run_all("release_partition", calls)

    def has_new(self, last_ids: Mapping[int, str]) -> set[int]:
        """Return the partitions whose journal holds entries above the id. Plain reads, cheaper than `read`."""
        if not last_ids:
            return set()
        pipeline = self.client.pipeline(transaction=False)
        for partition, last_id in last_ids.items():
            pipeline.xread({self.namespace.journal(partition): last_id}, count=1)
        return {partition for partition, reply in zip(last_ids, pipeline.execute(), strict=True) if reply}

    def read(self, wanted: Mapping[int, tuple[str, str]], count: int) -> dict[int, Read]:
        """Read entries of several partitions.

        Args:
            wanted: by partition the claim's token, and `NEW` or the id above which pending entries are read again.
            count: entries of each at the most.

        Raises:
            RecoveryNeededError, ConsumerGroupLostError
        """
        calls = [
            (
                (
                    self.namespace.journal(partition),
                    self.namespace.claim(partition, self.name),
                    self.namespace.meta(partition),
                ),
                (self.name, token, position, count),
            )
            for partition, (token, position) in wanted.items()
        ]
        reads = {}
        for partition, (status, *rest) in zip(wanted, self._run_all("read_entries", calls), strict=True):
            self._check(partition, status)
            if status == b"idle":
                reads[partition] = Read("idle", last_id=rest[0].decode())
            else:
                entries = [(entry_id.decode(), text) for entry_id, text in zip(rest[::2], rest[1::2], strict=True)]
                reads[partition] = Read(status.decode(), entries)
        return reads

    def acknowledge(self, partition: int, token: str, entry_ids: Iterable[str]) -> bool:
        """Say that entries are done with. False where another worker owns the partition now."""
        keys = (
            self.namespace.journal(partition),
            self.namespace.claim(partition, self.name),
            self.namespace.meta(partition),
        )
        return bool(self._run("acknowledge", keys, (self.name, token, *entry_ids)) == b"ok")

    def dead_letter(self, partition: int, token: str, entry: tuple[str, bytes], reason: str, attempts: int) -> bool:
        """Give an entry up, for a reason that may be any text. False where another worker owns the partition now."""
        keys = (
            self.namespace.journal(partition),
            self.namespace.claim(partition, self.name),
            self.namespace.meta(partition),
            self.namespace.dead_letters(partition, self.name),
        )
        kept = reason[:_REASON_CHARACTERS].encode(errors="backslashreplace")
        return bool(self._run("dead_letter", keys, (self.name, token, *entry, kept, attempts)) == b"ok")

    def lag(self) -> dict[int, int]:
        """Return the number of entries that the group has not acknowledged, by partition."""
        calls = [((self.namespace.journal(partition),), (self.name,)) for partition in self.partitions]
        return dict(zip(self.partitions, self._run_all("journal_lag", calls), strict=True))

    def _check(self, partition: int, status: bytes) -> None:
        place = f"partition {partition} of namespace {self.namespace.name!r}"
        if status == b"recovery_needed":
            raise RecoveryNeededError(
                f"{place} is not open: it was never created, or its server lost its memory. Start an application on it,"
                " or restore the server's data (AOF, RDB or a replica)"
            )
        if status == b"unregistered":
            raise ConsumerGroupLostError(
                f"the group {self.name!r} is not registered in {place}: it was forgotten, or Redis is older than its"
                " registration. Start the consumer again: it registers and reads the journal from its beginning"
            )

    def _run(self, name: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        return run_script(self.client, self._scripts[name], keys, args)

    def _run_all(self, name: str, calls: Sequence[tuple[Sequence[bytes], Sequence[bytes | str | int]]]) -> list[Any]:
        """Run a script several times in one round trip."""
        if not calls:
            return []
        script: Script = self._scripts[name]
        pipeline = self.client.pipeline(transaction=False)
        for keys, args in calls:
            pipeline.evalsha(script.sha.decode(), len(keys), *keys, *args)
        replies = pipeline.execute(raise_on_error=False)
        for index, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                replies[index] = run_script(self.client, script, *calls[index])
            elif isinstance(reply, Exception):
                raise reply
        return list(replies)


def forget_group(store: JournalStore | CreditStore, group: str) -> bool:
    """Remove a consumer group for good, so that the journal no longer keeps entries for it. Returns whether it existed.

    Raises:
        ConfigError: for the ledger's group, which always is.
    """
    if group == LEDGER_GROUP:
        raise ConfigError("the group 'ledger' cannot be removed: the journal is trimmed only below what the ledger has")
    return Group(store, group).forget()
