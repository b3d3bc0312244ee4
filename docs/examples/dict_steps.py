"""The dictionaries and the lock: atomic steps on copies of accounts, the journal, and what falls due.

Every operation works on a copy of the account, which takes the account's place only where nothing was refused: so a
refusal changes nothing, wherever it is raised.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock

from dict_account import Account, describe
from dict_parts import CLOSED_KEPT_MS, NO_DETAILS, Grant, Lease, counted_scopes, time_of
from msgspec import structs

from ducto_redis import errors, results
from ducto_redis.engine.entry import Details, JournalEntry
from ducto_redis.engine.ids import RESERVED_ACCOUNT, check_account
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import Conditions, OperationKey, Page, PricingState
from ducto_redis.money import from_micro
from ducto_redis.store import CreditStore
from ducto_redis.store.contract import NamespaceState


@dataclass
class Data:
    """Everything of one namespace."""

    lock: RLock = field(default_factory=RLock)
    partitions: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    journal: dict[tuple[int, str], JournalEntry] = field(default_factory=dict)
    entry_number: int = 0
    documents: list[results.PricingVersion] = field(default_factory=list)
    active: int = 0
    activation: int = 0


class DictSteps(CreditStore):
    """All of a store but its operations.

    Args:
        data: where the accounts are; stores that share it have the same accounts.
        namespace: names it.
        clock_offset_ms: milliseconds by which the store's clock is ahead, for tests.
    """

    blocking = True
    durable = False
    local = True

    def __init__(self, data: Data, namespace: Namespace, clock_offset_ms: int = 0) -> None:
        self.data = data
        self.namespace = namespace
        self._clock_offset_ms = clock_offset_ms

    # The namespace

    async def read_namespace(self) -> NamespaceState:
        there, asked = self.data.partitions, self.namespace.partitions
        if there and there != asked:
            raise errors.PartitionMismatchError(
                f"the namespace has {there} partitions, not {asked}: partitions={there}"
            )
        return NamespaceState.OPEN if there else NamespaceState.MISSING

    async def create_namespace(self) -> None:
        with self.data.lock:
            self.data.partitions = self.data.partitions or self.namespace.partitions

    async def close(self) -> None:
        pass

    # How every operation works

    def _now(self) -> int:
        return time.time_ns() // 1_000_000 + self._clock_offset_ms

    @contextmanager
    def _changing(self, name: str, *, keep: bool = True) -> Iterator[Account]:
        """A copy of the account, with what has fallen due applied. At the end it takes the account's place."""
        with self.data.lock:
            if not self.data.partitions:
                raise errors.RecoveryNeededError(
                    f"namespace {self.namespace.name!r} is not there: its accounts are gone"
                )
            account = copy.deepcopy(self.data.accounts.get(name) or Account(name))
            account.now = self._now()
            account.applied = self._apply_due(account)
            yield account
            if keep:
                self.data.journal |= {(entry.partition, entry.entry_id): entry for entry in account.entries}
                account.entries = []
                self.data.accounts[name] = account

    @contextmanager
    def _looking(self, name: str, conditions: Conditions | None = None, *, caps: bool = False) -> Iterator[Account]:
        """A copy of the account as it is now, to be thrown away."""
        with self._changing(check_account(name), keep=False) as account:
            seq = account.seq - len(account.entries)
            if conditions is not None:
                self._begin(account, conditions, account.scopes() if caps else ())
            account.seq = seq
            yield account

    def _write(
        self,
        account: Account,
        operation: str,
        key: str,
        amount: int = 0,
        balance_change: int = 0,
        *,
        shortfall: int = 0,
        version: int = 0,
        cause: bytes = b"",
        details: Details = NO_DETAILS,
    ) -> str:
        """Journal a change, and name it."""
        account.seq += 1
        self.data.entry_number += 1
        entry = JournalEntry(
            partition=self.namespace.partition_of(account.name),
            entry_id=f"{account.now}-{self.data.entry_number}",
            operation=operation,
            account=account.name,
            epoch=1,
            seq=account.seq,
            operation_key=key,
            amount=amount,
            balance_change=balance_change,
            shortfall=shortfall,
            version=version,
            cause=cause.decode(),
            details=details.encode(),
            changes=(),
        )
        account.entries.append(entry)
        return entry.transaction_id

    def _begin(self, state: Account, conditions: Conditions, scopes: tuple[str, ...] = ()) -> None:
        """Open a new account with what the document gives it, and bring plan and windows up to now."""
        if not state.seq and conditions.opens:
            state.plan = conditions.plan
            if state.plan and conditions.terms is None:
                raise state.question()
            state.assigned = state.now
            state.balance += conditions.bonus
            self._write(state, "open_account", "open", conditions.bonus, conditions.bonus)
        state.take_terms(conditions, scopes)

    # What falls due

    def _apply_due(self, account: Account) -> tuple[int, int, int]:
        """Expire leases and grants whose time is over: how many of each, and the credits that went with grants."""
        leases = [lease for lease in account.open_leases if lease.expires <= account.now]
        for lease in sorted(leases, key=lambda lease: lease.expires):
            self._expire_lease(account, lease)
        grants = [grant for grant in account.expired_grants if not grant.expiry_applied]
        credits = 0
        for grant in grants:
            grant.expiry_applied = True
            credits += self._expire(account, grant, account.balance - account.held, f"grant/{grant.number}/expire")
        if leases:
            credits += self._expire_rests(account)
        forgotten = [
            lease
            for lease in account.leases.values()
            if not lease.open and lease.expires + CLOSED_KEPT_MS <= account.now
        ]
        for lease in forgotten:
            del account.leases[lease.lease_id]
        return len(leases), len(grants), credits

    def _expire_lease(self, account: Account, lease: Lease) -> None:
        before = account.balance
        lease.open = False
        if lease.terms.on_expiry == "charge":
            lease.charged = lease.amount
            counted = counted_scopes(lease.amount, lease.member, lease.models)
            lease.paid = account.charge(lease.allowance, lease.balance_part, counted, lease.member, lease=lease)
        key, change = f"lease/{lease.lease_id}/expire", account.balance - before
        self._write(account, "expire", key, lease.amount, change, version=lease.price.version, details=lease.paid)

    def _expire(self, account: Account, grant: Grant, most: int, key: str) -> int:
        part = min(grant.remaining, max(0, most))
        if part:
            account.balance -= part
            account.change_grant(grant, -part)
            self._write(account, "expire_grant", key, part, -part, details=Details(grants=(grant.part(part),)))
        return part

    def _expire_rests(self, account: Account) -> int:
        """After a lease closed: what no lease rests on any more of grants that have expired."""
        went, expired = 0, account.expired_grants
        excess = sum(grant.remaining for grant in expired) - max(0, account.held)
        for grant in expired:
            went += self._expire(account, grant, excess - went, f"grant/{grant.number}/expire/{account.seq + 1}")
        return went

    async def sweep_partition(
        self, partition: int, *, limit: int = 100, dry_run: bool = False, skip: int = 0
    ) -> results.SweepResult:
        swept: list[tuple[int, int, int]] = []
        now = self._now()
        for name in [name for name in self.data.accounts if self.namespace.partition_of(name) == partition]:
            if not self.data.accounts[name].is_due(now):
                continue
            if dry_run and skip:
                skip -= 1
            elif len(swept) < limit:
                with self._changing(name, keep=not dry_run) as state:
                    swept.append(state.applied)
        leases, grants, credits = (sum(numbers) for numbers in zip((0, 0, 0), *swept, strict=True))
        return results.SweepResult(
            accounts=len(swept), leases_expired=leases, grants_expired=grants, credits_expired=from_micro(credits)
        )

    # What there is

    async def get_balance(self, account: str, *, conditions: Conditions) -> results.Balance:
        with self._looking(account, conditions) as state:
            return describe(state).balance

    async def describe(self, account: str, *, conditions: Conditions) -> results.AccountDescription:
        with self._looking(account, conditions, caps=True) as state:
            return describe(state)

    async def list_leases(self, account: str, *, cursor: int = 0, count: int = 100) -> Page:
        with self._looking(account) as state:
            there = state.open_leases
            page = [lease.listed(state) for lease in there[cursor : cursor + count]]
            return Page(page, cursor + count if cursor + count < len(there) else 0)

    async def read_entry(self, partition: int, entry_id: str) -> JournalEntry | None:
        return self.data.journal.get((partition, entry_id))

    # Pricing documents

    async def publish_pricing(self, document: str, key: OperationKey, *, cause: bytes) -> results.PricingVersion:
        with self._changing(RESERVED_ACCOUNT) as state:
            if earlier := state.earlier(key, results.PricingVersion):
                return earlier
            version = len(self.data.documents) + 1
            published = results.PricingVersion(
                version=version,
                activation=self.data.activation + 1,
                active=True,
                published_at=time_of(state.now),
                document=document,
            )
            self.data.documents.append(published)
            self.data.active, self.data.activation = version, published.activation
            self._write(state, "publish_pricing", key.text, version=version, cause=cause)
            return state.remember(key, structs.replace(published, document=""))

    async def activate_pricing(self, version: int, *, cause: bytes) -> results.PricingVersion:
        with self._changing(RESERVED_ACCOUNT) as state:
            document = self._document(version)
            if version != self.data.active:
                self.data.active, self.data.activation = version, self.data.activation + 1
                document = structs.replace(document, activation=self.data.activation)
                self.data.documents[version - 1] = document
                self._write(
                    state, "activate_pricing", f"activation/{document.activation}", version=version, cause=cause
                )
            return structs.replace(document, active=True, document="")

    async def read_pricing(self, version: int = 0, *, known: int = 0) -> PricingState:
        with self._changing(RESERVED_ACCOUNT, keep=False):
            if not self.data.documents:
                raise errors.PricingNotLoadedError
            document = self._document(version or self.data.active)
            text = "" if document.version == known else document.document
            asked = structs.replace(document, active=document.version == self.data.active, document=text)
            return PricingState(self.data.active, self.data.activation, len(self.data.documents), asked)

    def _document(self, version: int) -> results.PricingVersion:
        if not 1 <= version <= len(self.data.documents):
            raise errors.ConfigError(f"there is no version {version}; the latest is {len(self.data.documents)}")
        return self.data.documents[version - 1]
