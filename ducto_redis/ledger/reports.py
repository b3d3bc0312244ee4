"""What the ledger answers with. Amounts are micro-credits."""

from typing import TypeAlias

from msgspec import Struct

from ducto_redis.engine.state import AccountState

RawEntry: TypeAlias = tuple[str, bytes]
"""A journal entry as the stream holds it: its id and its text."""

FORK = "fork"
GAP = "gap"
UNREADABLE = "unreadable"


class WriteReport(Struct, frozen=True, kw_only=True):
    """What one batch brought.

    Attributes:
        written: entries that were new.
        repeated: entries that the ledger had already.
        unreadable: entries that could not be read and were stored raw.
        marked: accounts that this batch left with a mark.
    """

    written: int
    repeated: int
    unreadable: int
    marked: tuple[str, ...] = ()


class Position(Struct, frozen=True):
    """How far the ledger has read a partition's journal: the last entry's id, and the highest epoch."""

    epoch: int
    entry_id: str


class LedgerAccount(Struct, frozen=True, kw_only=True):
    """An account as the ledger knows it.

    Attributes:
        balance, held: micro-credits.
        epoch, seq: the last change that the ledger has.
        state: everything that the account has in Redis.
        marks: what is wrong with its history: "fork", "gap", "unreadable"; empty where nothing is.
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
        model, operation_type, member: what it was for; of a refund, what the refunded charge was for.
        type: of credits that came in or expired.
        charged: what it charged, whoever paid for it. Of the settle or release of a lease whose expiry was charged, the
            difference to that: below zero where the work cost less.
        allowance: the part of `charged` that the allowance paid; of a refund, what went back to the allowance.
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
        return f"{self.partition}-{self.epoch}-{self.entry_id}"

    @property
    def time_ms(self) -> int:
        """When it happened, in milliseconds since 1970."""
        return int(self.entry_id.partition("-")[0])


class AccountFailure(Struct, frozen=True, kw_only=True):
    """An account that does not add up, and why."""

    namespace: str
    account: str
    reasons: tuple[str, ...]


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What `verify` found.

    Attributes:
        accounts, entries: how many were read.
        balance, held: micro-credits of all accounts together.
        unreadable: entries that are stored raw.
        failed: accounts that do not add up.
        failures: the first of them, with the reasons.
        rollups: what is wrong with the roll-ups of all accounts together; those of an account are among its failures.
        compared: accounts that were compared with the engine, where a store was given.
        behind: accounts of which the engine has changes that the ledger has not read yet.
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
        """Whether everything adds up."""
        return not self.failed and not self.unreadable and not self.rollups
