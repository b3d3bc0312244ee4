"""The words with which scripts refuse, and the errors that they are: the only place that maps one to the other."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from ducto_redis.display import format_credits
from ducto_redis.engine.text import RECORD_SEPARATOR, time_of
from ducto_redis.errors import (
    AccountFrozenError,
    CapNotFoundError,
    CapReachedError,
    ConcurrencyLimitError,
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    JournalFullError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    PricingNotLoadedError,
    PricingVersionNotFoundError,
    RecoveryNeededError,
    RefundError,
    RepriceLease,
    StalePricing,
    StoreError,
    TeamNotFoundError,
    TermsNeeded,
)
from ducto_redis.money import MAX_MICRO, from_micro
from ducto_redis.results import ZERO


class MoreIsDue(Exception):
    """More due than the script applies: its sweep, if any, and the operation are to be sent again."""


def failure(parts: Sequence[bytes], *, account: str, operation_key: str, lease_id: str) -> Exception:
    """Return the error of a refusal. `parts` is the reply: the word, then its details."""
    word = parts[0].decode()
    make = _FAILURES.get(word)
    if make is None:
        return StoreError(f"the engine gave a reply that this version does not know: {word!r:.80}")
    return make(_Refused(account, operation_key, lease_id, [part.decode() for part in parts[1:]]))


class _Refused(NamedTuple):
    account: str
    operation_key: str
    lease_id: str
    details: list[str]


def _time(milliseconds: str) -> datetime | None:
    return time_of(int(milliseconds)) if milliseconds not in ("", "0") else None


def _insufficient(refused: _Refused) -> Exception:
    needed, balance, held, floor = (int(number) for number in refused.details[:4])
    return InsufficientCreditsError(
        refused.account,
        needed=from_micro(needed),
        available=from_micro(balance - held),
        held=from_micro(held),
        floor=from_micro(floor),
        next_expiry=_time(refused.details[4]),
        allowance=from_micro(int(refused.details[5])),
        allowance_ends=_time(refused.details[6]),
    )


def _short_of_parent(refused: _Refused) -> Exception:
    parent, needed, left, held, next_expiry = refused.details
    return InsufficientCreditsError(
        refused.account,
        needed=from_micro(int(needed)),
        available=from_micro(int(left)),
        held=from_micro(int(held)),
        floor=ZERO,
        next_expiry=_time(next_expiry),
        parent=parent,
    )


def _cap_reached(refused: _Refused) -> Exception:
    cap_id, scope, window, limit, used, held, end, needed = refused.details
    return CapReachedError(
        refused.account,
        cap_id=cap_id,
        scope=scope,
        window=window,
        limit=from_micro(int(limit)),
        used=from_micro(int(used)),
        held=from_micro(int(held)),
        needed=from_micro(int(needed)),
        window_end=_time(end),
    )


def _too_many_leases(refused: _Refused) -> Exception:
    operation_type, limit, running = refused.details
    return ConcurrencyLimitError(refused.account, operation_type, limit=int(limit), running=int(running))


def _terms(refused: _Refused) -> Exception:
    plan, assigned_ms, time_zone, now_ms, windows = refused.details
    return TermsNeeded(
        plan, int(assigned_ms), time_zone, int(now_ms), windows.split(RECORD_SEPARATOR) if windows else ()
    )


def _refund_exceeds(refused: _Refused) -> Exception:
    charged, refunded = (from_micro(int(number)) for number in refused.details)
    if refunded == charged:
        return RefundError(
            f"all {format_credits(charged)} credits of the charge were refunded already", account=refused.account
        )
    return RefundError(
        f"the charge was of {format_credits(charged)} credits, {format_credits(refunded)} of them were refunded"
        f" already; at most {format_credits(charged - refunded)} can be",
        account=refused.account,
    )


def _no_cap(refused: _Refused) -> Exception:
    _, cap_id, caps = refused.details
    return CapNotFoundError(refused.account, cap_id, caps.split(RECORD_SEPARATOR) if caps else ())


def _past(refused: _Refused) -> Exception:
    now = time_of(int(refused.details[0]))
    return ConfigError(f"the time is in the past: the server's clock says {now.isoformat()}")


def _conflict(refused: _Refused) -> Exception:
    return IdempotencyConflictError(refused.account, refused.operation_key)


def _not_found(refused: _Refused) -> Exception:
    if refused.lease_id:
        return LeaseNotFoundError(refused.account, refused.lease_id)
    return PricingVersionNotFoundError(None, latest=int(refused.details[0]))


def _recovery_needed(_: _Refused) -> Exception:
    return RecoveryNeededError(
        "Redis has no record of this namespace any more: it was emptied, or restored without it. Nothing is admitted,"
        " so that no account starts afresh. Restore its data (AOF, RDB or a replica), then try again"
    )


def _over_limit(refused: _Refused) -> Exception:
    return InvalidAmountError(f"account {refused.account!r} would pass the limit of {from_micro(MAX_MICRO)} credits")


def _journal_full(refused: _Refused) -> Exception:
    return JournalFullError(
        f"the journal holds {refused.details[0]} entries that its consumers have not read: start or repair"
        " `ducto worker`"
    )


_FAILURES: dict[str, Callable[[_Refused], Exception]] = {
    "insufficient": _insufficient,
    "budget": _short_of_parent,
    "conflict": _conflict,
    "cap": _cap_reached,
    "concurrency": _too_many_leases,
    "frozen": lambda refused: AccountFrozenError(refused.account, refused.details[0]),
    "not_member": lambda refused: MemberNotFoundError(refused.account, refused.details[0]),
    "not_team": lambda refused: TeamNotFoundError(refused.account),
    "is_team": lambda refused: ConfigError(f"account {refused.account!r} is a team already: {refused.details[0]!r}"),
    "last_owner": lambda refused: ConfigError(
        f"{refused.details[0]!r} is the last owner of team {refused.account!r}; make somebody else an owner first"
    ),
    "no_cap": _no_cap,
    "plan_cap": lambda refused: ConfigError(
        f"cap {refused.details[0]!r} of account {refused.account!r} comes from its plan; change the plan"
    ),
    "too_many_caps": lambda refused: InvalidAmountError(
        f"account {refused.account!r} has {refused.details[0]} spend caps of that scope already; remove one"
    ),
    "too_many_grants": lambda refused: InvalidAmountError(
        f"account {refused.account!r} has {refused.details[0]} grants already; wait until some are spent or expire"
    ),
    "past": _past,
    "refund_exceeds": _refund_exceeds,
    "terms": _terms,
    "closed": lambda refused: LeaseClosedError(refused.account, refused.lease_id, refused.details[0]),
    "parent_closed": lambda refused: LeaseClosedError(refused.account, refused.details[0], refused.details[1]),
    "parent_not_found": lambda refused: LeaseNotFoundError(refused.account, refused.details[0]),
    "parent_expired": lambda refused: LeaseExpiredError(refused.account, refused.details[0]),
    "too_deep": lambda refused: ConfigError(
        f"lease {refused.lease_id!r} of account {refused.account!r} would be more than {refused.details[0]} deep: it"
        " would be inside a lease that is inside others itself"
    ),
    "not_found": _not_found,
    "expired": lambda refused: LeaseExpiredError(refused.account, refused.lease_id),
    "recovery_needed": _recovery_needed,
    "over_limit": _over_limit,
    "journal_full": _journal_full,
    "none": lambda _: PricingNotLoadedError(),
    "stale": lambda refused: StalePricing(int(refused.details[0])),
    "reprice": lambda refused: RepriceLease(int(refused.details[0]), refused.details[1]),
    "again": lambda _: MoreIsDue(),
    "due": lambda _: MoreIsDue(),
}
