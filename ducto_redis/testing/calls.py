"""Short ways to spell what the tests ask for. Amounts are micro-credits."""

from decimal import Decimal

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.ids import TransactionId
from ducto_redis.engine.operation import (
    DEFAULT_PRIORITY,
    PLAIN,
    Conditions,
    LeaseTerms,
    NewGrant,
    OperationKey,
    Price,
)
from ducto_redis.money import to_signed_micro
from ducto_redis.results import (
    AccountChange,
    AddResult,
    Balance,
    Change,
    DeductResult,
    ExtendResult,
    LeaseChange,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
)
from ducto_redis.store.contract import CreditStore

ACCOUNT = "u1"
OWNER = "a host:17"
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NEVER = -(2**53) + 1
"""The lowest floor that there is."""
KNOWN = Conditions()
"""What a caller sends who knows that the account has no plan; `PLAIN` is sent by who knows nothing of it."""


def key(name: str, fingerprint: str = "what was asked", kept_ms: int = DAY_MS) -> OperationKey:
    """Return an operation key as a caller's."""
    return OperationKey("key/" + name, kept_ms, fingerprint)


def terms(
    *,
    floor: int = 0,
    ttl_ms: int = MINUTE_MS,
    on_expiry: str = "release",
    operation_type: str = "chat",
    fingerprint: str = "what was asked",
    metadata: bytes = b"",
) -> LeaseTerms:
    """Return the terms of a lease."""
    return LeaseTerms(floor, ttl_ms, on_expiry, operation_type, OWNER, metadata, fingerprint)


def micro(credits: Decimal) -> int:
    """Credits of a result as micro-credits."""
    return to_signed_micro(credits)


async def add(
    store: CreditStore,
    amount: int,
    name: str = "a grant",
    account: str = ACCOUNT,
    *,
    type: str = "purchase",
    expires_ms: int = 0,
    priority: int = DEFAULT_PRIORITY,
    conditions: Conditions = PLAIN,
    cause: bytes = b"",
) -> AddResult:
    """Add credits."""
    grant = NewGrant(amount, type, expires_ms, priority)
    return await store.add_credits(account, grant, key(name), conditions=conditions, cause=cause)


async def deduct(
    store: CreditStore,
    amount: int | Price,
    name: str = "a charge",
    *,
    floor: int = 0,
    account: str = ACCOUNT,
    fingerprint: str = "what was asked",
    conditions: Conditions = PLAIN,
    cause: bytes = b"",
) -> DeductResult:
    """Deduct credits."""
    operation_key = key(name, fingerprint)
    return await store.deduct(account, _price(amount), operation_key, floor=floor, conditions=conditions, cause=cause)


async def reserve(
    store: CreditStore,
    lease_id: str,
    amount: int | Price,
    lease_terms: LeaseTerms | None = None,
    account: str = ACCOUNT,
    *,
    conditions: Conditions = PLAIN,
    dry_run: bool = False,
    cause: bytes = b"",
) -> ReserveResult:
    """Open a lease."""
    return await store.reserve(
        account, lease_id, _price(amount), lease_terms or terms(), conditions=conditions, cause=cause, dry_run=dry_run
    )


async def settle(
    store: CreditStore,
    lease_id: str,
    cost: int | Price,
    fingerprint: str | None = None,
    account: str = ACCOUNT,
    *,
    conditions: Conditions = PLAIN,
    cause: bytes = b"",
) -> SettleResult:
    """Settle a lease; another cost is another request unless the fingerprint says otherwise."""
    price = _price(cost)
    passed = str(price.amount) if fingerprint is None else fingerprint
    return await store.settle(account, lease_id, price, conditions=conditions, fingerprint=passed, cause=cause)


async def release(store: CreditStore, lease_id: str, account: str = ACCOUNT) -> ReleaseResult:
    """Release a lease."""
    return await store.release(account, lease_id, cause=b"")


async def renew(store: CreditStore, lease_id: str, ttl_ms: int, name: str = "renewed") -> RenewResult:
    """Let a lease live longer."""
    return await store.renew(ACCOUNT, lease_id, key(name), ttl_ms=ttl_ms)


async def extend(
    store: CreditStore,
    lease_id: str,
    amount: int | Price,
    name: str = "more",
    *,
    account: str = ACCOUNT,
    fingerprint: str = "what was asked",
    conditions: Conditions = PLAIN,
) -> ExtendResult:
    """Let a lease hold more."""
    operation_key = key(name, fingerprint)
    return await store.extend(account, lease_id, _price(amount), operation_key, conditions=conditions, cause=b"")


def numbers(balance: Balance) -> tuple[int, int, int]:
    """Balance, held and available."""
    return micro(balance.balance), micro(balance.held), micro(balance.available)


async def numbers_of(
    store: CreditStore, account: str = ACCOUNT, *, conditions: Conditions = KNOWN
) -> tuple[int, int, int]:
    """Balance, held and available of an account."""
    return numbers(await store.get_balance(account, conditions=conditions))


async def entry_of(store: CreditStore, result: Change | LeaseChange | RenewResult | AccountChange) -> JournalEntry:
    """Return the journal entry of a change."""
    place = TransactionId.read(result.transaction_id)
    entry = await store.read_entry(place.partition, place.entry_id)
    assert entry is not None, f"there is no entry {result.transaction_id}"
    assert entry.transaction_id == result.transaction_id
    return entry


def _price(amount: int | Price) -> Price:
    return amount if isinstance(amount, Price) else Price(amount)
