"""The words with which scripts refuse, and the errors that they are: the only place that maps one to the other."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ducto_redis.errors import (
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    JournalFullError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    PricingNotLoadedError,
    RecoveryNeededError,
    RepriceLease,
    StalePricing,
    StoreError,
)
from ducto_redis.money import MAX_MICRO, from_micro


class MoreIsDue(Exception):
    """More has fallen due than one call applies: the same operation is to be sent again."""


def failure(parts: Sequence[bytes], *, account: str, operation_key: str, lease_id: str) -> Exception:
    """The error that a refusal means. `parts` is the reply: the word, then its details."""
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


def _insufficient(refused: _Refused) -> Exception:
    needed, balance, held, floor = (int(number) for number in refused.details[:4])
    due = refused.details[4]
    return InsufficientCreditsError(
        refused.account,
        needed=from_micro(needed),
        available=from_micro(balance - held),
        held=from_micro(held),
        floor=from_micro(floor),
        next_expiry=datetime.fromtimestamp(int(due) / 1000, UTC) if due else None,
    )


def _conflict(refused: _Refused) -> Exception:
    return IdempotencyConflictError(refused.account, refused.operation_key)


def _not_found(refused: _Refused) -> Exception:
    if refused.lease_id:
        return LeaseNotFoundError(refused.account, refused.lease_id)
    return ConfigError(f"no such version of the pricing document; the latest is {refused.details[0]}")


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
    "conflict": _conflict,
    "closed": lambda refused: LeaseClosedError(refused.account, refused.lease_id, refused.details[0]),
    "not_found": _not_found,
    "expired": lambda refused: LeaseExpiredError(refused.account, refused.lease_id),
    "recovery_needed": _recovery_needed,
    "over_limit": _over_limit,
    "journal_full": _journal_full,
    "none": lambda _: PricingNotLoadedError(),
    "stale": lambda refused: StalePricing(int(refused.details[0])),
    "reprice": lambda refused: RepriceLease(int(refused.details[0])),
    "again": lambda _: MoreIsDue(),
}
