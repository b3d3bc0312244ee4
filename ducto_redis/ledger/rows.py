"""Conversion of journal entries to rows of the ledger, and back."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ducto_redis.engine.cause import USAGE_FIELDS
from ducto_redis.engine.entry import Details, JournalEntry, UnreadableEntryError, decode_entry
from ducto_redis.engine.ids import ACCOUNT_BYTES, TransactionId, check_id, split_entry_id
from ducto_redis.errors import InvalidIdError
from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.schema import entries

_LIMIT = 2**53
_KEY_BYTES = 1024
_ACCOUNTS_KEPT = 65536
_SEPARATOR = "\t"
_NAME_BYTES = 128
_NO_DETAILS = Details()
_MODEL = USAGE_FIELDS.index("model")
_WITH_TYPE = frozenset(("add_credits", "open_account", "expire_grant"))
DEFAULT_OPERATION_TYPE = "default"
SIGNUP_BONUS = "signup_bonus"
"""The type of a new account's first credits."""
_COUNTED_FIELDS = frozenset(("balance", "held"))
_PLACE_FIELDS = frozenset(("epoch", "seq"))

# Only a rebuild finds superseded entries.
ENTRY_COLUMNS = tuple(column.name for column in entries.columns if column.name not in ("id", "superseded"))

JOURNAL_COLUMNS = (
    entries.c.account,
    entries.c.partition,
    entries.c.entry_ms,
    entries.c.entry_seq,
    entries.c.operation,
    entries.c.epoch,
    entries.c.seq,
    entries.c.operation_key,
    entries.c.amount,
    entries.c.balance_change,
    entries.c.shortfall,
    entries.c.version,
    entries.c.cause,
    entries.c.changes,
    entries.c.details,
    entries.c.balance_after,
    entries.c.id,
    entries.c.model,
    entries.c.operation_type,
    entries.c.member,
    entries.c.type,
    entries.c.charged,
    entries.c.allowance,
    entries.c.refund_of,
    entries.c.superseded,
)
"""The columns that `entry_of` reads, then the derived ones."""

STATEMENT_COLUMNS = (
    entries.c.partition,
    entries.c.entry_ms,
    entries.c.entry_seq,
    entries.c.account,
    entries.c.epoch,
    entries.c.seq,
    entries.c.operation,
    entries.c.operation_key,
    entries.c.amount,
    entries.c.balance_change,
    entries.c.shortfall,
    entries.c.balance_after,
    entries.c.version,
    entries.c.model,
    entries.c.cause,
    entries.c.details,
    entries.c.operation_type,
    entries.c.member,
    entries.c.type,
    entries.c.charged,
    entries.c.allowance,
    entries.c.refund_of,
)
"""The columns that `ledger_entry_of` reads."""


Usage: TypeAlias = list[Any]
"""A usage in an entry's cause: the values of the first `USAGE_FIELDS`, unchecked."""


class ReadCause(Struct, gc=False):
    """The parts of a cause that the ledger keeps in columns, or adds up."""

    usage: Sequence[Usage] = ()
    type: str | None = None
    operation_type: str | None = None


class ReadEntry(Struct, frozen=True, gc=False):
    """A journal entry, decoded, with the parts that the ledger keeps in columns of their own."""

    entry: JournalEntry
    entry_ms: int
    entry_seq: int
    details: Details
    model: str | None
    operation_type: str
    type: str | None
    usages: Sequence[Usage]


class Movement(Struct, frozen=True, gc=False):
    """The movement of an entry, in the ledger's columns.

    Attributes:
        model, operation_type, member: the purpose of the charge; of a refund, those of the refunded charge.
        type: the type of credits that came in or expired.
        charged: micro-credits that it charged, from all sources. If a lease's expiry was charged before, the difference
            to that: below zero if the work cost less.
        allowance: the part of them that the allowance paid; of a refund, the part that it got back.
        refund_of: the transaction that was refunded.
    """

    model: str | None
    operation_type: str
    member: str | None
    type: str | None
    charged: int
    allowance: int
    refund_of: str | None


_NO_CAUSE = ReadCause()
_cause_decoder = msgspec.json.Decoder(ReadCause, float_hook=Decimal)


def read_entry(partition: int, entry_id: str, text: bytes) -> ReadEntry:
    """Read a journal entry, and check that every column can hold its part.

    Raises:
        UnreadableEntryError: if it cannot be read, or a column cannot hold its part.
    """
    if b"\x00" in text:
        raise UnreadableEntryError("a journal entry holds a NUL character", account=_account_of(text))
    entry = decode_entry(partition, entry_id, text)
    if account_or_none(entry.account) is None:
        raise UnreadableEntryError("a journal entry has an invalid account id")
    if len(text) > _KEY_BYTES:  # no part of a shorter text is too long
        _check_lengths(entry)
    if not (
        0 <= entry.epoch < _LIMIT
        and 0 < entry.seq < _LIMIT
        and -_LIMIT < entry.amount < _LIMIT
        and -_LIMIT < entry.balance_change < _LIMIT
        and -_LIMIT < entry.shortfall < _LIMIT
        and -_LIMIT < entry.version < _LIMIT
    ):
        raise UnreadableEntryError("a journal entry holds a number that is out of range", account=entry.account)
    _check_changes(entry.changes, entry.account)
    return read_parts(entry)


def read_parts(entry: JournalEntry) -> ReadEntry:
    """Read the parts that the ledger keeps in columns of their own. Raises UnreadableEntryError."""
    try:
        cause = _cause_decoder.decode(entry.cause) if entry.cause else _NO_CAUSE
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableEntryError(f"a journal entry's cause is wrong: {error}", account=entry.account) from None
    details = _NO_DETAILS
    if entry.details:
        try:
            details = entry.read_details()
        except UnreadableEntryError as error:
            raise UnreadableEntryError(str(error), account=entry.account) from None
        if abs(details.allowance) >= _LIMIT:
            raise UnreadableEntryError("a journal entry's allowance is out of range", account=entry.account)
    models = {model_of(usage) for usage in cause.usage}
    entry_ms, entry_seq = split_entry_id(entry.entry_id)
    return ReadEntry(
        entry,
        entry_ms,
        entry_seq,
        details,
        models.pop() if len(models) == 1 else None,
        name_of(details.operation_type or cause.operation_type) or DEFAULT_OPERATION_TYPE,
        _type_of(entry.operation, cause, details) if entry.operation in _WITH_TYPE else None,
        cause.usage,
    )


def model_of(usage: Usage) -> str | None:
    """Return the model of a usage, or None."""
    model = usage[_MODEL] if usage else None
    return name_of(model) if isinstance(model, str) else None


def usages_of(cause: str) -> Sequence[Usage]:
    """Return the usages in the cause of an entry that was read before."""
    return _cause_decoder.decode(cause).usage if cause else ()


def _type_of(operation: str, cause: ReadCause, details: Details) -> str | None:
    match operation:
        case "add_credits":
            return name_of(cause.type)
        case "open_account":
            return name_of(cause.type) or SIGNUP_BONUS
        case "expire_grant" if len(details.grants) == 1:
            return name_of(details.grants[0].type)
    return None


def name_of(text: str | None) -> str | None:
    """Return a name from a cause for a column: at most 128 bytes, without NUL, which SQL cannot store."""
    if not text:
        return None
    if len(text) > _NAME_BYTES // 4 and len(text.encode()) > _NAME_BYTES:
        text = text.encode()[:_NAME_BYTES].decode(errors="ignore")
    return text.replace("\x00", "\ufffd")


@lru_cache(maxsize=_ACCOUNTS_KEPT)
def account_or_none(account: str | None) -> str | None:
    """Return the account id, or None if it is not valid."""
    if account is None:
        return None
    try:
        return check_id(account, "an account id", ACCOUNT_BYTES)
    except InvalidIdError:
        return None


def _check_lengths(entry: JournalEntry) -> None:
    for key in (entry.operation, entry.operation_key, *(name for name, _ in entry.changes)):
        if len(key) > _KEY_BYTES or len(key.encode()) > _KEY_BYTES:
            raise UnreadableEntryError("a journal entry holds a key that is too long", account=entry.account)


def _check_changes(changes: Iterable[tuple[str, str]], account: str) -> None:
    try:
        for name, value in changes:
            if name in _COUNTED_FIELDS:
                if not -_LIMIT < int(value) < _LIMIT:
                    raise ValueError(f"{name} is out of range")
            elif name in _PLACE_FIELDS:
                raise ValueError(f"{name} must not be among the changes: it is the entry's place")
    except ValueError as error:
        raise UnreadableEntryError(f"a journal entry holds a wrong value: {error}", account=account) from None


def _account_of(text: bytes) -> str | None:
    parts = text.split(b"\t", 2)
    if len(parts) < 3 or b"\x00" in parts[1]:
        return None
    try:
        return parts[1].decode()
    except UnicodeDecodeError:
        return None


def place_of(transaction_id: str) -> TransactionId | None:
    """Return the place of a transaction id, or None if it is not one that the ledger can hold."""
    place = TransactionId.parse(transaction_id)
    return place if place is not None and place.entry_seq < 10**18 else None


def row_of(namespace: str, read: ReadEntry, balance_after: int, movement: Movement) -> tuple[Any, ...]:
    """Return the values of `ENTRY_COLUMNS`."""
    entry = read.entry
    return (
        namespace,
        entry.partition,
        entry.epoch,
        read.entry_ms,
        read.entry_seq,
        entry.account,
        entry.seq,
        entry.operation,
        entry.operation_key,
        entry.amount,
        entry.balance_change,
        entry.shortfall,
        balance_after,
        entry.version,
        movement.model,
        entry.cause,
        _SEPARATOR.join(chain.from_iterable(entry.changes)),
        entry.details or None,
        movement.operation_type,
        movement.member,
        movement.type,
        movement.charged,
        movement.allowance,
        movement.refund_of,
    )


def entry_of(row: Sequence[Any]) -> JournalEntry:
    """Return the journal entry of a row of `JOURNAL_COLUMNS`. Raises UnreadableEntryError if it was tampered with."""
    parts = row[13].split(_SEPARATOR) if row[13] else ()
    if len(parts) % 2:
        raise UnreadableEntryError("the changes are not pairs", account=row[0])
    changes = tuple(zip(parts[::2], parts[1::2], strict=True))
    _check_changes(changes, row[0])
    return JournalEntry(
        row[1],
        f"{row[2]}-{row[3]}",
        row[4],
        row[0],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        row[14] or "",
        changes,
    )


def ledger_entry_of(row: Sequence[Any]) -> LedgerEntry:
    """Return the entry of a row of `STATEMENT_COLUMNS`."""
    return LedgerEntry(
        partition=row[0],
        entry_id=f"{row[1]}-{row[2]}",
        account=row[3],
        epoch=row[4],
        seq=row[5],
        operation=row[6],
        operation_key=row[7],
        amount=row[8],
        balance_change=row[9],
        shortfall=row[10],
        balance_after=row[11],
        version=row[12],
        model=row[13],
        cause=row[14],
        details=row[15] or "",
        operation_type=row[16],
        member=row[17],
        type=row[18],
        charged=row[19],
        allowance=row[20],
        refund_of=row[21],
    )
