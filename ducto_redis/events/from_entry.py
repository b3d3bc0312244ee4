"""The facts of a journal entry, and its events."""

from collections.abc import Iterator
from typing import Any

from ducto_redis.engine.entry import JournalEntry, LeaseGrounds, LeaseRecord
from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.text import RECORD_SEPARATOR, time_of
from ducto_redis.events.facts import Facts
from ducto_redis.events.telling import TOLD, events_of
from ducto_redis.events.types import CreditEvent
from ducto_redis.money import from_micro
from ducto_redis.results import CapWarning

_TYPES = {"adjust_credits": "adjustment", "open_account": "signup_bonus"}


def entry_events(entry: JournalEntry) -> Iterator[CreditEvent]:
    """Yield the events of a journal entry. The same entry always gives the same events.

    Raises:
        UnreadableEntryError: if the entry is damaged.
    """
    if entry.operation in TOLD:
        facts = facts_of(entry)
        if facts is not None:
            yield from events_of(entry.operation, facts)


def facts_of(entry: JournalEntry) -> Facts | None:
    """Return the facts of an entry, or None for a hold whose lease it does not record.

    Raises:
        UnreadableEntryError: if the entry is damaged.
    """
    cause, details, fields = entry.read_cause(), entry.read_details(), dict(entry.changes)
    lease_id, record = entry.lease or ("", "")
    lease = LeaseRecord.decode(record) if record else None
    grounds = LeaseGrounds.decode(lease.grounds if lease else "")
    balance = fields.get("balance")
    facts: dict[str, Any] = {
        "amount": from_micro(entry.amount),
        "allowance": from_micro(details.allowance),
        "type": _TYPES.get(entry.operation, cause.type),
    }
    match entry.operation:
        case "reserve" | "extend":
            if lease is None:
                return None
            facts |= {
                "amount": from_micro(lease.amount),
                "allowance": from_micro(grounds.allowance),
                "operation_type": lease.operation_type,
                "expires_at": time_of(lease.expires_ms),
            }
        case "deduct":
            facts |= {"operation_type": cause.operation_type or "default"}
        case "settle":
            facts |= {"amount": from_micro(entry.charged)}
        case "expire":
            facts |= {"charged": from_micro(entry.charged)}
        case "add_credits" | "adjust_credits":
            facts |= _grant_facts(entry, fields)
        case "open_account":
            facts |= _grant_facts(entry, fields)
            facts |= {"plan": _plan(fields.get("plan", ""))}
        case "set_plan":
            facts |= {"plan": _plan(fields["plan"])}
        case "expire_grant":
            facts |= {"grants": 1, "grant": details.grants[0].number, "type": details.grants[0].type}
        case "publish_pricing" | "activate_pricing":
            facts |= {"version": entry.version, "activation": int(fields["activation"])}
    return Facts(
        transaction_id=entry.transaction_id,
        account="" if entry.account == RESERVED_ACCOUNT else entry.account,
        balance_after=None if balance is None else from_micro(int(balance)),
        balance_change=from_micro(entry.balance_change),
        shortfall=from_micro(entry.shortfall),
        lost=from_micro(details.lost),
        lease_id=lease_id,
        parent=grounds.parent,
        late=details.late,
        models=tuple(usage.model for usage in cause.usages if usage.model),
        member=details.member or grounds.member or None,
        actor=cause.actor,
        reason=cause.reason,
        refund_of=details.refund_of,
        low_levels=[from_micro(level) for level in details.low],
        crossed=[CapWarning(cap_id=cap.cap_id, scope=cap.scope, action=cap.action) for cap in details.crossed],
        metadata=cause.metadata,
        **facts,
    )


def _grant_facts(entry: JournalEntry, fields: dict[str, str]) -> dict[str, Any]:
    grant = fields.get(f"grant/{entry.seq}", "")
    expires_ms = int(grant.split(RECORD_SEPARATOR)[1]) if grant else 0
    return {"expires_at": time_of(expires_ms) if expires_ms else None}


def _plan(field: str) -> str | None:
    return field.split(RECORD_SEPARATOR)[0] or None
