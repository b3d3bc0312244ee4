"""Pricing and charging through a manager."""

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, MemoryStore, PricingEngine, UsageMetrics
from ducto_redis.errors import (
    ConfigError,
    CreditError,
    FeatureNotEntitledError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidIdError,
    InvalidMetadataError,
    InvalidUsageError,
    LeaseClosedError,
    LeaseNotFoundError,
    PricingNotLoadedError,
    StoreError,
    TeamNotFoundError,
    UnpricedModelError,
)

from .conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000, output_tokens=500)


async def test_a_deduct_charges_what_the_document_says(manager: AsyncCreditManager) -> None:
    """1,000 input tokens at 0.001 and 500 output tokens at 0.002 cost 2 credits."""
    await manager.add_credits("u1", 10)
    charged = await manager.deduct("u1", USAGE)
    assert (charged.amount, charged.balance_after, charged.available) == (2, 8, 8)


async def test_several_usages_are_charged_together(manager: AsyncCreditManager) -> None:
    """A sequence of usages costs the sum of its parts, in one change."""
    await manager.add_credits("u1", 10)
    charged = await manager.deduct(
        "u1", [USAGE, UsageMetrics(model="render", measures={"gpu_seconds": Decimal("2.5")})]
    )
    assert charged.amount == 3
    assert (await manager.get_balance("u1")).seq == 2


async def test_an_unknown_account_has_nothing(manager: AsyncCreditManager) -> None:
    """An account that nothing happened to reads as zero, and cannot pay."""
    assert (await manager.get_balance("nobody")).available == 0
    with pytest.raises(InsufficientCreditsError) as refused:
        await manager.reserve("nobody", 1)
    assert (refused.value.needed, refused.value.available, refused.value.held) == (1, 0, 0)


async def test_a_lease_holds_and_settles(manager: AsyncCreditManager) -> None:
    """What is reserved is not available; settling charges the actual cost and frees the rest."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", USAGE, operation_type="chat", metadata={"job": 7})
    assert (lease.amount, lease.available) == (2, 8)
    listed = await manager.list_leases("u1")
    assert [(each.lease_id, each.amount, each.operation_type) for each in listed] == [(lease.lease_id, 2, "chat")]
    settled = await manager.settle("u1", lease.lease_id, UsageMetrics(model="gpt-4o", input_tokens=100))
    assert (settled.amount, settled.shortfall, settled.late, settled.available) == (
        Decimal("0.1"),
        0,
        False,
        Decimal("9.9"),
    )
    assert await manager.list_leases("u1") == []


async def test_a_refusal_names_the_expiry_to_wait_for(manager: AsyncCreditManager) -> None:
    """It is that of a lease that is open, whatever was settled meanwhile."""
    await manager.add_credits("u1", 10)
    short = await manager.reserve("u1", 4, ttl=100)
    long = await manager.reserve("u1", 4, ttl=1000)
    for expected in (short.expires_at, long.expires_at):
        with pytest.raises(InsufficientCreditsError) as refused:
            await manager.reserve("u1", 7)
        assert refused.value.next_expiry == expected
        await manager.settle("u1", short.lease_id, 0)
    await manager.release("u1", long.lease_id)
    with pytest.raises(InsufficientCreditsError) as refused:
        await manager.reserve("u1", 11)
    assert refused.value.next_expiry is None


async def test_settle_may_be_zero(manager: AsyncCreditManager) -> None:
    """Work that cost nothing is settled for nothing."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", 5)
    assert (await manager.settle("u1", lease.lease_id, 0)).amount == 0
    assert await manager.get_available("u1") == 10


async def test_settle_replays_and_conflicts(manager: AsyncCreditManager) -> None:
    """The same settle again gives the first answer; another one conflicts; a released lease cannot be settled."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", 5)
    first = await manager.settle("u1", lease.lease_id, 3)
    again = await manager.settle("u1", lease.lease_id, "3.0")
    assert again.replayed
    assert again.transaction_id == first.transaction_id
    with pytest.raises(IdempotencyConflictError):
        await manager.settle("u1", lease.lease_id, 4)
    released = await manager.reserve("u1", 5)
    await manager.release("u1", released.lease_id)
    with pytest.raises(LeaseClosedError, match="released"):
        await manager.settle("u1", released.lease_id, 3)
    assert await manager.get_available("u1") == 7


async def test_extend_and_renew(manager: AsyncCreditManager) -> None:
    """A lease can hold more and longer; its expiry never moves back."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", 2, ttl=100)
    longer = await manager.extend("u1", lease.lease_id, 3, idempotency_key="more")
    assert (longer.amount, longer.available) == (5, 5)
    assert (await manager.extend("u1", lease.lease_id, 3, idempotency_key="more")).replayed
    with pytest.raises(InsufficientCreditsError):
        await manager.extend("u1", lease.lease_id, 6)
    assert (await manager.renew("u1", lease.lease_id, ttl=1)).expires_at == lease.expires_at
    assert (await manager.renew("u1", lease.lease_id, ttl=500)).expires_at > lease.expires_at
    with pytest.raises(LeaseNotFoundError):
        await manager.renew("u1", "another")


async def test_an_idempotency_key_charges_once(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """The same key with the same request charges once, from whichever process; with another request it conflicts."""
    await manager.add_credits("u1", 10, idempotency_key="order-1")
    await other.add_credits("u1", "10.000", idempotency_key="order-1")
    results = await asyncio.gather(
        *(each.deduct("u1", USAGE, idempotency_key="chat-1") for each in (manager, other) for _ in range(10))
    )
    assert sum(not result.replayed for result in results) == 1
    assert {result.transaction_id for result in results} == {results[0].transaction_id}
    assert await manager.get_available("u1") == 8
    with pytest.raises(IdempotencyConflictError, match="chat-1"):
        await manager.deduct("u1", 3, idempotency_key="chat-1")
    with pytest.raises(IdempotencyConflictError):
        await manager.deduct("u1", 3, idempotency_key="order-1")


async def test_strict_never_goes_below_zero_and_overdraft_to_its_floor(valkey_url: str, namespace: str) -> None:
    """The policy sets the floor, and a call may choose the other mode."""
    async with AsyncCreditManager.from_url(
        valkey_url, namespace=namespace, policy="overdraft", overdraft_floor="-30"
    ) as manager:
        assert (await manager.deduct("u1", 30)).balance_after == -30
        with pytest.raises(InsufficientCreditsError, match="-30"):
            await manager.deduct("u1", "0.000001")
        await manager.add_credits("u1", 40)
        with pytest.raises(InsufficientCreditsError):
            await manager.reserve("u1", "10.000001", billing_mode="strict")
        await manager.reserve("u1", 10, billing_mode="strict")
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as strict:
        await strict.add_credits("u2", 1)
        with pytest.raises(InsufficientCreditsError):
            await strict.deduct("u2", 2, billing_mode="overdraft")  # without a floor, an overdraft goes to zero


async def test_min_balance_is_the_floor_of_strict_accounts(valkey_url: str, namespace: str) -> None:
    """A document may ask that something stays on every account, for amounts as well as for usage."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing({**DOCUMENT, "min_balance": 5})
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as fresh:
        await fresh.add_credits("u1", 10)
        outcomes = await asyncio.gather(*(fresh.deduct("u1", 1) for _ in range(10)), return_exceptions=True)
        assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 5


async def test_can_afford_and_price_hold_nothing(manager: AsyncCreditManager) -> None:
    """A preview changes nothing."""
    await manager.add_credits("u1", 2)
    assert await manager.price(USAGE) == 2
    assert await manager.can_afford("u1", USAGE)
    assert not await manager.can_afford("u1", "2.000001")
    assert (await manager.calculate(USAGE)).total == 2
    assert (await manager.get_balance("u1")).seq == 1


async def test_a_fixed_job(manager: AsyncCreditManager) -> None:
    """Jobs cost what the document says."""
    await manager.add_credits("u1", 12)
    assert (await manager.deduct_fixed("u1", "daily_report")).balance_after == 2
    with pytest.raises(UnpricedModelError):
        await manager.deduct_fixed("u1", "nightly_report")


async def test_run_billed(manager: AsyncCreditManager) -> None:
    """Work is charged what it says; work that raises is not charged."""
    await manager.add_credits("u1", 10)

    async def work() -> tuple[str, UsageMetrics]:
        assert await manager.get_available("u1") == 5
        return "done", USAGE

    billed = await manager.run_billed("u1", 5, work)
    assert (billed.result, billed.charge.amount) == ("done", 2)

    async def failing() -> tuple[str, UsageMetrics]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await manager.run_billed("u1", 5, failing)
    assert await manager.get_available("u1") == 8
    assert await manager.list_leases("u1") == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda manager: manager.add_credits("u1", 0), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", -1), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", 1.5), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", Decimal("NaN")), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", "0.0000001"), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", 2**53), InvalidAmountError),
        (lambda manager: manager.add_credits("u1", 10**5000), InvalidAmountError),
        (lambda manager: manager.deduct("u1", 1.5), InvalidAmountError),
        (lambda manager: manager.deduct("u1", []), InvalidUsageError),
        (lambda manager: manager.deduct("u1", ["x"]), InvalidUsageError),
        (lambda manager: manager.deduct("u1", None), InvalidUsageError),
        (lambda manager: manager.deduct("u1", UsageMetrics(model="gpt-4o", input_tokens=-1)), CreditError),
        (lambda manager: manager.deduct("u1", UsageMetrics(model="unknown", input_tokens=1)), UnpricedModelError),
        (lambda manager: manager.add_credits("", 1), InvalidIdError),
        (lambda manager: manager.add_credits("a" * 257, 1), InvalidIdError),
        (lambda manager: manager.add_credits("a\tb", 1), InvalidIdError),
        (lambda manager: manager.add_credits("a\ud800", 1), InvalidIdError),
        (lambda manager: manager.add_credits("@ducto", 1), InvalidIdError),
        (lambda manager: manager.add_credits(7, 1), InvalidIdError),
        (lambda manager: manager.add_credits("u1", 1, idempotency_key=""), InvalidIdError),
        (lambda manager: manager.add_credits("u1", 1, metadata={"x": "y" * 1024}), InvalidMetadataError),
        (lambda manager: manager.add_credits("u1", 1, metadata={"x": object()}), InvalidMetadataError),
        (lambda manager: manager.add_credits("u1", 1, durability="ledger"), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, durability="certain"), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, priority=-1), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, priority=2.5), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, priority=True), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, expires_at="2030-01-01"), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, expires_at=1893456000), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, expires_at=date(2030, 1, 1)), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, expires_at=datetime(2020, 1, 1)), ConfigError),
        (lambda manager: manager.add_credits("u1", 1, expires_at=datetime(1970, 1, 1, tzinfo=UTC)), ConfigError),
        (lambda manager: manager.deduct("u1", 1, member="ann"), TeamNotFoundError),
        (lambda manager: manager.reserve("u1", 1, member="ann"), TeamNotFoundError),
        (lambda manager: manager.deduct("u1", 1, member=7), InvalidIdError),
        (lambda manager: manager.deduct("u1", 1, required_feature="chat"), FeatureNotEntitledError),
        (lambda manager: manager.reserve("u1", 1, required_feature="a\nb"), InvalidIdError),
        (lambda manager: manager.reserve("u1", 1, lease_id="x" * 129), InvalidIdError),
        (lambda manager: manager.reserve("u1", 1, operation_type="x\n"), InvalidIdError),
        (lambda manager: manager.reserve("u1", 1, ttl=0), ConfigError),
        (lambda manager: manager.reserve("u1", 1, ttl=float("nan")), ConfigError),
        (lambda manager: manager.reserve("u1", 1, billing_mode="free"), ConfigError),
        (lambda manager: manager.activate_pricing(9), ConfigError),
        (lambda manager: manager.activate_pricing(0), ConfigError),
        (lambda manager: manager.publish_pricing({"version": 1, "models": {"x": "y"}}), CreditError),
    ],
)
async def test_bad_input_is_refused_before_anything_is_written(manager: AsyncCreditManager, call, error) -> None:
    """A typed error, and neither the account nor the journal changes."""
    client = manager.store.redis()

    def everything() -> list[object]:
        keys = sorted(client.scan_iter(f"{manager.store.namespace.name}:*"))
        return [(key, client.dump(key)) for key in keys]

    before = everything()
    with pytest.raises(error):
        await call(manager)
    assert everything() == before


async def test_a_manager_with_an_engine_of_its_own_asks_nobody() -> None:
    """A given engine prices without anything published."""
    async with AsyncCreditManager(MemoryStore(), PricingEngine.from_dict(DOCUMENT)) as manager:
        await manager.add_credits("u1", 10)
        assert (await manager.deduct("u1", USAGE)).amount == 2
        with pytest.raises(PricingNotLoadedError):
            await manager.get_pricing()


async def test_settings_are_checked() -> None:
    """A manager is not made with settings that contradict themselves."""
    for options in (
        {"policy": "free"},
        {"policy": "overdraft", "overdraft_floor": 5},
        {"policy": "overdraft", "overdraft_floor": -1.5},
        {"on_lease_expiry": "keep"},
        {"default_ttl_seconds": 0},
        {"max_concurrent": 0},
        {"max_concurrent": 1.5},
        {"max_concurrent": True},
        {"low_balance_thresholds": [-1]},
        {"low_balance_thresholds": [0.5]},
        {"refund_expired": "charity"},
    ):
        with pytest.raises((ConfigError, InvalidAmountError)):
            AsyncCreditManager(MemoryStore(), **options)


async def test_a_closed_manager_says_so(manager: AsyncCreditManager) -> None:
    """After close every call is refused, and closing again is fine."""
    await manager.close()
    await manager.close()
    with pytest.raises(StoreError, match="closed"):
        await manager.get_balance("u1")
