"""A store that is looked at around every operation: a change is a change, and nothing else changes anything."""

from collections.abc import Callable
from typing import Any

from msgspec import structs

from ducto_redis.engine.ids import TransactionId
from ducto_redis.engine.operation import PLAIN, Conditions
from ducto_redis.errors import CreditError, RepriceLease, StalePricing, TermsNeeded
from ducto_redis.results import AccountDescription, Change, Lease
from ducto_redis.store.contract import CreditStore, JournalledStore
from ducto_redis.testing.inspection import BY_ITSELF, Snapshot, dump
from ducto_redis.testing.operations import ENTRIES, READS, WITHOUT_MARK


class WatchedStore:
    """Looks at the state around every operation.

    Of any store it looks at what the contract shows of the account: a refusal, a replay and a read leave it as it was,
    and a change has an entry that can be read, whose change of the balance is the account's. Of a `JournalledStore` it
    looks at every key: a change is one entry of its own, after those of what has fallen due, folding the journal gives
    exactly the accounts' keys, and a refusal, a replay and a read touch nothing.
    """

    def __init__(self, store: CreditStore) -> None:
        self.inner = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in ENTRIES and name not in READS:
            return method
        if isinstance(self.inner, JournalledStore):
            return self._journal_watched(self.inner, name, method)
        return self._watched(name, method)

    def _journal_watched(self, store: JournalledStore, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            before = dump(store)
            reads = _only_reads(name, options)
            try:
                result = await method(*args, **options)
            except (CreditError, StalePricing, RepriceLease, TermsNeeded):
                _check_keys(name, before, dump(store), changed=False, reads=reads)
                raise
            changed = None if name in WITHOUT_MARK else not reads and not result.replayed
            _check_keys(name, before, dump(store), changed=changed, reads=reads)
            return result

        return call

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            if name in WITHOUT_MARK or name in ("read_pricing", "read_entry", "kept_value"):
                return await method(*args, **options)
            account, conditions = args[0], options.get("conditions", PLAIN)
            before = await _look(self.inner, account, conditions)
            try:
                result = await method(*args, **options)
            except (CreditError, StalePricing, RepriceLease, TermsNeeded):
                assert _visible(await _look(self.inner, account, conditions)) == _visible(before), f"{name}, refused"
                raise
            after = await _look(self.inner, account, conditions)
            if _only_reads(name, options) or result.replayed:
                assert _visible(after) == _visible(before), f"{name} changed something"
            else:
                await self._check_change(name, result, before, after)
            return result

        return call

    async def _check_change(self, name: str, result: Any, before: "_Look", after: "_Look") -> None:
        place = TransactionId.read(result.transaction_id)
        entry = await self.inner.read_entry(place.partition, place.entry_id)
        assert entry is not None, f"{name} has no entry"
        assert entry.operation in ENTRIES[name], f"the entry of {name}"
        assert (entry.account, entry.transaction_id) == (result.account, result.transaction_id)
        if isinstance(before, tuple) and isinstance(after, tuple):
            was, now = before[0].balance, after[0].balance
            assert now.seq > was.seq, f"seq of {name}"
            if isinstance(result, Change):
                assert result.balance_after == now.balance, f"balance after {name}"
                assert result.available == now.available, f"available after {name}"


_Look = tuple[AccountDescription, tuple[Lease, ...]] | str


async def _look(store: CreditStore, account: str, conditions: Conditions) -> _Look:
    try:
        description = await store.describe(account, conditions=conditions)
        page = await store.list_leases(account, count=1000)
    except (CreditError, TermsNeeded) as refused:
        return type(refused).__name__
    return description, tuple(sorted(page.leases, key=lambda lease: lease.lease_id))


def _visible(look: _Look) -> Any:
    # Without what time alone changes, and without seq: what has fallen due may have been applied.
    if isinstance(look, str):
        return look
    description, leases = look
    values = structs.asdict(description)
    del values["now"]
    values["balance"] = structs.replace(description.balance, seq=0)
    if description.balance.seq == 0:
        del values["plan_assigned_at"]  # it would be assigned now
    values["caps"] = [structs.replace(cap, window_start=None) if cap.rolling else cap for cap in description.caps]
    return values, [structs.replace(lease, age_seconds=0) for lease in leases]


def _only_reads(name: str, options: dict[str, Any]) -> bool:
    return name in READS or options.get("dry_run", False)


def _check_keys(name: str, before: Snapshot, after: Snapshot, *, changed: bool | None, reads: bool) -> None:
    known = {entry.entry_id for entry in before.journal()}
    made = [entry.operation for entry in after.journal() if entry.entry_id not in known]
    own = [operation for operation in made if operation not in BY_ITSELF]
    if changed is not None:
        assert len(own) == changed, f"entries of {name}: {made}"
        assert set(own) <= ENTRIES.get(name, set()), f"entries of {name}: {made}"
        assert changed or "open_account" not in made, f"{name} opened an account"
    if reads or not made:
        assert after == before, f"{name} changed something"
    after.check()
