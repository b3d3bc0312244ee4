"""The results of the ledger. Amounts are micro-credits."""

from typing import TypeAlias

from msgspec import Struct

from ducto_redis.engine.ids import entry_ms, format_transaction_id
from ducto_redis.engine.state import AccountState

RawEntry: TypeAlias = tuple[str, bytes]
"""A journal entry as in the stream: its id and its text."""

FORK = "fork"
GAP = "gap"
UNREADABLE = "unreadable"


class WriteReport(Struct, frozen=True, kw_only=True):
    """The result of writing one batch.

    Attributes:
        written: entries that were new.
        repeated: entries that the ledger had already.
        unreadable: entries that could not be read and were stored raw.
        marked: accounts with a mark after this batch.
    """

    written: int
    repeated: int
    unreadable: int
    marked: tuple[str, ...] = ()


class Position(Struct, frozen=True):
    """The position of the ledger in a partition's journal: the last entry's id, and the highest epoch."""

    epoch: int
    entry_id: str


class LedgerAccount(Struct, frozen=True, kw_only=True):
    """An account in the ledger.

    Attributes:
        balance, held: micro-credits.
        epoch, seq: the last change that the ledger has.
        state: all of the account's state in Redis.
        marks: problems of its history: "fork", "gap", "unreadable"; empty if there are none.
    """

    namespace: str
    account: str
    partition: int
    epoch: int
    seq: int
    balance: int
    held: int
    state: AccountState
    marks: tuple[str, ...] = ()


class LedgerEntry(Struct, frozen=True, kw_only=True):
    """One change to an account, see `JournalEntry`. Amounts are micro-credits.

    Attributes:
        balance_after: the balance that it led to.
        model, operation_type, member: the purpose of the charge; of a refund, those of the refunded charge.
        type: the type of credits that came in or expired.
        charged: the charge, from all sources. Of the settle or release of a lease whose expiry was charged, the
            difference to that: below zero if the work cost less.
        allowance: the part of `charged` that the allowance paid; of a refund, the part that it got back.
        refund_of: the transaction that was refunded.
    """

    partition: int
    entry_id: str
    account: str
    epoch: int
    seq: int
    operation: str
    operation_key: str
    amount: int
    balance_change: int
    shortfall: int
    balance_after: int
    version: int
    model: str | None
    cause: str
    details: str
    operation_type: str
    member: str | None
    type: str | None
    charged: int
    allowance: int
    refund_of: str | None

    @property
    def transaction_id(self) -> str:
        """Partition, epoch and entry id: `3-1-1700000000000-0`."""
        return format_transaction_id(self.partition, self.epoch, self.entry_id)

    @property
    def time_ms(self) -> int:
        """The time of the change, in milliseconds since 1970."""
        return entry_ms(self.entry_id)


class AccountFailure(Struct, frozen=True, kw_only=True):
    """An account with inconsistencies."""

    namespace: str
    account: str
    reasons: tuple[str, ...]


class VerifyReport(Struct, frozen=True, kw_only=True):
    """The result of `verify`.

    Attributes:
        accounts, entries: the numbers of accounts and entries that were read.
        balance, held: micro-credits of all accounts together.
        unreadable: the number of entries that are stored raw.
        failed: the number of accounts with inconsistencies.
        failures: the first of them, with the reasons.
        rollups: problems of the roll-ups of all accounts together; those of one account are among its failures.
        compared: the number of accounts that were compared with the engine, if a store was given.
        behind: the number of accounts with changes in the engine that the ledger has not read yet.
    """

    accounts: int
    entries: int
    balance: int
    held: int
    unreadable: int
    failed: int
    failures: tuple[AccountFailure, ...]
    rollups: tuple[str, ...] = ()
    compared: int = 0
    behind: int = 0

    @property
    def ok(self) -> bool:
        """True if everything adds up."""
        return not self.failed and not self.unreadable and not self.rollups
