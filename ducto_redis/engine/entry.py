"""The journal entry: one change to one account, and the lease records inside it.

The text is written by `lua/lib/account.lua` and read here, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.metrics import UsageMetrics

ENTRY_FIELD = b"entry"
_SEPARATOR = "\t"
_HEAD = 10
_LEASE_SEPARATOR = "\x1f"
_LEASE_PARTS = 13
LEASE_CHANGE = "lease/"


class UnreadableEntryError(ValueError):
    """A journal entry that is not one. `account` is the account that it names, where so much could be read."""

    def __init__(self, message: str, *, account: str | None = None) -> None:
        self.account = account
        super().__init__(message)


class Cause(Struct, omit_defaults=True):
    """Why a change was made, as the caller said it: the JSON of an entry's `cause`.

    Attributes:
        usage: what was priced, or several.
        type: of credits that came in: purchase, bonus, ...
        operation_type: of a lease or a charge.
        flags: what is unusual about the usage, such as `usage_counted`.
        metadata: the caller's own.
    """

    usage: UsageMetrics | list[UsageMetrics] | None = None
    type: str | None = None
    operation_type: str | None = None
    flags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None


class JournalEntry(Struct, frozen=True):
    """One change to one account.

    Attributes:
        partition: where it was journalled.
        entry_id: the id of the stream's entry; its first part is the time in milliseconds.
        operation: `deduct`, `settle`, ...
        account: whose change it is.
        epoch, seq: its place in the account's history; seq counts up by 1.
        operation_key: what makes the operation the same when it is asked for again.
        amount: micro-credits that the operation was about: added, held, released, deducted, or what settled work cost.
        balance_change: micro-credits by which the balance moved.
        shortfall: micro-credits of the cost that could not be charged.
        version: pricing document that it was priced under, 0 for none.
        cause: JSON of a `Cause`, or empty.
        changes: the new value of every field that was written, `lease/<id>` among them ("" where the lease is gone).
    """

    partition: int
    entry_id: str
    operation: str
    account: str
    epoch: int
    seq: int
    operation_key: str
    amount: int
    balance_change: int
    shortfall: int
    version: int
    cause: str
    changes: tuple[tuple[str, str], ...]

    @property
    def transaction_id(self) -> str:
        """Partition, epoch and entry id: `3-1-1700000000000-0`."""
        return f"{self.partition}-{self.epoch}-{self.entry_id}"

    @property
    def time_ms(self) -> int:
        """When it happened, in milliseconds since 1970, by the server's clock."""
        return int(self.entry_id.partition("-")[0])

    def read_cause(self) -> Cause:
        """The cause, decoded."""
        return _cause_decoder.decode(self.cause) if self.cause else Cause()

    def usage(self) -> list[UsageMetrics]:
        """What was priced; empty where an amount was given."""
        usage = self.read_cause().usage
        if usage is None:
            return []
        return [usage] if isinstance(usage, UsageMetrics) else usage


class LeaseRecord(Struct, frozen=True):
    """A lease as it is stored, see `lua/lib/lease.lua`. Amounts are micro-credits, times milliseconds."""

    state: str
    amount: int
    charged: int
    created_ms: int
    expires_ms: int
    floor: int
    version: int
    on_expiry: str
    fingerprint: str
    operation_type: str
    owner: str
    metadata: str
    entry_id: str

    @classmethod
    def decode(cls, text: str) -> "LeaseRecord":
        """Read a record. Raises UnreadableEntryError."""
        parts = text.split(_LEASE_SEPARATOR)
        if len(parts) != _LEASE_PARTS:
            raise UnreadableEntryError(f"a lease record has {_LEASE_PARTS} parts, got {len(parts)}")
        state, *numbers = parts[:7]
        try:
            amount, charged, created_ms, expires_ms, floor, version = map(int, numbers)
        except ValueError as error:
            raise UnreadableEntryError(f"a lease record holds a number that is none: {error}") from None
        return cls(state, amount, charged, created_ms, expires_ms, floor, version, *parts[7:])


def decode_entry(partition: int, entry_id: str, text: bytes) -> JournalEntry:
    """Read a journal entry. Raises UnreadableEntryError, which names the account where it could be read."""
    try:
        parts = text.decode().split(_SEPARATOR)
    except UnicodeDecodeError as error:
        raise UnreadableEntryError(f"a journal entry is not UTF-8: {error}") from None
    account = parts[1] if len(parts) > 1 and parts[1] else None
    if account is None or len(parts) < _HEAD or len(parts) % 2:
        raise UnreadableEntryError(
            f"a journal entry has {_HEAD} parts and pairs of changes, got {len(parts)}", account=account
        )
    try:
        return JournalEntry(
            partition,
            entry_id,
            parts[0],
            account,
            int(parts[2]),
            int(parts[3]),
            parts[4],
            int(parts[5]),
            int(parts[6]),
            int(parts[7]),
            int(parts[8]),
            parts[9],
            tuple(zip(parts[10::2], parts[11::2], strict=True)),
        )
    except ValueError as error:
        raise UnreadableEntryError(f"a journal entry holds a number that is none: {error}", account=account) from None


def encode_cause(cause: Cause) -> bytes:
    """The JSON of a cause, without what is missing; empty where all is missing."""
    encoded = _encoder.encode(cause)
    return b"" if encoded == b"{}" else encoded


_encoder = msgspec.json.Encoder(decimal_format="number")
_cause_decoder = msgspec.json.Decoder(Cause)
