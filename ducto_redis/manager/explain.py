"""Explaining: one transaction, and how a balance came about."""

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import msgspec

from ducto_redis.engine.description import describe
from ducto_redis.engine.entry import (
    LEASE_CHANGE,
    Details,
    JournalEntry,
    LeaseGrounds,
    UnreadableEntryError,
)
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.operation import CALLERS_KEY
from ducto_redis.errors import CreditError, TransactionNotFoundError
from ducto_redis.explain.balance_history import BalanceHistory, of_ledger, read_history
from ducto_redis.explain.history_reader import Evidence, lease_of
from ducto_redis.explain.lease import lease_story, record_of, time_of
from ducto_redis.explain.model import (
    BalanceExplanation,
    CapCount,
    Explanation,
    Price,
    RefundOf,
    Source,
)
from ducto_redis.manager.base import ManagerBase
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import from_micro
from ducto_redis.pricing.exact import round_fraction
from ducto_redis.results import AccountDescription, Lease

_TRANSACTION = re.compile(r"(\d{1,5})-(\d{1,16})-(\d{1,16}-\d{1,20})", re.ASCII)
_WAIT_SECONDS = 10.0
_EXACT_PLACES = 18
_CHARGES = ("deduct", "settle")
_HOLDS = ("reserve", "extend")
_PRICED = (*_CHARGES, *_HOLDS)
_WORTH_TELLING = ("latest", "active", "name")


class Explaining(ManagerBase):
    """The part of a manager that says why."""

    async def explain(self, transaction_id: str) -> Explanation:
        """Say all that there is to say of a transaction: what was used, how it was priced, who paid, what came of it.

        It comes from the journal in Redis and from the ledger, and from the pricing document that the transaction
        names. What is known of it no more is listed in `missing`. `print` it to read it in words.

        Args:
            transaction_id: as every result carries it.

        Raises:
            TransactionNotFoundError: if neither the journal nor the ledger has it.
            LedgerError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        await self._wait_for_local_ledger()
        entry, source = await self._find_entry(transaction_id)
        evidence = Evidence(self.store, self.ledger, entry.account, entry.partition)
        try:
            details, cause = entry.read_details(), entry.read_cause()
            usage = tuple(cause.usages)
        except (UnreadableEntryError, msgspec.MsgspecError) as error:
            evidence.missing.append(f"what was used and who paid: the entry cannot be read ({error})")
            details, usage, cause = Details(), (), None
        balance = await self._in_thread(lambda: evidence.balance_after(entry))
        if balance is None:
            evidence.missing.append("the balance before and after: neither the journal nor the ledger says it any more")
        lease_id = lease_of(entry)
        life: list[JournalEntry] = []
        if lease_id is not None:
            life = await self._in_thread(lambda: evidence.of_lease(lease_id, entry))
        refunds: list[JournalEntry] = []
        if entry.operation in _CHARGES:
            refunds = await self._in_thread(lambda: evidence.refunds_of(entry))
        lease = None if lease_id is None else lease_story(lease_id, life, evidence.missing)
        plan = _plan_of(entry, details)
        price = await self._explain_price(entry, usage, plan, evidence.missing)
        written = _written(entry, balance or 0)
        evidence.missing += evidence.limits()
        return Explanation(
            transaction_id=entry.transaction_id,
            account=entry.account,
            operation=entry.operation,
            at=time_of(entry.time_ms),
            source=source,
            key=_callers_key(entry),
            amount=from_micro(entry.amount),
            charged=from_micro(entry.charged),
            shortfall=from_micro(entry.shortfall),
            balance_change=from_micro(entry.balance_change),
            balance_before=None if balance is None else from_micro(balance - entry.balance_change),
            balance_after=None if balance is None else from_micro(balance),
            usage=usage,
            price=price,
            sources=_sources(entry, details),
            caps=_caps(entry, details),
            low_levels=tuple(from_micro(level) for level in details.low),
            member=details.member or None,
            operation_type=details.operation_type or (cause.operation_type if cause else None),
            lease=lease,
            refunds=tuple(map(_refund, refunds)),
            refunded=from_micro(sum(refund.amount for refund in refunds)),
            refund_of=details.refund_of or None,
            lost=from_micro(details.lost),
            type=_type_of(entry, details, cause.type if cause else None),
            plan=written.plan or plan,
            allowance=written.allowance if any(name == "period" for name, _ in entry.changes) else None,
            grants=tuple(grant for grant in written.grants if grant.number),
            caps_set=written.caps if entry.operation.endswith("_cap") else (),
            members=(*written.team.members, *written.team.removed) if written.team else (),
            details={name: text for name, text in entry.changes if name in _WORTH_TELLING or name == "team"},
            flags=tuple(cause.flags) if cause else (),
            actor=cause.actor if cause else None,
            reason=cause.reason if cause else None,
            metadata=cause.metadata if cause else None,
            missing=tuple(evidence.missing),
        )

    async def explain_balance(self, account: str, *, movements: int = 10) -> BalanceExplanation:
        """Say how an account's balance came about, in lines that add up to it: checked, and said where they do not.

        All of the account's history is read, some entries at a time.

        Args:
            account: whose balance.
            movements: how many of the last movements are listed.

        Raises:
            InvalidIdError, LedgerError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        partition = self.store.namespace.account(account).partition
        await self._wait_for_local_ledger()
        described = await self._describe(account)
        leases = await self._leases_held(account)
        history = BalanceHistory(described, movements)
        evidence = Evidence(self.store, self.ledger, account, partition)
        ledger, namespace = self.ledger, self.store.namespace.name
        changes = () if ledger is None else of_ledger(ledger.trace_account(namespace, account))
        await self._in_thread(lambda: read_history(history, evidence, changes))
        history.missing += [*evidence.limits(), *evidence.missing]
        return history.result(leases)

    async def _leases_held(self, account: str) -> list[Lease]:
        leases, cursor = [], 0
        while True:
            page = await self.store.list_leases(account, cursor=cursor)
            leases += page.leases
            cursor = page.cursor
            if not cursor:
                return list({lease.lease_id: lease for lease in leases}.values())

    async def _wait_for_local_ledger(self) -> None:
        if self.ledger is not None and self.store.local:
            await self._in_thread(lambda: self._ledger_access.wait(_WAIT_SECONDS))

    async def _find_entry(self, transaction_id: str) -> tuple[JournalEntry, Literal["journal", "ledger"]]:
        parts = _TRANSACTION.fullmatch(transaction_id) if isinstance(transaction_id, str) else None
        if parts is None:
            raise TransactionNotFoundError(str(transaction_id)[:200])
        partition, epoch, entry_id = int(parts[1]), int(parts[2]), parts[3]
        if partition < self.store.namespace.partitions:
            found = await self.store.read_entry(partition, entry_id)
            if found is not None and found.epoch == epoch:
                return found, "journal"
        ledger = self.ledger
        if ledger is not None:
            namespace = self.store.namespace.name
            stored = await self._in_thread(lambda: ledger.entry(namespace, transaction_id))
            if stored is not None:
                return stored, "ledger"
        raise TransactionNotFoundError(transaction_id)

    async def _explain_price(
        self, entry: JournalEntry, usages: Sequence[UsageMetrics], plan: str | None, missing: list[str]
    ) -> Price | None:
        if not usages or entry.operation not in _PRICED:
            return None
        unexplained = Price(
            version=entry.version, plan=plan, costs=(), exact=None, rounding=None, total=from_micro(entry.amount)
        )
        engine = await self.pricing.engine_of(entry.version)
        if engine is None:
            which = f"version {entry.version} of the pricing document" if entry.version else "the manager's own engine"
            missing.append(f"how it was priced: {which} is not to be had here")
            return unexplained
        try:
            costs = tuple(engine.calculate(usage, plan) for usage in usages)
            exact = sum((max(engine.exact(usage, plan), Fraction(0)) for usage in usages), Fraction(0))
        except CreditError as error:
            missing.append(f"how it was priced: version {entry.version} does not price it so ({error})")
            return unexplained
        total = sum((cost.total for cost in costs), Decimal(0))
        if total != unexplained.total:
            missing.append(
                f"how it was priced: by version {entry.version} it is {total} credits, and {unexplained.total} were"
                " asked for"
            )
            return unexplained
        exact_credits = _decimal(exact)
        return Price(
            version=entry.version,
            plan=plan,
            costs=costs,
            exact=exact_credits,
            rounding=_decimal(Fraction(total) - exact),
            total=unexplained.total,
        )


def _plan_of(entry: JournalEntry, details: Details) -> str | None:
    """The plan whose rates applied. A lease's is in its record."""
    if details.plan:
        return details.plan
    record = record_of(entry)
    return LeaseGrounds.decode(record.grounds).plan or None if record is not None else None


def _sources(entry: JournalEntry, details: Details) -> tuple[Source, ...]:
    """What paid, or what it went back to."""
    if entry.operation == "refund":
        of_balance = entry.balance_change
    elif entry.operation in (*_CHARGES, "expire"):
        of_balance = entry.charged - details.allowance
    elif entry.operation == "expire_grant" or (entry.operation == "adjust_credits" and entry.balance_change < 0):
        of_balance = -entry.balance_change
    else:
        return ()
    sources = []
    if details.allowance:
        sources.append(Source(kind="allowance", amount=from_micro(details.allowance), period=details.period))
    for grant in details.grants:
        of_balance -= grant.amount
        sources.append(
            Source(
                kind="grant",
                amount=from_micro(grant.amount),
                grant=grant.number,
                type=grant.type,
                priority=grant.priority,
                expires_at=time_of(grant.expires_ms) if grant.expires_ms else None,
            )
        )
    if of_balance:
        sources.append(Source(kind="pool", amount=from_micro(of_balance)))
    return tuple(sources)


def _caps(entry: JournalEntry, details: Details) -> tuple[CapCount, ...]:
    crossed = {(crossing.cap_id, crossing.scope): crossing.action for crossing in details.crossed}
    record = record_of(entry) if entry.operation in _HOLDS else None
    grounds = None if record is None else LeaseGrounds.decode(record.grounds)
    counted: dict[tuple[str, str], int] = {}
    for cap in details.caps if grounds is None else (*grounds.caps, *grounds.lent):
        counted[cap.cap_id, cap.scope] = counted.get((cap.cap_id, cap.scope), 0) + cap.amount
    return tuple(
        CapCount(
            cap_id=cap_id,
            scope=scope,
            amount=from_micro(counted.get((cap_id, scope), 0)),
            crossed=crossed.get((cap_id, scope)),
        )
        for cap_id, scope in dict.fromkeys((*counted, *crossed))
    )


def _refund(entry: JournalEntry) -> RefundOf:
    return RefundOf(
        transaction_id=entry.transaction_id,
        at=time_of(entry.time_ms),
        amount=from_micro(entry.amount),
        lost=from_micro(entry.read_details().lost),
        reason=entry.read_cause().reason,
    )


def _type_of(entry: JournalEntry, details: Details, said: str | None) -> str | None:
    if said is None and entry.operation == "expire_grant" and details.grants:
        return details.grants[0].type
    return said


def _callers_key(entry: JournalEntry) -> str | None:
    return entry.operation_key.removeprefix(CALLERS_KEY) if entry.operation_key.startswith(CALLERS_KEY) else None


def _written(entry: JournalEntry, balance: int) -> AccountDescription:
    """What an entry wrote, in the form of an account's description."""
    fields = {"frozen": "", "low": "", "team": ""}
    if entry.account != RESERVED_ACCOUNT:
        kept = (pair for pair in entry.changes if pair[1] and not pair[0].startswith(LEASE_CHANGE))
        fields.update(kept)
        if not fields["team"] and any(name.startswith("member/") for name in fields):
            fields["team"] = entry.account
    parts = [str(number) for number in (entry.time_ms, balance, 0, entry.seq, 0)]
    return describe(entry.account, [*parts, *(part for pair in fields.items() for part in pair)])


def _decimal(value: Fraction) -> Decimal:
    units = round_fraction(value * 10**_EXACT_PLACES)
    return Decimal((units < 0, tuple(map(int, str(abs(units)))), -_EXACT_PLACES))
