"""Short ways to spell what the tests ask for. Amounts are micro-credits."""

from decimal import Decimal

from ducto_redis.engine.operation import LeaseTerms, OperationKey, Price
from ducto_redis.money import to_signed_micro
from ducto_redis.results import AddResult, Balance, DeductResult, ExtendResult, ReserveResult, SettleResult
from ducto_redis.store.contract import CreditStore

ACCOUNT = "u1"
OWNER = "a host:17"
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NEVER = -(2**53) + 1
"""The lowest floor that there is."""


def key(name: str, fingerprint: str = "what was asked", kept_ms: int = DAY_MS) -> OperationKey:
    """An operation key as a caller's."""
    return OperationKey("key/" + name, kept_ms, fingerprint)


def terms(
    *,
    floor: int = 0,
    ttl_ms: int = MINUTE_MS,
    on_expiry: str = "release",
    fingerprint: str = "what was asked",
    metadata: bytes = b"",
) -> LeaseTerms:
    """The terms of a lease."""
    return LeaseTerms(floor, ttl_ms, on_expiry, "chat", OWNER, metadata, fingerprint)


def micro(credits: Decimal) -> int:
    """Credits of a result as micro-credits."""
    return to_signed_micro(credits)


async def add(store: CreditStore, amount: int, name: str = "a grant", account: str = ACCOUNT) -> AddResult:
    """Add credits."""
    return await store.add_credits(account, amount, key(name), cause=b"")


async def deduct(
    store: CreditStore, amount: int, name: str = "a charge", *, floor: int = 0, account: str = ACCOUNT
) -> DeductResult:
    """Deduct credits."""
    return await store.deduct(account, Price(amount), key(name), floor=floor, cause=b"")


async def reserve(
    store: CreditStore, lease_id: str, amount: int, lease_terms: LeaseTerms | None = None, account: str = ACCOUNT
) -> ReserveResult:
    """Open a lease."""
    return await store.reserve(account, lease_id, Price(amount), lease_terms or terms(), cause=b"")


async def settle(
    store: CreditStore, lease_id: str, cost: int, fingerprint: str | None = None, account: str = ACCOUNT
) -> SettleResult:
    """Settle a lease; another cost is another request unless the fingerprint says otherwise."""
    passed = str(cost) if fingerprint is None else fingerprint
    return await store.settle(account, lease_id, Price(cost), fingerprint=passed, cause=b"")


async def extend(store: CreditStore, lease_id: str, amount: int, name: str = "more") -> ExtendResult:
    """Let a lease hold more."""
    return await store.extend(ACCOUNT, lease_id, Price(amount), key(name), cause=b"")


def numbers(balance: Balance) -> tuple[int, int, int]:
    """Balance, held and available."""
    return micro(balance.balance), micro(balance.held), micro(balance.available)


async def numbers_of(store: CreditStore, account: str = ACCOUNT) -> tuple[int, int, int]:
    """Balance, held and available of an account."""
    return numbers(await store.get_balance(account))
