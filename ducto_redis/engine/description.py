"""An account's extra fields, as the script `describe` gives them, read as a description of the account.

Their form is that of `lua/lib/extended.lua` and the pieces that it names.
"""

from collections.abc import Sequence
from decimal import Decimal

from ducto_redis.engine.operation import DEFAULT_PRIORITY
from ducto_redis.engine.text import LIST_SEPARATOR, RECORD_SEPARATOR, time_of
from ducto_redis.money import from_micro
from ducto_redis.results import (
    AccountDescription,
    AllowanceStatus,
    Balance,
    CapStatus,
    Grant,
    Team,
    TeamMember,
)

_CAPS = "caps"
_GRANT = "grant/"
_MEMBER = "member/"
_REMOVED = "removed"


def describe(account: str, parts: Sequence[str]) -> AccountDescription:
    """Read the description of an account: now, balance, held, seq, allowance left, then names and texts of fields."""
    now_ms, balance_micro, held, seq, allowance_left = map(int, parts[:5])
    fields = dict(zip(parts[5::2], parts[6::2], strict=True))
    plan, assigned_ms, time_zone = _plan(fields.get("plan", ""))
    balance = Balance(
        account=account,
        balance=from_micro(balance_micro),
        held=from_micro(held),
        available=from_micro(balance_micro - held),
        seq=seq,
        allowance=from_micro(allowance_left),
    )
    caps = tuple(
        cap
        for name, text in fields.items()
        if name == _CAPS or name.startswith("caps/")
        for cap in _caps(account, name.removeprefix("caps/") if name != _CAPS else "account", text, now_ms)
    )
    return AccountDescription(
        account=account,
        now=time_of(now_ms),
        balance=balance,
        frozen=fields["frozen"],
        plan=plan,
        plan_assigned_at=time_of(assigned_ms) if plan else None,
        time_zone=time_zone,
        allowance=_allowance(account, plan, fields.get("period", "")),
        grants=_grants(fields, balance_micro),
        caps=tuple(sorted(caps, key=lambda cap: (cap.scope, cap.cap_id))),
        team=_team(balance, fields, caps) if fields["team"] else None,
        low_levels=tuple(sorted(from_micro(int(level)) for level in fields["low"].split())),
    )


def _plan(text: str) -> tuple[str, int, str]:
    if not text:
        return "", 0, ""
    plan, assigned_ms, time_zone, _, _ = text.split(RECORD_SEPARATOR)
    return plan, int(assigned_ms), time_zone


def _allowance(account: str, plan: str, text: str) -> AllowanceStatus:
    if not text or not plan:
        return AllowanceStatus(account=account, plan=plan or None)
    _, start_ms, end_ms, limit, rolled, used, held = map(int, text.split(RECORD_SEPARATOR))
    return AllowanceStatus(
        account=account,
        plan=plan or None,
        limit=from_micro(limit + rolled),
        used=from_micro(used),
        held=from_micro(held),
        remaining=from_micro(max(0, limit + rolled - used - held)),
        rolled_over=from_micro(rolled),
        period_start=time_of(start_ms),
        period_end=time_of(end_ms),
    )


def _grants(fields: dict[str, str], balance: int) -> tuple[Grant, ...]:
    grants = []
    pool = balance
    for name, text in fields.items():
        if name.startswith(_GRANT):
            remaining, expires_ms, priority, credits_type, amount, added_ms = text.split(RECORD_SEPARATOR)
            pool -= int(remaining)
            grants.append(
                Grant(
                    number=int(name.removeprefix(_GRANT)),
                    type=credits_type,
                    amount=from_micro(int(amount)),
                    remaining=from_micro(int(remaining)),
                    priority=int(priority),
                    expires_at=time_of(int(expires_ms)) if expires_ms != "0" else None,
                    added_at=time_of(int(added_ms)),
                )
            )
    before = sum(grant.priority <= DEFAULT_PRIORITY for grant in grants)
    grants.insert(
        before,
        Grant(
            number=0,
            type="pool",
            amount=from_micro(pool),
            remaining=from_micro(pool),
            priority=DEFAULT_PRIORITY,
            expires_at=None,
            added_at=None,
        ),
    )
    return tuple(grants)


def _caps(account: str, scope: str, text: str, now_ms: int) -> list[CapStatus]:
    caps = []
    for record in text.split(LIST_SEPARATOR)[1:]:
        parts = record.split(RECORD_SEPARATOR)
        cap_id, source, window, rolling, action, time_zone = parts[:6]
        limit, used, held, start_ms, end_ms = map(int, parts[6:11])
        raised, raised_until_ms = parts[11], int(parts[12])
        if raised and now_ms < raised_until_ms:
            limit = int(raised)
        calendar = rolling == "0" and window != "total"
        caps.append(
            CapStatus(
                account=account,
                cap_id=cap_id,
                scope=scope,
                source=source,
                window=window,
                rolling=rolling == "1",
                action=action,
                time_zone=time_zone,
                limit=from_micro(limit),
                used=from_micro(used),
                held=from_micro(held),
                remaining=from_micro(max(0, limit - used - held)),
                window_start=time_of(start_ms) if calendar else None,
                window_end=time_of(end_ms) if calendar else None,
                raised_until=time_of(raised_until_ms) if raised else None,
            )
        )
    return caps


def _team(balance: Balance, fields: dict[str, str], caps: Sequence[CapStatus]) -> Team:
    members = []
    for name, text in fields.items():
        if name.startswith(_MEMBER):
            user = name.removeprefix(_MEMBER)
            role, joined_ms, spent = text.split(RECORD_SEPARATOR)
            members.append(
                TeamMember(
                    user=user,
                    role=role,
                    joined_at=time_of(int(joined_ms)),
                    spent=_credits(spent),
                    caps=tuple(cap for cap in caps if cap.scope == name),
                )
            )
    members.sort(key=lambda member: (member.joined_at, member.user))
    return Team(
        team=balance.account,
        name=fields["team"],
        balance=balance.balance,
        held=balance.held,
        available=balance.available,
        members=tuple(member for member in members if member.role != _REMOVED),
        removed=tuple(member for member in members if member.role == _REMOVED),
    )


def _credits(micro: str) -> Decimal:
    return from_micro(int(micro))
