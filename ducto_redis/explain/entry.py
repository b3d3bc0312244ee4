"""The explanation of a journal entry: the entry itself, what came before and after it, and its price."""

from typing import Literal

import msgspec
from msgspec import Struct

from ducto_redis.engine.cause import Cause
from ducto_redis.engine.description import describe
from ducto_redis.engine.entry import LEASE_CHANGE, Details, JournalEntry, LeaseGrounds, UnreadableEntryError
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.operation import CALLERS_KEY
from ducto_redis.engine.text import time_of
from ducto_redis.explain.history_reader import HistoryReader, lease_of
from ducto_redis.explain.lease import lease_story, record_of
from ducto_redis.explain.model import CapCount, RefundOf, Source
from ducto_redis.explain.price import explain_price
from ducto_redis.explain.transaction import Explanation
from ducto_redis.money import from_micro
from ducto_redis.pricing import PricingEngine
from ducto_redis.results import AccountDescription

_CHARGES = ("deduct", "settle")
_HOLDS = ("reserve", "extend")
_PRICED = (*_CHARGES, *_HOLDS)
_DETAILS = ("latest", "active", "name", "team")


class EntryHistory(Struct, frozen=True):
    """An entry with the history around it.

    Attributes:
        entry: the entry.
        details, cause: its parts, decoded; empty if they cannot be read.
        balance: micro-credits after it, or None if they are not known.
        lease_id: the lease that it belongs to, or None.
        lease: the entries of that lease, in order.
        refunds: the refunds of a charge, oldest first.
        missing: notes of everything that is unknown.
    """

    entry: JournalEntry
    details: Details
    cause: Cause
    balance: int | None
    lease_id: str | None
    lease: list[JournalEntry]
    refunds: list[JournalEntry]
    missing: list[str]

    @classmethod
    def read(cls, entry: JournalEntry, reader: HistoryReader) -> "EntryHistory":
        """Read the history of an entry. Blocking."""
        missing = reader.missing
        try:
            details, cause = entry.read_details(), entry.read_cause()
        except (UnreadableEntryError, msgspec.MsgspecError) as error:
            missing.append(f"the usage and its sources: the entry cannot be read ({error})")
            details, cause = Details(), Cause()
        balance = reader.balance_after(entry)
        if balance is None:
            missing.append("the balance before and after: it is no longer in the journal or the ledger")
        lease_id = lease_of(entry)
        lease = [] if lease_id is None else reader.of_lease(lease_id, entry)
        refunds = reader.refunds_of(entry) if entry.operation in _CHARGES else []
        return cls(entry, details, cause, balance, lease_id, lease, refunds, missing)

    @property
    def is_priced(self) -> bool:
        """True if the entry was priced by a pricing document."""
        return bool(self.cause.usages) and self.entry.operation in _PRICED

    def explanation(
        self, source: Literal["journal", "ledger"], engine: PricingEngine | None, limits: list[str]
    ) -> Explanation:
        """Return the explanation of the entry.

        Args:
            source: the place where the entry was found.
            engine: the engine of its pricing document, or None if it is not available.
            limits: notes of everything that cannot be known here.
        """
        entry, details, cause, balance = self.entry, self.details, self.cause, self.balance
        missing = list(self.missing)
        lease = None if self.lease_id is None else lease_story(self.lease_id, self.lease, missing)
        plan = _plan_of(entry, details)
        price = explain_price(entry, cause.usages, plan, engine, missing) if self.is_priced else None
        written = _written(entry, balance or 0)
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
            usage=tuple(cause.usages),
            price=price,
            sources=_sources(entry, details),
            caps=_caps(entry, details),
            low_levels=tuple(from_micro(level) for level in details.low),
            member=details.member or None,
            operation_type=details.operation_type or cause.operation_type,
            lease=lease,
            refunds=tuple(map(_refund, self.refunds)),
            refunded=from_micro(sum(refund.amount for refund in self.refunds)),
            refund_of=details.refund_of or None,
            lost=from_micro(details.lost),
            type=_type_of(entry, details, cause.type),
            plan=written.plan or plan,
            allowance=written.allowance if any(name == "period" for name, _ in entry.changes) else None,
            grants=tuple(grant for grant in written.grants if grant.number),
            caps_set=written.caps if entry.operation.endswith("_cap") else (),
            members=(*written.team.members, *written.team.removed) if written.team else (),
            details={name: text for name, text in entry.changes if name in _DETAILS},
            flags=tuple(cause.flags),
            actor=cause.actor,
            reason=cause.reason,
            metadata=cause.metadata,
            missing=(*missing, *limits),
        )


def _plan_of(entry: JournalEntry, details: Details) -> str | None:
    """Return the plan whose rates applied. A lease has it in its record."""
    if details.plan:
        return details.plan
    record = record_of(entry)
    return LeaseGrounds.decode(record.grounds).plan or None if record is not None else None


def _sources(entry: JournalEntry, details: Details) -> tuple[Source, ...]:
    """Return the sources that paid, or that got credits back."""
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


def _type_of(entry: JournalEntry, details: Details, stated: str | None) -> str | None:
    if stated is None and entry.operation == "expire_grant" and details.grants:
        return details.grants[0].type
    return stated


def _callers_key(entry: JournalEntry) -> str | None:
    return entry.operation_key.removeprefix(CALLERS_KEY) if entry.operation_key.startswith(CALLERS_KEY) else None


def _written(entry: JournalEntry, balance: int) -> AccountDescription:
    """Return the fields that an entry wrote, as a description of its account."""
    fields = {"frozen": "", "low": "", "team": ""}
    if entry.account != RESERVED_ACCOUNT:
        kept = (pair for pair in entry.changes if pair[1] and not pair[0].startswith(LEASE_CHANGE))
        fields.update(kept)
        if not fields["team"] and any(name.startswith("member/") for name in fields):
            fields["team"] = entry.account
    parts = [str(number) for number in (entry.time_ms, balance, 0, entry.seq, 0)]
    return describe(entry.account, [*parts, *(part for pair in fields.items() for part in pair)])
