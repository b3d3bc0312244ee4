"""The movement of an entry: its charge, and the model, operation type and member that it is counted for.

This is the only place that computes it. The writer does so from the journal, `rebuild` and `verify` from the stored
entries, and roll-ups are its sums.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, tuple_

from ducto_redis.engine.entry import LEASE_CHANGE, LeaseGrounds, LeaseRecord, UnreadableEntryError
from ducto_redis.engine.ids import TransactionId, split_entry_id
from ducto_redis.ledger.rows import (
    DEFAULT_OPERATION_TYPE,
    Movement,
    ReadEntry,
    name_of,
    place_of,
)
from ducto_redis.ledger.schema import entries, leases

# The most recoveries that a lease can outlive.
_EPOCHS_BACK = 16
_PLACES_AT_A_TIME = 200
_WITH_ALLOWANCE = frozenset(("deduct", "settle", "expire", "refund"))
REFERRING = frozenset(("settle", "release", "expire", "refund"))
"""The operations that refer to other entries."""


class Origin(Struct, frozen=True):
    """The model, operation type and member of the entry that a refund or an expiry goes back to."""

    model: str | None
    operation_type: str
    member: str | None


class Paid(Struct, frozen=True):
    """The charge of a lease's expiry in micro-credits, and the allowance's part of it."""

    charged: int
    allowance: int


NOTHING_PAID = Paid(0, 0)


def paid_of(record: str | None) -> Paid:
    """Return the charge of a lease's expiry, from the lease's record."""
    if not record:
        return NOTHING_PAID
    try:
        lease = LeaseRecord.decode(record)
        if not lease.charged:
            return NOTHING_PAID
        return Paid(lease.charged, LeaseGrounds.decode(lease.grounds).paid.allowance)
    except UnreadableEntryError:
        return NOTHING_PAID


def movement_of(read: ReadEntry, paid: Paid, origin: Origin | None) -> Movement:
    """Return the movement of an entry.

    Args:
        paid: the charge of the expiry of the lease that it closes.
        origin: the origin that it goes back to, or None if there is none or the ledger does not have it.
    """
    entry, details = read.entry, read.details
    model, operation_type, member = read.model, read.operation_type, name_of(details.member)
    if origin is not None:
        model, member = origin.model, member or origin.member
        operation_type = origin.operation_type if operation_type == DEFAULT_OPERATION_TYPE else operation_type
    allowance = details.allowance if entry.operation in _WITH_ALLOWANCE else 0
    refund_of = details.refund_of if details.refund_of and place_of(details.refund_of) else None
    return Movement(
        model,
        operation_type,
        member,
        read.type,
        entry.charged - paid.charged,
        allowance - paid.allowance,
        refund_of,
    )


def closes_expired_lease(read: ReadEntry) -> str | None:
    """Return the id of the lease that the entry closes, if that may have expired with a charge before."""
    entry = read.entry
    if entry.operation == "settle":
        unexplained = entry.balance_change + entry.charged - read.details.allowance
        if not unexplained and not read.details.late:
            return None
    elif entry.operation != "release" or entry.amount:
        return None
    return next((name[len(LEASE_CHANGE) :] for name, _ in entry.changes if name.startswith(LEASE_CHANGE)), None)


def origin_places(read: ReadEntry) -> list[TransactionId]:
    """Return the possible places of the entry that this one goes back to: a refunded charge, an expired reserve."""
    entry = read.entry
    if entry.operation == "refund":
        place = place_of(read.details.refund_of)
        return [] if place is None else [place]
    if entry.operation == "expire" and entry.charged:
        for name, record in entry.changes:
            if name.startswith(LEASE_CHANGE) and record:
                try:
                    entry_ms, entry_seq = split_entry_id(LeaseRecord.decode(record).entry_id)
                except ValueError:
                    return []
                epochs = range(entry.epoch, max(-1, entry.epoch - _EPOCHS_BACK), -1)
                return [TransactionId(entry.partition, epoch, entry_ms, entry_seq) for epoch in epochs]
    return []


class References:
    """The references of a batch: leases that had expired before it, and the origins of its entries.

    Args:
        reads: the entries of the batch with an operation of `REFERRING`.
    """

    def __init__(self, connection: Connection, namespace: str, reads: Iterable[ReadEntry]) -> None:
        closing: list[tuple[str, str]] = []
        self._places: set[TransactionId] = set()
        for read in reads:
            lease_id = closes_expired_lease(read)
            if lease_id is not None:
                closing.append((read.entry.account, lease_id))
            self._places.update(origin_places(read))
        self._origins = stored_origins(connection, namespace, self._places)
        self._leases = _stored_leases(connection, namespace, closing)

    def movement(self, read: ReadEntry, changed_leases: Mapping[str, str]) -> Movement:
        """Return the movement of an entry. `changed_leases` are those that earlier entries of the batch changed."""
        entry, paid, origin = read.entry, NOTHING_PAID, None
        if not self._places and not entry.details and entry.operation not in REFERRING:
            charged = entry.amount if entry.operation == "deduct" else 0  # the short way, for most entries
            return Movement(read.model, read.operation_type, None, read.type, charged, 0, None)
        if entry.operation in REFERRING:
            lease_id = closes_expired_lease(read)
            if lease_id is not None:
                paid = paid_of(changed_leases.get(lease_id) or self._leases.get((entry.account, lease_id)))
            origin = first_origin(origin_places(read), self._origins)
        movement = movement_of(read, paid, origin)
        if self._places:
            place = (entry.partition, entry.epoch, read.entry_ms, read.entry_seq)
            if place in self._places:
                self._origins[place] = Origin(movement.model, movement.operation_type, movement.member)
        return movement


def first_origin(places: Iterable[TransactionId], origins: Mapping[TransactionId, Origin]) -> Origin | None:
    """Return the origin at the first of these places that has one, or None."""
    return next((origins[place] for place in places if place in origins), None)


def stored_origins(
    connection: Connection, namespace: str, places: Collection[TransactionId]
) -> dict[TransactionId, Origin]:
    """Return the origins at these places, as far as the ledger has them."""
    columns = (entries.c.partition, entries.c.epoch, entries.c.entry_ms, entries.c.entry_seq)
    named = (*columns, entries.c.model, entries.c.operation_type, entries.c.member)
    found: dict[TransactionId, Origin] = {}
    for some in _portions(sorted(places)):
        rows = connection.execute(
            entries.select()
            .with_only_columns(*named)
            .where(entries.c.namespace == namespace, tuple_(*columns).in_(some))
        )
        found |= {TransactionId(row[0], row[1], row[2], row[3]): Origin(row[4], row[5], row[6]) for row in rows}
    return found


def _stored_leases(
    connection: Connection, namespace: str, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    columns = (leases.c.account, leases.c.lease_id)
    for some in _portions(sorted(set(keys))):
        rows = connection.execute(
            leases.select()
            .with_only_columns(*columns, leases.c.record)
            .where(leases.c.namespace == namespace, tuple_(*columns).in_(some))
        )
        found |= {(row[0], row[1]): row[2] for row in rows}
    return found


def _portions(items: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(items), _PLACES_AT_A_TIME):
        yield items[first : first + _PLACES_AT_A_TIME]


class StoredMovements:
    """The movements of stored entries, one after the other, with their origins looked up in the ledger."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    def movement(self, read: ReadEntry, paid: Paid) -> Movement:
        """Return the movement of an entry. `paid` is the charge of the expiry of the lease that it closes."""
        places = origin_places(read)
        origins = stored_origins(self._connection, self._namespace, places) if places else {}
        return movement_of(read, paid, first_origin(places, origins))
