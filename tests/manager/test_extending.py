"""Leases that grow by the difference of two prices."""

from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import CapReachedError, InsufficientCreditsError, InvalidUsageError
from tests.manager.conftest import DEARER


def usage(output_tokens: int, model: str = "gpt-4o") -> UsageMetrics:
    return UsageMetrics(model=model, input_tokens=1000, output_tokens=output_tokens)


async def test_the_difference_is_held(manager: AsyncCreditManager) -> None:
    """What is held beyond another usage is what it costs more; the same key holds it once."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", usage(500))
    assert lease.amount == 2
    grown = await manager.extend("u1", lease.lease_id, usage(750), beyond=usage(500), idempotency_key="step-1")
    assert (grown.amount, grown.available) == (Decimal("2.5"), Decimal("7.5"))
    again = await manager.extend("u1", lease.lease_id, usage(750), beyond=usage(500), idempotency_key="step-1")
    assert again.replayed
    assert (await manager.get_available("u1")) == Decimal("7.5")
    with pytest.raises(InsufficientCreditsError) as refused:
        await manager.extend("u1", lease.lease_id, usage(5000), beyond=usage(750))
    assert refused.value.needed == Decimal("8.5")


async def test_formulas_that_are_no_sums(manager: AsyncCreditManager) -> None:
    """Tiers and prices of each request are those of the whole; what costs less holds nothing more, and nothing less."""
    await manager.publish_pricing(
        {"models": {"gpt-4o": "requests * 3 + (output_tokens * 0.01 if output_tokens < 100 else output_tokens * 0.02)"}}
    )
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", usage(50))
    assert (await manager.extend("u1", lease.lease_id, usage(120), beyond=usage(50))).amount == Decimal("5.4")
    assert (await manager.extend("u1", lease.lease_id, usage(90), beyond=usage(120))).amount == Decimal("5.4")


async def test_at_the_prices_of_the_lease(manager: AsyncCreditManager) -> None:
    """A document that was published meanwhile changes neither of the two prices."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", usage(500))
    await manager.publish_pricing(DEARER)
    assert (await manager.extend("u1", lease.lease_id, usage(1000), beyond=usage(500))).amount == 3


async def test_caps_count_it(manager: AsyncCreditManager) -> None:
    """The difference counts against the caps of the account and of the model."""
    await manager.add_credits("u1", 10)
    await manager.set_spend_cap("u1", "2.4", window="day", model="gpt-4o")
    lease = await manager.reserve("u1", usage(500))
    await manager.extend("u1", lease.lease_id, usage(700), beyond=usage(500))
    with pytest.raises(CapReachedError) as refused:
        await manager.extend("u1", lease.lease_id, usage(701), beyond=usage(700))
    assert (refused.value.held, refused.value.needed) == (Decimal("2.4"), Decimal("0.002"))


async def test_only_of_the_same_model(manager: AsyncCreditManager) -> None:
    """Two models have no difference, nor have credits."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", usage(500))
    for more in (usage(700, "render"), 3):
        with pytest.raises(InvalidUsageError, match="same model"):
            await manager.extend("u1", lease.lease_id, more, beyond=usage(500))


async def test_a_meter_knows_what_it_holds(manager: AsyncCreditManager) -> None:
    """What a meter holds grows with each extension, and is charged whole where usage has no price."""
    await manager.add_credits("u1", 10)
    async with manager.meter("u1", usage(500)) as meter:
        assert meter.held == 2
        await meter.extend(usage(1000), beyond=usage(500), key="call/0123456789abcdef")
        await meter.extend(usage(1000), beyond=usage(500), key="call/0123456789abcdef")
        assert meter.held == 3
        meter.record(usage(600))
    assert meter.result is not None
    assert meter.result.amount == Decimal("2.2")


async def test_what_would_be_refused(manager: AsyncCreditManager) -> None:
    """A check says what a reserve would be refused with, and holds nothing."""
    await manager.add_credits("u1", 3)
    await manager.check_affordable("u1", usage(500))
    with pytest.raises(InsufficientCreditsError) as refused:
        await manager.check_affordable("u1", usage(5000))
    assert refused.value.needed == 11
    assert await manager.list_leases("u1") == []


async def test_the_price_for_an_account(manager: AsyncCreditManager) -> None:
    """It is that of the account's plan, once this process has met the account."""
    plans = {"cheap": {"rate_overrides": {"gpt-4o": "output_tokens * 0.001"}}}
    await manager.publish_pricing({"models": {"gpt-4o": "output_tokens * 0.002"}, "plans": plans})
    await manager.set_user_plan("u1", "cheap")
    assert await manager.price_micro("u1", usage(500)) == 500_000
    assert await manager.price_micro("u2", usage(500)) == 1_000_000


def test_a_meter_for_threads(blocking: CreditManager) -> None:
    """It grows the same way."""
    blocking.add_credits("u1", 10)
    with blocking.meter("u1", usage(500)) as meter:
        meter.extend(usage(1000), beyond=usage(500))
        assert meter.held == 3
        assert blocking.get_available("u1") == 7
    assert blocking.price_micro("u1", usage(500)) == 2_000_000
    blocking.check_affordable("u1", usage(500))
