"""The contents of a `JournalledStore`, read from outside: its keys, its journal, and their agreement."""

from itertools import chain
from typing import Any

from ducto_redis.engine.entry import ENTRY_FIELD, JournalEntry, decode_entry
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.keys import AccountKeys, Namespace
from ducto_redis.engine.state import AccountState
from ducto_redis.store.contract import JournalledStore

BY_ITSELF = frozenset({"expire", "expire_grant", "forget", "open_account", "sweep"})
"""The operations that nobody asks for: time has passed, an account is new, a lease has closed."""


class Snapshot:
    """Every key of a namespace with its value. Consumer groups are not part of it."""

    def __init__(self, namespace: Namespace, values: dict[bytes, Any]) -> None:
        self.namespace = namespace
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def journal(self) -> list[JournalEntry]:
        """Return the entries of all journals: partition by partition, each in order."""
        partitions = range(self.namespace.partitions)
        return list(chain.from_iterable(self._partition_journal(partition) for partition in partitions))

    def account(self, account: str) -> AccountState:
        """Return the account's own keys."""
        fields, leases = (self.values.get(key, {}) for key in self._keys(account).keys[:2])
        return AccountState(_text(fields), _text(leases))

    def check(self) -> None:
        """Assert what `assert_fold` says."""
        histories: dict[str, list[JournalEntry]] = {}
        for entry in self.journal():
            histories.setdefault(entry.account, []).append(entry)
        due: dict[tuple[int, bytes], float] = {}
        for account, entries in histories.items():
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1)), f"seq of {account!r}"
            folded, stored = AccountState.fold(entries), self.account(account)
            assert folded.fields == stored.fields, f"fields of {account!r}"
            assert folded.leases == stored.leases, f"leases of {account!r}"
            assert stored.balance == sum(entry.balance_change for entry in entries), f"balance of {account!r}"
            assert stored.held == stored.held_by_leases, f"held of {account!r}"
            if stored.fields.get("due"):
                due[self._keys(account).partition, account.encode()] = float(stored.fields["due"])
        known = {key for account in histories for key in self._keys(account).keys[:2]}
        owned = {key for key in self.values if b"}:account:" in key or b"}:leases:" in key}
        assert owned <= known, "keys of accounts without a history"
        assert self._due_accounts() == due, "due accounts"

    def _partition_journal(self, partition: int) -> list[JournalEntry]:
        raw = self.values.get(self.namespace.journal(partition), [])
        return [decode_entry(partition, entry_id.decode(), fields[ENTRY_FIELD]) for entry_id, fields in raw]

    def _due_accounts(self) -> dict[tuple[int, bytes], float]:
        return {
            (partition, account): time
            for partition in range(self.namespace.partitions)
            for account, time in self.values.get(self.namespace.due(partition), [])
        }

    def _keys(self, account: str) -> AccountKeys:
        return self.namespace.reserved if account == RESERVED_ACCOUNT else self.namespace.account(account)


def keys_of(store: JournalledStore) -> list[bytes]:
    """Return all keys of the store's namespace."""
    prefix = store.namespace.name.encode() + b":{"
    pattern = b"".join(b"\\%c" % byte if byte in b"*?[]\\^-" else b"%c" % byte for byte in prefix) + b"*"
    return sorted(set(store.redis().scan_iter(pattern, count=10_000)))


def dump(store: JournalledStore) -> Snapshot:
    """Everything that the store holds now."""
    keys, client = keys_of(store), store.redis()
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.type(key)
        kinds = pipeline.execute()
        read = {
            b"string": pipeline.get,
            b"hash": pipeline.hgetall,
            b"stream": pipeline.xrange,
            b"zset": lambda key: pipeline.zrange(key, 0, -1, withscores=True),
        }
        for key, kind in zip(keys, kinds, strict=True):
            read[kind](key)
        return Snapshot(store.namespace, dict(zip(keys, pipeline.execute(), strict=True)))


def read_journal(store: JournalledStore, account: str | None = None) -> list[JournalEntry]:
    """Return the entries of all journals, or those of one account, in order."""
    return [entry for entry in dump(store).journal() if account is None or entry.account == account]


def assert_fold(store: JournalledStore) -> None:
    """Folding the journal gives exactly the accounts' keys, and all that is derived from them agrees.

    Every account's seq grows by exactly 1 per entry, its balance is the sum of its changes, what it holds is what its
    open leases hold, and it stands among the due accounts at the time that it names itself.
    """
    dump(store).check()


def _text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
