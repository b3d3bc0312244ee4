"""What callers are told: keys to ask again with, and errors for what cannot be taken."""

import pickle
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, MemoryStore, UsageMetrics, errors
from ducto_redis.errors import (
    ConfigError,
    CreditError,
    IdempotencyConflictError,
    InvalidAmountError,
    InvalidMetadataError,
    InvalidUsageError,
    StoreUnavailableError,
)
from ducto_redis.manager.pricing_book import _VERSIONS_KEPT
from tests.manager.clock import Clock

from .conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)
NOWHERE = "redis://127.0.0.1:1"


@pytest.mark.parametrize("key", ["plain", "key/a", "lease/a/settle"])
async def test_the_key_of_an_unknown_outcome(key: str) -> None:
    """It is the caller's own, whatever it looks like, also where already the price could not be had."""
    manager = AsyncCreditManager.from_url(NOWHERE, timeout_seconds=0.1)
    manager._usable = True
    for cost in (1, USAGE):
        for call in (
            manager.deduct("u1", cost, idempotency_key=key),
            manager.reserve("u1", cost, lease_id=key),
            manager.settle("u1", key, cost),
            manager.extend("u1", "lease", cost, idempotency_key=key),
        ):
            with pytest.raises(StoreUnavailableError) as unknown:
                await call
            assert unknown.value.operation_key == key
    await manager.close()


async def test_a_conflict_names_the_key(manager: AsyncCreditManager) -> None:
    """As the caller spelt it, for idempotency keys and for lease ids."""
    await manager.add_credits("u1", 10)
    await manager.deduct("u1", 1, idempotency_key="key/a")
    with pytest.raises(IdempotencyConflictError) as conflict:
        await manager.deduct("u1", 2, idempotency_key="key/a")
    assert conflict.value.key == "key/a"
    await manager.reserve("u1", 1, lease_id="key/a")
    with pytest.raises(IdempotencyConflictError) as conflict:
        await manager.reserve("u1", 2, lease_id="key/a")
    assert conflict.value.key == "key/a"


@pytest.mark.parametrize(
    "other", [{"member": "ann"}, {"required_feature": "chat"}, {"operation_type": "x"}, {"skip_allowance": True}]
)
def test_a_key_covers_all_that_was_passed(other: dict[str, Any]) -> None:
    """The same key with another member, feature or way of paying is another request, with or without it at first."""
    with CreditManager(MemoryStore()) as manager:
        manager.publish_pricing({**DOCUMENT, "plans": {"p": {"features": {"chat": 1}}}})
        manager.create_team("acme", owner="ann")
        manager.add_credits("acme", 10, durability="fast")
        manager.set_user_plan("acme", "p")
        for number, (first, second) in enumerate((({}, other), (other, {}))):
            manager.deduct("acme", 1, idempotency_key=f"{number}", **first)
            assert manager.deduct("acme", 1, idempotency_key=f"{number}", **first).replayed
            with pytest.raises(IdempotencyConflictError):
                manager.deduct("acme", 1, idempotency_key=f"{number}", **second)
            in_lease = [{k: v for k, v in each.items() if k != "skip_allowance"} for each in (first, second)]
            manager.reserve("acme", 1, lease_id=f"lease {number}", **in_lease[0])
            if in_lease[0] != in_lease[1]:
                with pytest.raises(IdempotencyConflictError):
                    manager.reserve("acme", 1, lease_id=f"lease {number}", **in_lease[1])
            at_settle = [{k: v for k, v in each.items() if k == "skip_allowance"} for each in (first, second)]
            manager.settle("acme", f"lease {number}", 1, **at_settle[0])
            if at_settle[0] != at_settle[1]:
                with pytest.raises(IdempotencyConflictError):
                    manager.settle("acme", f"lease {number}", 1, **at_settle[1])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"flags": "abc"}, InvalidUsageError),
        ({"flags": [object()]}, InvalidUsageError),
        ({"usage_or_amount": UsageMetrics(model="\ud800")}, InvalidUsageError),
        ({"usage_or_amount": UsageMetrics(model="gpt-4o", measures={"x": object()})}, InvalidUsageError),  # type: ignore[dict-item]
        ({"metadata": {"x": "\ud800"}}, InvalidMetadataError),
        ({"metadata": {"x": object()}}, InvalidMetadataError),
    ],
)
async def test_what_cannot_be_journalled_is_refused(options: dict[str, Any], error: type[CreditError]) -> None:
    """With one of our errors, and before anything is written."""
    async with AsyncCreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10, durability="fast")
        for key in (None, "key"):
            with pytest.raises(error):
                await manager.deduct("u1", **{"usage_or_amount": USAGE, "idempotency_key": key, **options})
        assert (await manager.get_balance("u1")).seq == 1


def test_a_floor_is_exact() -> None:
    """Whatever precision the caller's decimal context has."""
    with localcontext(Context(prec=5)):
        manager = AsyncCreditManager(MemoryStore(), policy="overdraft", overdraft_floor="-1234.567891")
    assert manager._repricer._limits.overdraft_floor == -1_234_567_891


@pytest.mark.parametrize("floor", ["1e999999999", object(), 5, "x", 1.5])
def test_a_floor_that_is_none(floor: Any) -> None:
    """One of our errors says so."""
    with pytest.raises(InvalidAmountError):
        AsyncCreditManager(MemoryStore(), policy="overdraft", overdraft_floor=floor)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 10**400, "60", True])
def test_a_time_to_live_that_is_none(ttl: Any) -> None:
    """One of our errors says so."""
    with pytest.raises(ConfigError):
        AsyncCreditManager(MemoryStore(), default_ttl_seconds=ttl)


async def test_a_lease_is_settled_at_its_own_prices(manager: AsyncCreditManager) -> None:
    """Also where the active document does not know the model any more."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", USAGE)
    await manager.publish_pricing({"version": 1, "models": {"newer": "input_tokens"}})
    assert (await manager.extend("u1", lease.lease_id, USAGE)).amount == 2
    with pytest.raises(errors.UnpricedModelError):
        await manager.settle("u1", lease.lease_id, UsageMetrics(model="unheard of"))
    with pytest.raises(errors.UnpricedModelError):
        await manager.extend("u1", lease.lease_id, UsageMetrics(model="unheard of"))
    assert (await manager.settle("u1", lease.lease_id, USAGE)).amount == 1
    assert (await manager.settle("u1", lease.lease_id, USAGE)).replayed
    with pytest.raises(IdempotencyConflictError):
        await manager.settle("u1", lease.lease_id, UsageMetrics(model="unheard of"))
    for missing in (USAGE, UsageMetrics(model="newer", input_tokens=1)):
        with pytest.raises(errors.LeaseNotFoundError):
            await manager.settle("u1", "unheard of", missing)


def test_a_late_settle_of_a_model_that_is_gone() -> None:
    """A lease that has expired is charged at its own prices too."""
    clock = Clock()
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 10)
        lease = manager.reserve("u1", USAGE, ttl=60)
        manager.publish_pricing({"version": 1, "models": {"newer": "input_tokens"}})
        clock.move(seconds=61)
        settled = manager.settle("u1", lease.lease_id, USAGE)
        assert (settled.amount, settled.late) == (1, True)


async def test_the_active_document_is_not_forgotten(manager: AsyncCreditManager) -> None:
    """An old document that is active stays known, however many others leases were priced by."""
    await manager.add_credits("u1", 10)
    for _ in range(_VERSIONS_KEPT + 1):
        await manager.publish_pricing(DOCUMENT)
    await manager.activate_pricing(1)
    for version in range(2, _VERSIONS_KEPT + 3):
        await manager.pricing.version(version)
    await manager.load_pricing()
    assert (await manager.deduct("u1", USAGE)).amount == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.InsufficientCreditsError("u1", needed=Decimal(2), available=Decimal(1), held=Decimal(0)),
        errors.LeaseClosedError("u1", "lease", "settled"),
        errors.IdempotencyConflictError("u1", "key", running=True),
        errors.UnpricedModelError("gpt-4o"),
        errors.ExpressionError("wrong", path="models.x", position=3),
        StoreUnavailableError("away", operation_key="key"),
    ],
)
def test_errors_cross_processes(error: CreditError) -> None:
    """An error that a worker process raises arrives whole: its class, its message, what it carries."""
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
