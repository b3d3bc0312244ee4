"""What a store keeps of an account, read from its fields and its journal in the words of the model."""

from collections.abc import Iterable, Mapping
from typing import Any

from ducto_redis.engine.entry import CapPart, JournalEntry, LeaseGrounds, LeaseRecord
from tests.model.account import Account, Cap, Counted, Crossed, Entry, Lease, Paid, Part
from tests.model.caps import BUCKETS, WINDOW_LENGTHS

Names = dict[tuple[str, str], int]
"""Which cap of the model a scope's cap id names."""


def extras_of(account: Account, now: int) -> dict[str, Any]:
    """What only some accounts have, of the model."""
    plan, period = account.plan, account.period
    return {
        "extras": account.extras,
        "plan": plan and (plan.id, plan.assigned, plan.time_zone, plan.activation, set(plan.scopes)),
        "period": period
        and (period.number, period.start, period.end, period.limit, period.rolled, period.used, period.held),
        "grants": {
            grant.number: (grant.remaining, grant.expires, grant.priority, grant.type, grant.amount, grant.added)
            for grant in account.grants.values()
        },
        "order": [grant.number for grant in sorted(account.grants.values(), key=_spent_first)],
        "caps": sorted((cap.scope, cap.source, *cap.kind, *_counts(cap, now)) for cap in account.caps),
        "taken": {scope: activation for scope, activation in account.taken.items() if activation},
        "frozen": account.frozen,
        "low": account.low,
        "team": account.team,
        "members": {user: (member.role, member.joined, member.spent) for user, member in account.members.items()},
    }


def stored_extras(fields: Mapping[str, str], now: int) -> dict[str, Any]:
    """What only some accounts have, of the store."""
    plan = fields.get("plan", "").split("\x1f")
    period = fields.get("period", "")
    grants = {name[6:]: text.split("\x1f") for name, text in fields.items() if name.startswith("grant/")}
    scopes = {scope: text.split("\x1e") for scope, text in scopes_of(fields).items()}
    return {
        "extras": "extras" in fields,
        "plan": (plan[0], int(plan[1]), plan[2], int(plan[3]), set(filter(None, plan[4].split("\x1d"))))
        if plan[0]
        else None,
        "period": tuple(map(int, period.split("\x1f"))) if period else None,
        "grants": {
            int(number): (int(text[0]), int(text[1]), int(text[2]), text[3], int(text[4]), int(text[5]))
            for number, text in grants.items()
        },
        "order": [int(number) for number in fields.get("grants", "").split()],
        "caps": sorted(
            (scope, cap.source, *cap.kind, *_counts(cap, now))
            for scope, records in scopes.items()
            for _, cap in map(lambda record, scope=scope: read_cap(scope, record), records[1:])
        ),
        "taken": {scope: int(records[0]) for scope, records in scopes.items() if int(records[0])},
        "frozen": fields.get("frozen", ""),
        "low": {int(level) for level in fields.get("low", "").split()},
        "team": fields.get("team"),
        "members": {
            name[7:]: (role, int(joined), int(spent))
            for name, (role, joined, spent) in (
                (name, text.split("\x1f")) for name, text in fields.items() if name.startswith("member/")
            )
        },
    }


def scopes_of(fields: Mapping[str, str]) -> dict[str, str]:
    """The caps fields by their scope."""
    scopes = {name[5:]: text for name, text in fields.items() if name.startswith("caps/")}
    if "caps" in fields:
        scopes["account"] = fields["caps"]
    return {scope: text for scope, text in scopes.items() if text}


def read_cap(scope: str, record: str) -> tuple[str, Cap]:
    """A cap's id and what is stored of it."""
    cap_id, source, window, rolling, action, zone, limit, used, held, start, end, raised, until, crossed, buckets = (
        record.split("\x1f")
    )
    counted = dict(map(int, bucket.split(":")) for bucket in buckets.split())
    return cap_id, Cap(
        0, scope, source, window, rolling == "1", action, zone, int(limit), int(used), int(held), int(start), int(end),
        int(raised) if raised else None, int(until), crossed == "1", counted,
    )  # fmt: skip


def names_of(account: Account, fields: Mapping[str, str]) -> Names:
    """Which cap of the model each id names."""
    names = {}
    for scope, text in scopes_of(fields).items():
        for record in text.split("\x1e")[1:]:
            cap_id, stored = read_cap(scope, record)
            for cap in account.caps:
                if (cap.scope, cap.source, *cap.kind) == (scope, stored.source, *stored.kind):
                    names[scope, cap_id] = cap.number
    return names


def lease_of(lease: Lease) -> tuple[Any, ...]:
    return (
        lease.open, lease.amount, lease.charged, lease.created, lease.expires, lease.floor, lease.version, lease.member,
        lease.models, lease.plan, lease.allowance, lease.period if lease.allowance else 0, lease.parents,
        *(_by_cap((record.cap, record.amount) for record in records) if lease.open else {}
          for records in (lease.caps, lease.lent)),
    )  # fmt: skip


def stored_lease(record: str, names: Names) -> tuple[Any, ...]:
    lease = LeaseRecord.decode(record)
    grounds = LeaseGrounds.decode(lease.grounds)
    return (
        lease.state == "open", lease.amount, lease.charged, lease.created_ms, lease.expires_ms, lease.floor,
        lease.version, grounds.member, grounds.models, grounds.plan, grounds.allowance,
        grounds.period if grounds.allowance else 0, grounds.parents,
        *(_by_cap((names[cap.scope, cap.cap_id], cap.amount) for cap in held) if lease.state == "open" else {}
          for held in (grounds.caps, grounds.lent)),
    )  # fmt: skip


def _by_cap(records: Iterable[tuple[int, int]]) -> dict[int, int]:
    held: dict[int, int] = {}
    for number, amount in records:
        held[number] = held.get(number, 0) + amount
    return {number: amount for number, amount in held.items() if amount}


def entry_of(entry: JournalEntry, names: Names, seqs: Mapping[str, int]) -> Entry:
    """An entry of the store's journal. Where a charge is not a grant's or the allowance's, the pool paid it."""
    details = entry.read_details()
    grants = tuple(Part(g.number, g.amount, g.expires_ms, g.priority, g.type) for g in details.grants)
    charged = entry.charged
    if entry.operation == "adjust_credits":
        charged = max(0, -entry.amount)
    pool = charged - details.allowance - sum(part.amount for part in grants) if charged else 0
    charges = entry.operation in ("deduct", "settle", "expire")
    return Entry(
        entry.operation, entry.account, entry.seq, entry.operation_key, entry.amount, entry.balance_change,
        entry.shortfall, entry.version, Paid(details.allowance, details.period, grants, pool),
        tuple(sorted((counted_of(cap, names) for cap in details.caps), key=str)) if charges else (),
        tuple(sorted((Crossed(names[c.scope, c.cap_id], c.scope, c.action) for c in details.crossed), key=str)),
        details.low,
        details.member if charges or entry.operation == "refund" else "",
        details.plan, details.operation_type, seqs.get(details.refund_of, 0), details.lost, details.late,
    )  # fmt: skip


def counted_of(cap: CapPart, names: Names) -> Counted:
    return Counted(names.get((cap.scope, cap.cap_id), 0), cap.scope, cap.amount)


def _spent_first(grant: Any) -> tuple[float, float, int]:
    return grant.priority, grant.expires or float("inf"), grant.number


def _counts(cap: Cap, now: int) -> tuple[Any, ...]:
    raised = (cap.raised, cap.raised_until) if cap.raised is not None and now < cap.raised_until else (-1, 0)
    if not cap.rolling:
        return cap.limit, cap.held, *raised, cap.crossed, cap.used, cap.start, cap.end
    oldest = now // (WINDOW_LENGTHS[cap.window] // BUCKETS) - BUCKETS
    buckets = tuple(sorted((number, n) for number, n in cap.buckets.items() if n and number >= oldest))
    return cap.limit, cap.held, *raised, cap.crossed, buckets
