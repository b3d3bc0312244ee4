"""Pages of an account's transactions."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from ducto_redis.analytics_results import Transaction, TransactionPage
from ducto_redis.engine.text import EPOCH, MILLISECOND
from ducto_redis.errors import ConfigError
from ducto_redis.ledger.history import OPERATIONS
from ducto_redis.ledger.reports import LedgerEntry
from ducto_redis.ledger.rows import STATEMENT_COLUMNS, ledger_entry_of
from ducto_redis.ledger.schema import entries
from ducto_redis.money import from_micro
from ducto_redis.suggestions import did_you_mean

_LIMIT = 2**53


class _WithMetadata(msgspec.Struct):
    metadata: Mapping[str, Any] | None = None


_metadata = msgspec.json.Decoder(_WithMetadata)
_place = msgspec.json.Decoder(tuple[int, int, str])


def read_page(
    connection: Connection,
    namespace: str,
    account: str,
    *,
    operations: Sequence[str] | None,
    types: Sequence[str] | None,
    times: tuple[int, int],
    limit: int,
    cursor: str | None,
) -> TransactionPage:
    """Return a page, see `Analytics.list_user_transactions`."""
    its = entries.c
    conditions = [
        its.namespace == namespace,
        its.account == account,
        its.superseded == 0,
        its.entry_ms >= times[0],
        its.entry_ms < times[1],
    ]
    if operations is not None:
        conditions.append(its.operation.in_(check_operations(operations)))
    if types is not None:
        conditions.append(its.type.in_(check_names(types, "types")))
    if cursor is not None:
        conditions.append(is_before(*_decode_cursor(cursor)))
    order = (its.epoch.desc(), its.seq.desc(), its.operation_key.desc())
    statement = select(*STATEMENT_COLUMNS).where(*conditions).order_by(*order).limit(limit + 1)
    found = [ledger_entry_of(row) for row in connection.execute(statement)]
    page = found[:limit]
    more = len(found) > limit
    return TransactionPage(
        transactions=tuple(map(_transaction_of, page)), cursor=_encode_cursor(page[-1]) if more else None
    )


def is_before(epoch: int, seq: int, operation_key: str) -> Any:
    """Return the condition for entries before a place in their account's history."""
    its = entries.c
    return (its.epoch < epoch) | (
        (its.epoch == epoch) & ((its.seq < seq) | ((its.seq == seq) & (its.operation_key < operation_key)))
    )


def check_names(names: Sequence[str], what: str) -> list[str]:
    """Return the names as a list. Raises ConfigError for a single string, which is a sequence too."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{what} must be a list of names, such as ['deduct'], not {names!r:.60}")
    return list(names)


def check_operations(operations: Sequence[str]) -> list[str]:
    """Return the operations as a list. Raises ConfigError, which lists the operations, for an unknown one."""
    names = check_names(operations, "operations")
    for name in names:
        if name not in OPERATIONS:
            there_are = ", ".join(sorted(OPERATIONS))
            raise ConfigError(
                f"there is no operation {name!r:.60}; there are {there_are}{did_you_mean(name, OPERATIONS)}"
            )
    return names


def _encode_cursor(entry: LedgerEntry) -> str:
    return urlsafe_b64encode(msgspec.json.encode((entry.epoch, entry.seq, entry.operation_key))).decode()


def _decode_cursor(cursor: str) -> tuple[int, int, str]:
    try:
        epoch, seq, operation_key = _place.decode(urlsafe_b64decode(cursor.encode()))
        if not (0 <= epoch < _LIMIT and 0 <= seq < _LIMIT and "\x00" not in operation_key):
            raise ValueError(cursor)
        return epoch, seq, operation_key
    except (ValueError, AttributeError):
        raise ConfigError(f"a cursor must be that of the page before, not {cursor!r:.60}") from None


def _transaction_of(entry: LedgerEntry) -> Transaction:
    return Transaction(
        transaction_id=entry.transaction_id,
        account=entry.account,
        at=EPOCH + entry.time_ms * MILLISECOND,
        operation=entry.operation,
        amount=from_micro(entry.amount),
        balance_change=from_micro(entry.balance_change),
        balance_after=from_micro(entry.balance_after),
        charged=from_micro(entry.charged),
        allowance=from_micro(entry.allowance),
        shortfall=from_micro(entry.shortfall),
        operation_type=entry.operation_type,
        model=entry.model,
        member=entry.member,
        type=entry.type,
        refund_of=entry.refund_of,
        version=entry.version,
        metadata=_metadata_of(entry.cause),
    )


def _metadata_of(cause: str) -> Mapping[str, Any] | None:
    try:
        return _metadata.decode(cause).metadata if cause else None
    except msgspec.ValidationError:
        return None
