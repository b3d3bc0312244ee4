"""Explanations of transactions and balances."""

from typing import Literal

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.ids import TransactionId
from ducto_redis.errors import TransactionNotFoundError
from ducto_redis.explain.balance import BalanceExplanation
from ducto_redis.explain.balance_history import BalanceHistory, of_ledger, read_history
from ducto_redis.explain.entry import EntryHistory
from ducto_redis.explain.history_reader import HistoryReader
from ducto_redis.explain.transaction import Explanation
from ducto_redis.manager.base import ManagerBase

_WAIT_SECONDS = 10.0


class Explaining(ManagerBase):
    """The part of a manager that explains transactions and balances."""

    async def explain(self, transaction_id: str) -> Explanation:
        """Return everything that is known of a transaction: usage, price, sources, lease, caps, refunds, balance.

        It comes from the journal in Redis, the ledger, and the pricing document that the transaction names. Its
        `missing` lists what is unknown. `print` it for a text.

        Args:
            transaction_id: the id, as every result has it.

        Raises:
            TransactionNotFoundError: if neither the journal nor the ledger has it.
            LedgerError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        await self._wait_for_local_ledger()
        entry, source = await self._find_entry(transaction_id)
        reader = HistoryReader(self.store, self.ledger, entry.account, entry.partition)
        history = await self._in_thread(lambda: EntryHistory.read(entry, reader))
        engine = await self.pricing.engine_of(entry.version) if history.is_priced else None
        return history.explanation(source, engine, reader.limits())

    async def explain_balance(self, account: str, *, movements: int = 10) -> BalanceExplanation:
        """Return how an account's balance came about, in lines that add up to it.

        The sum is checked, and `problems` lists what does not add up. All of the account's history is read, some
        entries at a time.

        Args:
            account: the account.
            movements: the number of last movements to list.

        Raises:
            InvalidIdError, LedgerError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        partition = self.store.namespace.account(account).partition
        await self._wait_for_local_ledger()
        described = await self._describe(account)
        leases = await self._open_leases(account)
        history = BalanceHistory(described, movements)
        reader = HistoryReader(self.store, self.ledger, account, partition)
        ledger, namespace = self.ledger, self.store.namespace.name
        changes = () if ledger is None else of_ledger(ledger.account_entries(namespace, account))
        await self._in_thread(lambda: read_history(history, reader, changes))
        history.missing += [*reader.limits(), *reader.missing]
        return history.result(leases)

    async def _wait_for_local_ledger(self) -> None:
        if self.ledger is not None and self.store.local:
            await self._in_thread(lambda: self._ledger_access.wait(_WAIT_SECONDS))

    async def _find_entry(self, transaction_id: str) -> tuple[JournalEntry, Literal["journal", "ledger"]]:
        place = TransactionId.parse(transaction_id) if isinstance(transaction_id, str) else None
        if place is None:
            raise TransactionNotFoundError(str(transaction_id)[:200])
        if place.partition < self.store.namespace.partitions:
            found = await self.store.read_entry(place.partition, place.entry_id)
            if found is not None and found.epoch == place.epoch:
                return found, "journal"
        ledger = self.ledger
        if ledger is not None:
            namespace = self.store.namespace.name
            stored = await self._in_thread(lambda: ledger.entry(namespace, transaction_id))
            if stored is not None:
                return stored, "ledger"
        raise TransactionNotFoundError(transaction_id)
