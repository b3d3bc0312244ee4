"""The explanation of a transaction, and its text."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from msgspec import Struct

from ducto_redis.display import format_credits
from ducto_redis.explain.format import INDENT, credits, moment, signed, times_text
from ducto_redis.explain.model import CapCount, LeaseStory, Price, RefundOf, Source
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import ZERO, AllowanceStatus, CapStatus, Grant, TeamMember

_BOOKKEEPING = {
    "renew": "a lease was renewed",
    "forget": "the record of an expired lease was removed; nothing moved",
    "sweep": "the time of the account's next due change was set; nothing moved",
    "set_cap": "a spend cap was set",
    "remove_cap": "a spend cap was removed",
    "raise_cap": "a spend cap was given another limit for a time",
    "clear_cap": "the count of a spend cap was cleared",
    "freeze": "the account was frozen: nothing new is admitted",
    "unfreeze": "the account may spend again",
    "create_team": "the account became a team",
    "set_member": "the members of the team were changed",
    "publish_pricing": "a pricing document was published and activated",
    "activate_pricing": "a pricing document was activated",
}


class Explanation(Struct, frozen=True, kw_only=True):
    """The explanation of one transaction. `str()` gives all of it in words.

    Attributes:
        operation: deduct, settle, reserve, add_credits, refund, expire, set_plan...
        source: the place where it was found: `journal`, in Redis, or `ledger`.
        key: the idempotency key that the caller gave, or None.
        amount: credits that the operation was about.
        charged: credits that it charged, from all sources.
        shortfall: the part of the cost that could not be charged.
        balance_change: the movement of the balance.
        balance_before, balance_after: None if it is no longer known.
        usage: the usage that was consumed, or estimated; empty if an amount was given.
        price: the pricing of the usage; None if there was none.
        sources: the sources that paid for it; of a refund, those that got it back.
        caps: spend caps that it counted towards.
        low_levels: low-balance levels that it took the balance below.
        lease: the lease that it belongs to.
        refunds, refunded: refunds since, and their sum.
        refund_of: of a refund, the transaction that was refunded.
        lost: of a refund, the part that could not be returned.
        type: of credits that came in or expired.
        plan, allowance: that the account got, of an operation that changed them.
        grants: grants that the operation made, or changed.
        caps_set: spend caps as the operation left them.
        members: members of the team as the operation left them.
        details: other fields that it wrote, by name.
        flags: anything unusual about the usage.
        actor, reason: the person who did it by hand, and why.
        missing: everything that is unknown, and why.
    """

    transaction_id: str
    account: str
    operation: str
    at: datetime
    source: Literal["journal", "ledger"]
    key: str | None
    amount: Decimal
    charged: Decimal = ZERO
    shortfall: Decimal = ZERO
    balance_change: Decimal = ZERO
    balance_before: Decimal | None = None
    balance_after: Decimal | None = None
    usage: tuple[UsageMetrics, ...] = ()
    price: Price | None = None
    sources: tuple[Source, ...] = ()
    caps: tuple[CapCount, ...] = ()
    low_levels: tuple[Decimal, ...] = ()
    member: str | None = None
    operation_type: str | None = None
    lease: LeaseStory | None = None
    refunds: tuple[RefundOf, ...] = ()
    refunded: Decimal = ZERO
    refund_of: str | None = None
    lost: Decimal = ZERO
    type: str | None = None
    plan: str | None = None
    allowance: AllowanceStatus | None = None
    grants: tuple[Grant, ...] = ()
    caps_set: tuple[CapStatus, ...] = ()
    members: tuple[TeamMember, ...] = ()
    details: Mapping[str, str] = {}
    flags: tuple[str, ...] = ()
    actor: str | None = None
    reason: str | None = None
    metadata: Mapping[str, Any] | None = None
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(explanation_lines(self))


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield the whole explanation, line by line."""
    yield headline(explanation)
    yield f"{INDENT}transaction {explanation.transaction_id}, found in the {_place(explanation)}"
    for title, lines in (
        (_usage_title(explanation), _usage_lines(explanation.usage, explanation.flags)),
        ("Price", _price_lines(explanation)),
        (_sources_title(explanation), _source_lines(explanation)),
        ("The lease", _lease_lines(explanation.lease)),
        ("Spend caps afterwards" if explanation.caps_set else "Spend caps", _cap_lines(explanation)),
        ("The account", list(_account_lines(explanation))),
        ("Refunds", _refund_lines(explanation)),
        ("Notes", list(_notes(explanation))),
        ("Balance", _balance_lines(explanation)),
        ("Unknown", list(explanation.missing)),
    ):
        if lines:
            yield ""
            yield title
            yield from (INDENT + line for line in lines)


def headline(explanation: Explanation) -> str:
    """Return the change in one sentence."""
    who, when = explanation.account, moment(explanation.at)
    amount = credits(explanation.amount)
    match explanation.operation:
        case "deduct" | "settle":
            models = sorted({usage.model for usage in explanation.usage if usage.model})
            for_what = f" for {', '.join(models)}" if models else ""
            late = ", after its lease had expired" if explanation.lease and explanation.lease.late else ""
            what = f"{who} was charged {credits(explanation.charged)} credits{for_what}{late}"
        case "reserve":
            what = f"{amount} credits of {who} were held for running work"
        case "extend":
            what = f"{amount} more credits of {who} were held for a lease"
        case "release":
            what = f"a hold of {amount} credits of {who} was released without a charge"
            if explanation.balance_change:
                back = credits(explanation.balance_change)
                what = f"{who} got back {back} credits that an expired lease was charged"
        case "expire":
            charged = explanation.charged
            end = f"and was charged {credits(charged)} credits" if charged else "and holds nothing any more"
            what = f"a lease of {who} for {amount} credits expired {end}"
        case "add_credits":
            what = f"{who} got {amount} credits{_of_type(explanation.type)}"
        case "open_account":
            what = f"the account {who} was opened with {credits(explanation.balance_change)} credits"
        case "refund":
            what = f"{who} was refunded {amount} credits of a charge"
        case "expire_grant":
            what = f"{amount} credits of {who} expired{_of_type(explanation.type)}"
        case "adjust_credits":
            what = f"the balance of {who} was corrected by {signed(explanation.amount)} credits"
        case "set_plan":
            plan = explanation.plan
            what = f"{who} was given plan {plan}" if plan else f"the plan of {who} was taken away"
        case operation:
            what = f"{who}: {_BOOKKEEPING.get(operation, operation)}"
    return f"{when}  {what}"


def _place(explanation: Explanation) -> str:
    return "journal (Redis)" if explanation.source == "journal" else "ledger (SQL)"


def _of_type(credits_type: str | None) -> str:
    return f" (type {credits_type})" if credits_type else ""


def _usage_title(explanation: Explanation) -> str:
    return "Estimated usage" if explanation.operation in ("reserve", "extend") else "Usage"


def _usage_lines(usages: Sequence[UsageMetrics], flags: Sequence[str]) -> list[str]:
    lines = [usage_text(usage) for usage in usages]
    if flags:
        lines.append(f"flagged: {', '.join(flags)}")
    return lines


def usage_text(usage: UsageMetrics) -> str:
    """Return a usage in one line."""
    parts = [usage.model] if usage.model else []
    for name in usage.__struct_fields__:
        value = getattr(usage, name)
        if name == "tool_calls":
            parts += [f"{call.name} called {times_text(call.count)}" for call in value]
        elif name == "measures":
            parts += [f"{measure} {number}" for measure, number in value.items()]
        elif isinstance(value, int) and value:
            parts.append(f"{value:,} {name.replace('_', ' ')}")
        elif name != "model" and value:
            parts.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(parts) or "nothing"


def _price_lines(explanation: Explanation) -> list[str]:
    price = explanation.price
    if price is None:
        if explanation.operation in ("deduct", "settle", "reserve", "extend") and not explanation.usage:
            return [f"an amount given by the application: {credits(explanation.amount)} credits"]
        return []
    return list(_priced(price))


def _priced(price: Price) -> Iterator[str]:
    document = f"version {price.version} of the pricing document" if price.version else "the application's own document"
    rates = f", with the rates of plan {price.plan}" if price.plan else ""
    yield f"by {document}{rates}"
    for cost in price.costs:
        for line in cost.lines:
            formula = f" = {line.formula}" if line.part != "floor" else " (a price is never below 0)"
            path = f"  [{line.path}]" if line.path else ""
            yield f"{signed(line.credits):>14}  {line.name}{formula}{path}"
        if cost.flags:
            yield f"{'':>14}  flagged: {', '.join(cost.flags)}"
    if price.rounding:
        exact = format_credits(price.exact or price.total)
        yield f"{'':>14}  rounded to six places; the exact price is {exact}"
    yield f"{credits(price.total):>14}  total"


def _sources_title(explanation: Explanation) -> str:
    if explanation.operation == "refund":
        return "Returned to"
    taken = explanation.operation in ("expire_grant", "adjust_credits")
    return "Taken from" if taken else "Paid from"


def _source_lines(explanation: Explanation) -> list[str]:
    lines = [f"{credits(source.amount):>14}  {_source(source)}" for source in explanation.sources]
    if explanation.shortfall:
        lines.append(f"{credits(explanation.shortfall):>14}  not charged (shortfall)")
    if explanation.lost:
        lines.append(f"{credits(explanation.lost):>14}  lost: its source had expired")
    return lines


def _source(source: Source) -> str:
    if source.kind == "allowance":
        return "the plan's allowance"
    if source.kind == "pool":
        return "the balance, credits that do not expire"
    until = f"expires {moment(source.expires_at)}" if source.expires_at else "never expires"
    return f"grant {source.grant} ({source.type}, {until}, priority {source.priority})"


def _lease_lines(lease: LeaseStory | None) -> list[str]:
    if lease is None:
        return []
    kind = f", {lease.operation_type}" if lease.operation_type not in (None, "default") else ""
    owner = f", opened by {lease.owner}" if lease.owner else ""
    lines = [f"{lease.lease_id}{kind}{owner}: {_lease_state(lease)}"]
    if lease.parent is not None:
        lines.append(f"inside lease {lease.parent}, whose hold it used")
    if lease.opened_at and lease.expires_at:
        lines.append(f"opened {moment(lease.opened_at)}, expires {moment(lease.expires_at)}")
    if lease.held is not None:
        of_allowance = (
            f", {credits(lease.held_of_allowance)} of them from the allowance" if lease.held_of_allowance else ""
        )
        extended = f", extended {times_text(len(lease.extended_by))}" if lease.extended_by else ""
        inside = f", {credits(lease.inside)} of them for leases inside it" if lease.inside else ""
        lines.append(f"held {credits(lease.held)} credits{of_allowance}{extended}{inside}")
    lines += [f"estimate: {usage_text(usage)}" for usage in lease.estimate]
    if lease.charged is not None:
        back = f", {credits(lease.returned)} of the hold returned" if lease.returned else ""
        lines.append(f"final cost {credits(lease.charged + lease.shortfall)}, {credits(lease.charged)} charged{back}")
    return lines


def _lease_state(lease: LeaseStory) -> str:
    at = f" {moment(lease.closed_at)}" if lease.closed_at else ""
    if lease.state == "settled":
        return f"settled{at}{', late: it had expired' if lease.late else ''}"
    return "still open" if lease.state == "open" else f"{lease.state}{at}"


def _cap_lines(explanation: Explanation) -> list[str]:
    word = "holds" if explanation.operation in ("reserve", "extend") else "counted"
    return [
        *(_cap_count(cap, word) for cap in explanation.caps),
        *map(_cap_set, explanation.caps_set),
    ]


def _cap_count(cap: CapCount, word: str) -> str:
    crossed = f"; it passed the limit of the cap, whose action is {cap.crossed}" if cap.crossed else ""
    return f"{word} {credits(cap.amount)} of cap {cap.cap_id} of {_scope(cap.scope)}{crossed}"


def _cap_set(cap: CapStatus) -> str:
    kind = "rolling " if cap.rolling else ""
    window = "in total" if cap.window == "total" else f"per {kind}{cap.window} ({cap.time_zone})"
    raised = f", until {moment(cap.raised_until)}" if cap.raised_until else ""
    return (
        f"cap {cap.cap_id} of {_scope(cap.scope)}: {credits(cap.limit)} credits {window}{raised}, {cap.action};"
        f" {credits(cap.used)} used"
    )


def _scope(scope: str) -> str:
    kind, _, name = scope.partition("/")
    return "the account" if kind == "account" else f"{kind} {name}"


def _account_lines(explanation: Explanation) -> Iterator[str]:
    if explanation.member:
        yield f"spent by member {explanation.member}"
    if explanation.operation_type and explanation.lease is None:
        yield f"operation type {explanation.operation_type}"
    if explanation.plan:
        yield f"on plan {explanation.plan}"
    allowance = explanation.allowance
    if allowance is not None and allowance.period_start and allowance.period_end:
        yield (
            f"allowance afterwards: {credits(allowance.remaining)} of {credits(allowance.limit)} left, from"
            f" {moment(allowance.period_start)} to {moment(allowance.period_end)}"
        )
    if explanation.operation in ("add_credits", "open_account", "refund"):
        for grant in explanation.grants:
            until = f"until {moment(grant.expires_at)}" if grant.expires_at else "without expiry"
            yield (
                f"grant {grant.number}: {credits(grant.remaining)} of {credits(grant.amount)} left to spend {until},"
                f" priority {grant.priority}"
            )
        if explanation.operation == "add_credits" and not explanation.grants:
            yield "they never expire"
    for member in explanation.members:
        if explanation.operation in ("set_member", "create_team"):
            yield f"{member.user} is {'no longer a member' if member.role == 'removed' else member.role}"
    if explanation.refund_of:
        yield f"the charge was transaction {explanation.refund_of}"
    for level in explanation.low_levels:
        yield f"the balance fell to {credits(level)} or below, a low-balance level"
    if "team" in explanation.details:
        yield f"the team's name is {explanation.details['team']}"
    if "active" in explanation.details:
        yield f"version {explanation.details['active']} of the pricing document became active"


def _refund_lines(explanation: Explanation) -> list[str]:
    lines = []
    for refund in explanation.refunds:
        lost = f", {credits(refund.lost)} of them lost" if refund.lost else ""
        reason = f" ({refund.reason})" if refund.reason else ""
        lines.append(f"{moment(refund.at)}  {credits(refund.amount)} credits{lost}{reason}, {refund.transaction_id}")
    if lines:
        lines.append(f"{credits(explanation.refunded)} of {credits(explanation.charged)} credits in total")
    return lines


def _notes(explanation: Explanation) -> Iterator[str]:
    if explanation.actor:
        yield f"done by {explanation.actor}"
    if explanation.reason:
        yield f"reason: {explanation.reason}"
    if explanation.key:
        yield f"idempotency key {explanation.key}"
    for name, value in (explanation.metadata or {}).items():
        yield f"{name}: {value}"


def _balance_lines(explanation: Explanation) -> list[str]:
    before, after = explanation.balance_before, explanation.balance_after
    if before is None or after is None or explanation.operation in ("publish_pricing", "activate_pricing"):
        return []
    if not explanation.balance_change:
        return [f"{credits(after)} before and after"]
    return [f"{credits(before)} before, {signed(explanation.balance_change)}, {credits(after)} after"]
