"""A lease from its reserve to its end, put together from its entries."""

from collections.abc import Sequence
from typing import Any

from ducto_redis.engine.entry import LEASE_CHANGE, JournalEntry, LeaseGrounds, LeaseRecord
from ducto_redis.engine.text import time_of
from ducto_redis.explain.history_reader import lease_of
from ducto_redis.explain.model import LeaseState, LeaseStory
from ducto_redis.money import from_micro


def lease_story(lease_id: str, life: Sequence[JournalEntry], missing: list[str]) -> LeaseStory:
    """Return the story of a lease.

    Args:
        lease_id: its id.
        life: its entries, in order.
        missing: gets notes of what they do not say.
    """
    story: dict[str, Any] = {"lease_id": lease_id, "state": "open"}
    its_own = [each for each in life if lease_of(each) == lease_id]
    first = next((each for each in its_own if each.operation == "reserve"), None)
    if first is None:
        missing.append(f"the reserve of lease {lease_id}: it is no longer in the journal or the ledger")
    else:
        story["reserved_by"], story["estimate"] = first.transaction_id, tuple(first.read_cause().usages)
    held = rest = None if first is None else first.amount
    for each in life:
        record = _record_in(each, lease_id)
        if record is not None:
            rest = record.amount  # leases inside it take from this
            held = rest if held is None else held
        if lease_of(each) != lease_id:
            continue
        if record is not None:
            grounds = LeaseGrounds.decode(record.grounds)
            story |= {
                "held_of_allowance": from_micro(grounds.allowance),
                "parent": grounds.parent,
                "opened_at": time_of(record.created_ms),
                "expires_at": time_of(record.expires_ms),
                "operation_type": record.operation_type,
                "owner": record.owner,
            }
        if each.operation == "extend":
            story["extended_by"] = (*story.get("extended_by", ()), each.transaction_id)
            held = each.amount + held if held is not None and first is not None else held
        elif each.operation == "release" and each.amount:
            rest = each.amount
            held = rest if held is None else held
        if each.operation in ("settle", "release", "expire"):
            story |= _end(each)
    if held is not None and rest is not None:
        story["held"], story["inside"] = from_micro(held), from_micro(max(0, held - rest))
        if story.get("charged") is not None:
            story["returned"] = (
                from_micro(0) if story.get("late") else max(from_micro(rest) - story["charged"], from_micro(0))
            )
    return LeaseStory(**story)


def _end(entry: JournalEntry) -> dict[str, Any]:
    states: dict[str, LeaseState] = {"settle": "settled", "release": "released", "expire": "expired"}
    end: dict[str, Any] = {
        "state": states[entry.operation],
        "closed_at": time_of(entry.time_ms),
        "closed_by": entry.transaction_id,
    }
    if entry.operation == "release":
        return {**end, "charged": None}
    details = entry.read_details()
    return {
        **end,
        "charged": from_micro(entry.charged) if entry.charged or entry.operation == "settle" else None,
        "shortfall": from_micro(entry.shortfall),
        "late": details.late,
    }


def record_of(entry: JournalEntry) -> LeaseRecord | None:
    """Return the record that an entry wrote of its lease, or None."""
    return LeaseRecord.decode(entry.lease[1]) if entry.lease is not None and entry.lease[1] else None


def _record_in(entry: JournalEntry, lease_id: str) -> LeaseRecord | None:
    for name, text in entry.changes:
        if name == LEASE_CHANGE + lease_id and text:
            return LeaseRecord.decode(text)
    return None
