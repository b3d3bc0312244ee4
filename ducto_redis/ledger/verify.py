"""The proof of the ledger: every account, computed again from its entries, one page of accounts at a time."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

from sqlalchemy import Connection, Row, func, select, union

from ducto_redis.engine.entry import UnreadableEntryError
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger.engine_check import EngineCheck, EngineStore
from ducto_redis.ledger.history import History
from ducto_redis.ledger.movements import StoredMovements
from ducto_redis.ledger.rebuilding import (
    ROWS_AT_A_TIME,
    derived_of,
    epoch_starts,
    stored_derived,
    stored_fields,
    stream_entries,
)
from ducto_redis.ledger.reports import AccountFailure, VerifyReport
from ducto_redis.ledger.rollup_check import StoredRollups, cells_differ, coarse_rollups_differ
from ducto_redis.ledger.rollups import Cells
from ducto_redis.ledger.rows import entry_of, read_parts
from ducto_redis.ledger.schema import accounts, entries, leases, unreadable

ACCOUNTS_AT_A_TIME = 500
FAILURES_KEPT = 1000
_KEY_KEPT_MS = 24 * 3600 * 1000


def verify(connection: Connection, namespace: str | None, store: EngineStore | None) -> VerifyReport:
    """Return the report of a proof, see `Ledger.verify`."""
    live = EngineCheck(store) if store is not None else None
    checked = _Checked()
    coarse: list[str] = []
    for name in _namespaces(connection) if namespace is None else (namespace,):
        compared = live if live and live.namespace == name else None
        rollups = StoredRollups(connection, name)
        for page, first, last in _pages(connection, name):
            _check_page(connection, name, page, (first, last), checked, compared, rollups)
        coarse += coarse_rollups_differ(connection, name)
    condition = () if namespace is None else (unreadable.c.namespace == namespace,)
    return VerifyReport(
        accounts=checked.accounts,
        entries=checked.entries,
        balance=checked.balance,
        held=checked.held,
        unreadable=connection.scalar(select(func.count()).select_from(unreadable).where(*condition)) or 0,
        failed=checked.failed,
        failures=tuple(checked.failures),
        rollups=tuple(coarse),
        compared=live.compared if live else 0,
        behind=live.behind if live else 0,
    )


class _Checked:
    """The findings so far."""

    def __init__(self) -> None:
        self.accounts = self.entries = self.balance = self.held = self.failed = 0
        self.failures: list[AccountFailure] = []

    def fail(self, namespace: str, account: str, reasons: Sequence[str]) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(AccountFailure(namespace=namespace, account=account, reasons=tuple(reasons)))


class _Stored:
    """An account's stored row, with its leases."""

    def __init__(self, row: Row[Any]) -> None:
        self.row = row
        fields = stored_fields(row.fields)
        self.readable = fields is not None
        self.state = AccountState(fields)

    def differences(self, folded: AccountState) -> Iterator[str]:
        """Yield the differences between the stored state and the one that the entries lead to."""
        row = self.row
        if not self.readable:
            yield "the stored fields cannot be read"
        for name, stored, expected in (
            ("epoch", row.epoch, int(folded.fields.get("epoch", "0"))),
            ("seq", row.seq, folded.seq),
            ("balance", row.balance, folded.balance),
            ("held", row.held, folded.held),
        ):
            if stored != expected:
                yield f"stored {name} is {stored}, but the entries lead to {expected}"
        if self.state.fields != folded.fields:
            yield "the stored fields differ from those that the entries lead to"
        if self.state.leases != folded.leases:
            yield "the stored leases differ from those that the entries lead to"
        if row.marks:
            yield f"marked: {row.marks}"


def _namespaces(connection: Connection) -> list[str]:
    return sorted(connection.scalars(union(select(accounts.c.namespace), select(entries.c.namespace))))


def _pages(connection: Connection, namespace: str) -> Iterator[tuple[dict[str, _Stored], str | None, str | None]]:
    """Yield stored accounts by id, with the bounds of their entries: above the first, up to the last.

    The last page has no end, so that entries of accounts that are not stored are found too.
    """
    first: str | None = None
    while True:
        statement = select(accounts).where(accounts.c.namespace == namespace)
        if first is not None:
            statement = statement.where(accounts.c.account > first)
        rows = connection.execute(statement.order_by(accounts.c.account).limit(ACCOUNTS_AT_A_TIME)).all()
        full = len(rows) == ACCOUNTS_AT_A_TIME
        yield {row.account: _Stored(row) for row in rows}, first, rows[-1].account if full else None
        if not full:
            return
        first = rows[-1].account


def _check_page(
    connection: Connection,
    namespace: str,
    page: dict[str, _Stored],
    bounds: tuple[str | None, str | None],
    checked: _Checked,
    live: EngineCheck | None,
    rollups: StoredRollups,
) -> None:
    reasons: dict[str, list[str]] = {}
    for row in connection.execute(select(leases).where(*_within(leases, namespace, bounds))):
        if row.account in page:
            page[row.account].state.leases[row.lease_id] = row.record
        else:
            reasons.setdefault(row.account, []).append(f"lease {row.lease_id!r} of an account that is not stored")
    folded = dict.fromkeys(page, AccountState())
    rows = stream_entries(connection, *_within(entries, namespace, bounds))
    for account, its_rows in groupby(rows, key=lambda row: row.account):
        stored = page.get(account)
        history, cells = _fold(connection, namespace, account, its_rows, checked, stored)
        folded[account] = history.state
        stored_cells, strangers = rollups.take(account)
        for stranger in strangers:
            reasons.setdefault(stranger, []).append("roll-ups without entries")
        for problem in cells_differ(stored_cells, cells):
            history.problem(problem)
        reasons.setdefault(account, []).extend(history.finish())
        if stored is None:
            reasons[account].append("the account's state is not stored")
    if bounds[1] is None:
        for stranger in rollups.rest():
            reasons.setdefault(stranger, []).append("roll-ups without entries")
    for account, stored in page.items():
        reasons.setdefault(account, []).extend(stored.differences(folded[account]))
        checked.balance += stored.row.balance
        checked.held += stored.row.held
    if live:
        for account, difference in live.compare({name: stored.state for name, stored in page.items()}).items():
            reasons[account].append(difference)
    checked.accounts += len(reasons)
    for account, its_reasons in reasons.items():
        if its_reasons:
            checked.fail(namespace, account, its_reasons)


def _fold(
    connection: Connection,
    namespace: str,
    account: str,
    rows: Iterator[Any],
    checked: _Checked,
    stored: _Stored | None,
) -> tuple[History, Cells]:
    # Nearly every account has one epoch; the others need a query first.
    starts: dict[int, int] = {}
    if stored is None or stored.row.epoch > 1:
        starts = epoch_starts(connection, namespace, account)
    history = History(starts)
    movements, cells = StoredMovements(connection, namespace), Cells()
    for row in rows:
        checked.entries += 1
        try:
            read = read_parts(entry_of(row))
        except UnreadableEntryError as error:
            history.problem(f"epoch {row.epoch}, seq {row.seq}: {error}")
            continue
        history.take(read, row.balance_after)
        movement = movements.movement(read, history.paid)
        if history.leads:
            cells.take(read.entry, read.entry_ms, movement, read.usages)
        derived = derived_of(row.balance_after, movement, superseded=not history.leads)
        for name, value in stored_derived(row).items():
            if value != derived[name]:
                history.problem(f"epoch {row.epoch}, seq {row.seq}: {name} is {value!r}, but must be {derived[name]!r}")
        if stored is not None and row.partition != stored.row.partition:
            history.problem(f"epoch {row.epoch}, seq {row.seq}: in partition {row.partition}, unlike its account")
    if starts:
        for problem in _counted_twice(connection, namespace, account, starts):
            history.problem(problem)
    return history, cells


def _counted_twice(connection: Connection, namespace: str, account: str, starts: dict[int, int]) -> Iterator[str]:
    """Yield operation keys that count in two epochs, within the time in which a key is one operation."""
    statement = (
        select(entries.c.operation_key, entries.c.epoch, entries.c.seq, entries.c.entry_ms)
        .where(entries.c.namespace == namespace, entries.c.account == account)
        .order_by(entries.c.operation_key, entries.c.epoch, entries.c.seq)
    )
    with connection.execute(statement.execution_options(yield_per=ROWS_AT_A_TIME)) as rows:
        leading = (row for row in rows if _leads_on(row.epoch, row.seq, starts))
        for first, second in pairwise(leading):
            if (
                first.operation_key == second.operation_key
                and first.epoch < second.epoch
                and second.entry_ms < first.entry_ms + _KEY_KEPT_MS
            ):
                yield (
                    f"{first.operation_key} counts twice: epoch {first.epoch}, seq {first.seq}"
                    f" and epoch {second.epoch}, seq {second.seq}"
                )


def _leads_on(epoch: int, seq: int, starts: dict[int, int]) -> bool:
    return not any(epoch < later and seq >= start for later, start in starts.items())


def _within(table: Any, namespace: str, bounds: tuple[str | None, str | None]) -> list[Any]:
    first, last = bounds
    conditions = [table.c.namespace == namespace]
    if first is not None:
        conditions.append(table.c.account > first)
    if last is not None:
        conditions.append(table.c.account <= last)
    return conditions
