"""Explanations in words, for people who never saw the code."""

from collections.abc import Iterator, Sequence

from ducto_redis.display import format_credits
from ducto_redis.explain.format import INDENT, credits, moment, signed, times_text
from ducto_redis.explain.model import (
    CapCount,
    Explanation,
    LeaseStory,
    Price,
    Source,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import CapStatus

_BOOKKEEPING = {
    "renew": "a lease was given more time",
    "forget": "an expired lease was put away for good; nothing moved",
    "sweep": "the time was noted at which something of the account falls due next; nothing moved",
    "set_cap": "a spend cap was set",
    "remove_cap": "a spend cap was removed",
    "raise_cap": "a spend cap was given another limit for a while",
    "clear_cap": "what a spend cap had counted was forgotten",
    "freeze": "the account was frozen: nothing new is admitted",
    "unfreeze": "the account may spend again",
    "create_team": "the account was made a team",
    "set_member": "the members of the team were changed",
    "publish_pricing": "a pricing document was published and activated",
    "activate_pricing": "a pricing document was activated",
}


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """The whole explanation, line by line."""
    yield headline(explanation)
    yield f"{INDENT}transaction {explanation.transaction_id}, found in the {_place(explanation)}"
    for title, lines in (
        (_usage_title(explanation), _usage_lines(explanation.usage, explanation.flags)),
        ("How it was priced", _price_lines(explanation)),
        (_sources_title(explanation), _source_lines(explanation)),
        ("The lease", _lease_lines(explanation.lease)),
        ("Spend caps afterwards" if explanation.caps_set else "Spend caps", _cap_lines(explanation)),
        ("The account", list(_account_lines(explanation))),
        ("Refunds since", _refund_lines(explanation)),
        ("Said with it", list(_said(explanation))),
        ("Balance", _balance_lines(explanation)),
        ("What cannot be said", list(explanation.missing)),
    ):
        if lines:
            yield ""
            yield title
            yield from (INDENT + line for line in lines)


def headline(explanation: Explanation) -> str:
    """What happened, in one sentence."""
    who, when = explanation.account, moment(explanation.at)
    amount = credits(explanation.amount)
    match explanation.operation:
        case "deduct" | "settle":
            models = sorted({usage.model for usage in explanation.usage if usage.model})
            for_what = f" for {', '.join(models)}" if models else ""
            late = ", after its lease had expired" if explanation.lease and explanation.lease.late else ""
            what = f"{who} was charged {credits(explanation.charged)} credits{for_what}{late}"
        case "reserve":
            what = f"{who} had {amount} credits put on hold while work ran"
        case "extend":
            what = f"{who} had {amount} more credits put on hold for a lease"
        case "release":
            what = f"{who} got a hold of {amount} credits released without a charge"
            if explanation.balance_change:
                back = credits(explanation.balance_change)
                what = f"{who} got back the {back} credits that an expired lease was charged"
        case "expire":
            charged = explanation.charged
            end = f"and was charged {credits(charged)} credits" if charged else "and no longer holds anything"
            what = f"a lease of {who} over {amount} credits ran out of time {end}"
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
    return "What it was estimated to use" if explanation.operation in ("reserve", "extend") else "What was used"


def _usage_lines(usages: Sequence[UsageMetrics], flags: Sequence[str]) -> list[str]:
    lines = [usage_text(usage) for usage in usages]
    if flags:
        lines.append(f"flagged: {', '.join(flags)}")
    return lines


def usage_text(usage: UsageMetrics) -> str:
    """What was used, in one line."""
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
            return [f"the application named the amount itself: {credits(explanation.amount)} credits"]
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
        yield f"{'':>14}  rounded to six places: exactly it is {exact}"
    yield f"{credits(price.total):>14}  in all"


def _sources_title(explanation: Explanation) -> str:
    if explanation.operation == "refund":
        return "Where it went back to"
    taken = explanation.operation in ("expire_grant", "adjust_credits")
    return "What it was taken from" if taken else "Who paid"


def _source_lines(explanation: Explanation) -> list[str]:
    lines = [f"{credits(source.amount):>14}  {_source(source)}" for source in explanation.sources]
    if explanation.shortfall:
        lines.append(f"{credits(explanation.shortfall):>14}  nobody: it could not be charged (shortfall)")
    if explanation.lost:
        lines.append(f"{credits(explanation.lost):>14}  nowhere: what it had come from was over")
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
        lines.append(f"inside of lease {lease.parent}, which gave it what it held")
    if lease.opened_at and lease.expires_at:
        lines.append(f"opened {moment(lease.opened_at)}, to hold until {moment(lease.expires_at)}")
    if lease.held is not None:
        of_allowance = (
            f", {credits(lease.held_of_allowance)} of them of the allowance" if lease.held_of_allowance else ""
        )
        extended = f", extended {times_text(len(lease.extended_by))}" if lease.extended_by else ""
        inside = f", {credits(lease.inside)} of them for leases inside of it" if lease.inside else ""
        lines.append(f"held {credits(lease.held)} credits{of_allowance}{extended}{inside}")
    lines += [f"for an estimate of {usage_text(usage)}" for usage in lease.estimate]
    if lease.charged is not None:
        back = f", {credits(lease.returned)} of the hold went back" if lease.returned else ""
        lines.append(
            f"cost {credits(lease.charged + lease.shortfall)} in the end, {credits(lease.charged)} charged{back}"
        )
    return lines


def _lease_state(lease: LeaseStory) -> str:
    at = f" {moment(lease.closed_at)}" if lease.closed_at else ""
    if lease.state == "settled":
        return f"settled{at}{', late: its time was over' if lease.late else ''}"
    return "still open" if lease.state == "open" else f"{lease.state}{at}"


def _cap_lines(explanation: Explanation) -> list[str]:
    word = "holds" if explanation.operation in ("reserve", "extend") else "counted"
    return [
        *(_cap_count(cap, word) for cap in explanation.caps),
        *map(_cap_set, explanation.caps_set),
    ]


def _cap_count(cap: CapCount, word: str) -> str:
    crossed = f"; it passed the limit, and the cap's action is to {cap.crossed}" if cap.crossed else ""
    return f"{word} {credits(cap.amount)} of cap {cap.cap_id} of {_scope(cap.scope)}{crossed}"


def _cap_set(cap: CapStatus) -> str:
    kind = "rolling " if cap.rolling else ""
    window = "in all" if cap.window == "total" else f"per {kind}{cap.window} ({cap.time_zone})"
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
            until = f"until {moment(grant.expires_at)}" if grant.expires_at else "for ever"
            yield (
                f"grant {grant.number}: {credits(grant.remaining)} of {credits(grant.amount)} left to spend {until},"
                f" priority {grant.priority}"
            )
        if explanation.operation == "add_credits" and not explanation.grants:
            yield "they never expire"
    for member in explanation.members:
        if explanation.operation in ("set_member", "create_team"):
            yield f"{member.user} is {'no member any more' if member.role == 'removed' else member.role}"
    if explanation.refund_of:
        yield f"the charge was transaction {explanation.refund_of}"
    for level in explanation.low_levels:
        yield f"the balance fell to {credits(level)} or below, a low-balance level"
    if "team" in explanation.details:
        yield f"the team's name is {explanation.details['team']}"
    if "active" in explanation.details:
        yield f"version {explanation.details['active']} of the pricing document is active from then on"


def _refund_lines(explanation: Explanation) -> list[str]:
    lines = []
    for refund in explanation.refunds:
        lost = f", {credits(refund.lost)} of them lost" if refund.lost else ""
        reason = f" ({refund.reason})" if refund.reason else ""
        lines.append(f"{moment(refund.at)}  {credits(refund.amount)} credits{lost}{reason}, {refund.transaction_id}")
    if lines:
        lines.append(f"{credits(explanation.refunded)} of {credits(explanation.charged)} credits in all")
    return lines


def _said(explanation: Explanation) -> Iterator[str]:
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
