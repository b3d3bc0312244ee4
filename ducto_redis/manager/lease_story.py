"""A lease from its reserve to its end, as its entries tell it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ducto_redis.engine.entry import LEASE_CHANGE, JournalEntry, LeaseGrounds, LeaseRecord
from ducto_redis.manager.explanation import LeaseState, LeaseStory
from ducto_redis.money import from_micro


def lease_story(lease_id: str, life: Sequence[JournalEntry], missing: list[str]) -> LeaseStory:
    """What became of a lease.

    Args:
        lease_id: its id.
        life: its entries, in order.
        missing: is told what they do not say.
    """
    story: dict[str, Any] = {"lease_id": lease_id, "state": "open"}
    first = next((each for each in life if each.operation == "reserve"), None)
    if first is None:
        missing.append(f"the reserve of lease {lease_id}: neither the journal nor the ledger has it any more")
    else:
        story["reserved_by"], story["estimate"] = first.transaction_id, tuple(first.read_cause().usages)
    held = None if first is None else first.amount
    for each in life:
        record = record_of(each)
        if record is not None:
            grounds = LeaseGrounds.decode(record.grounds)
            held = record.amount
            story |= {
                "held_of_allowance": from_micro(grounds.allowance),
                "opened_at": time_of(record.created_ms),
                "expires_at": time_of(record.expires_ms),
                "operation_type": record.operation_type,
                "owner": record.owner,
            }
        if each.operation == "extend":
            story["extended_by"] = (*story.get("extended_by", ()), each.transaction_id)
        elif each.operation == "release" and each.amount:
            held = each.amount
        if each.operation in ("settle", "release", "expire"):
            story |= _end(each)
    if held is not None:
        story["held"] = from_micro(held)
        if story.get("charged") is not None:
            story["returned"] = (
                from_micro(0) if story.get("late") else max(story["held"] - story["charged"], from_micro(0))
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
    """The record of the lease that an entry wrote, or None."""
    for name, text in entry.changes:
        if name.startswith(LEASE_CHANGE) and text:
            return LeaseRecord.decode(text)
    return None


def time_of(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
