"""The examination of the SQL ledger: if it can be used, and if it has what was journalled."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ducto_redis.display import counted
from ducto_redis.doctor.findings import Finding
from ducto_redis.engine.ids import split_entry_id
from ducto_redis.errors import CreditError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import JournalledStore
from ducto_redis.store.contract import NamespaceState

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger


def examine_ledger(ledger: "Ledger | None", store: JournalledStore | None) -> Iterator[Finding]:
    """Yield if the ledger answers and is migrated, and how its entries compare with each partition's journal.

    Args:
        ledger: the ledger, or None if none is set.
        store: the engine, or None if it is not reachable.
    """
    if ledger is None:
        yield Finding("ledger", "warning", "DUCTO_LEDGER_URL is not set", "set it, so that the ledger is examined too")
        return
    name = store.namespace.name if store is not None else ""
    try:
        empty = ledger.is_empty(name)
    except CreditError as error:
        advice = "" if "ducto ledger migrate" in str(error) else "check DUCTO_LEDGER_URL and the database"
        yield Finding("ledger", "error", str(error), advice)
        return
    yield Finding("ledger", "ok", f"{ledger.name} answers")
    if store is not None:
        yield _head(ledger, store, empty)


def _head(ledger: "Ledger", store: JournalledStore, empty: bool) -> Finding:
    try:
        state = run_sync(store.read_namespace())
    except CreditError as error:
        return Finding("ledger and engine", "warning", f"not compared: {error}", "repair the namespace first")
    if state is NamespaceState.MISSING:
        if empty:
            return Finding("ledger and engine", "ok", "neither knows the namespace")
        return Finding(
            "ledger and engine",
            "error",
            "the ledger knows the namespace, but Redis does not: it lost its data",
            "restore its data (AOF, RDB or a replica)",
        )
    ends = store.journal_ends()
    ahead, behind = [], []
    for partition in store.partitions():
        position = ledger.position(store.namespace.name, partition)
        written, end = split_entry_id(position.entry_id) if position else (0, 0), ends.get(partition, (0, 0))
        if written > end:
            ahead.append(str(partition))
        elif written < end:
            behind.append(partition)
    if ahead:
        return Finding(
            "ledger and engine",
            "error",
            f"the ledger has newer entries of partition {', '.join(ahead)} than the journal: Redis was rolled back",
            "restore newer data (AOF, RDB or a replica)",
        )
    if behind:
        return Finding("ledger and engine", "ok", f"{counted(len(behind), 'partition')} with unwritten entries")
    return Finding("ledger and engine", "ok", "the ledger has everything that was journalled")
