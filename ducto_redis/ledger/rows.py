"""Journal entries as rows of the ledger, and back."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.engine.entry import JournalEntry, UnreadableEntryError, decode_entry
from ducto_redis.engine.ids import ACCOUNT_BYTES, check_id
from ducto_redis.errors import InvalidIdError
from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.schema import entries

_LIMIT = 2**53
_KEY_BYTES = 1024
_ACCOUNTS_KEPT = 65536
_SEPARATOR = "\t"
_COUNTED_FIELDS = frozenset(("balance", "held"))
_PLACE_FIELDS = frozenset(("epoch", "seq"))

ENTRY_COLUMNS = tuple(column.name for column in entries.columns if column.name != "id")

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
    entries.c.balance_after,
    entries.c.id,
)
"""What `entry_of` reads, then what the ledger made of it: `balance_after` and `id`."""

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
)
"""What `ledger_entry_of` reads."""


class ReadEntry(Struct, frozen=True):
    """A journal entry that was read, with the parts that the ledger keeps in columns of their own."""

    entry: JournalEntry
    entry_ms: int
    entry_seq: int
    model: str | None


class _PricedModel(Struct):
    model: str | None = None


class _Priced(Struct):
    usage: _PricedModel | list[_PricedModel] | None = None


_priced = msgspec.json.Decoder(_Priced)


def read_entry(partition: int, entry_id: str, text: bytes) -> ReadEntry:
    """Read a journal entry, and make sure that every column can hold its part of it.

    Raises:
        UnreadableEntryError: if it cannot be read, or holds what no column can.
    """
    if b"\x00" in text:
        raise UnreadableEntryError("a journal entry holds a NUL character", account=_account_of(text))
    entry = decode_entry(partition, entry_id, text)
    if account_or_none(entry.account) is None:
        raise UnreadableEntryError("a journal entry names an account that cannot be one")
    if len(text) > _KEY_BYTES:  # else no part of it can be too long
        _check_lengths(entry)
    numbers = (entry.epoch, entry.seq, entry.amount, entry.balance_change, entry.shortfall, entry.version)
    if max(numbers) >= _LIMIT or min(numbers) <= -_LIMIT or entry.epoch < 0 or entry.seq < 1:
        raise UnreadableEntryError("a journal entry holds a number that is out of range", account=entry.account)
    _check_changes(entry.changes, entry.account)
    try:
        model = _model_of(entry.cause) if entry.cause else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableEntryError(f"a journal entry's cause is wrong: {error}", account=entry.account) from None
    entry_ms, entry_seq = split_id(entry_id)
    return ReadEntry(entry, entry_ms, entry_seq, model)


@lru_cache(maxsize=_ACCOUNTS_KEPT)
def account_or_none(account: str | None) -> str | None:
    """The account id, or None where it is none."""
    if account is None:
        return None
    try:
        return check_id(account, "an account id", ACCOUNT_BYTES)
    except InvalidIdError:
        return None


def _check_lengths(entry: JournalEntry) -> None:
    for key in (entry.operation_key, *(name for name, _ in entry.changes)):
        if len(key) > _KEY_BYTES or len(key.encode()) > _KEY_BYTES:
            raise UnreadableEntryError("a journal entry holds a key that is too long", account=entry.account)


def _check_changes(changes: Iterable[tuple[str, str]], account: str) -> None:
    try:
        for name, value in changes:
            if name in _COUNTED_FIELDS:
                if not -_LIMIT < int(value) < _LIMIT:
                    raise ValueError(f"{name} is out of range")
            elif name in _PLACE_FIELDS:
                raise ValueError(f"{name} is not changed by an entry, it is the entry's place")
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


def _model_of(cause: str) -> str | None:
    usage = _priced.decode(cause).usage
    if isinstance(usage, list):
        models = {part.model for part in usage}
        model = models.pop() if len(models) == 1 else None
    else:
        model = usage.model if usage is not None else None
    # JSON can spell what PostgreSQL's text cannot hold.
    return model.replace("\x00", "\ufffd") if model is not None else None


def split_id(entry_id: str) -> tuple[int, int]:
    """The milliseconds and the sequence of a stream entry's id."""
    entry_ms, _, entry_seq = entry_id.partition("-")
    return int(entry_ms), int(entry_seq)


def row_of(namespace: str, read: ReadEntry, balance_after: int) -> tuple[Any, ...]:
    """The values of `ENTRY_COLUMNS`."""
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
        read.model,
        entry.cause,
        _SEPARATOR.join([part for change in entry.changes for part in change]),
    )


def entry_of(row: Sequence[Any]) -> JournalEntry:
    """The journal entry of a row of `JOURNAL_COLUMNS`. Raises UnreadableEntryError where somebody meddled with it."""
    parts = row[13].split(_SEPARATOR) if row[13] else ()
    if len(parts) % 2:
        raise UnreadableEntryError("the changes are no pairs", account=row[0])
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
        changes,
    )


def ledger_entry_of(row: Sequence[Any]) -> LedgerEntry:
    """The entry of a row of `STATEMENT_COLUMNS`."""
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
    )
