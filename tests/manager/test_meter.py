"""Meters, for event loops and for threads."""

import asyncio
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import InsufficientCreditsError, LeaseClosedError, StoreError
from ducto_redis.results import ReleaseResult, SettleResult

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


async def test_what_is_recorded_is_charged(manager: AsyncCreditManager) -> None:
    """Recordings add up, and are charged on exit."""
    await manager.add_credits("u1", 10)
    async with manager.meter("u1", estimate=5, lease_id="job-1") as meter:
        assert await manager.get_available("u1") == 5
        meter.record(USAGE)
        meter.record(USAGE, "usage_counted")
    assert isinstance(meter.result, SettleResult)
    assert meter.result.amount == 2
    assert await manager.get_available("u1") == 8


async def test_without_a_recording_the_lease_is_released(manager: AsyncCreditManager) -> None:
    """Nothing recorded, nothing charged."""
    await manager.add_credits("u1", 10)
    async with manager.meter("u1", estimate=5) as meter:
        pass
    assert isinstance(meter.result, ReleaseResult)
    assert await manager.get_available("u1") == 10


async def test_after_an_exception_what_was_recorded_is_charged(manager: AsyncCreditManager) -> None:
    """Work that failed half-way costs its half."""
    await manager.add_credits("u1", 10)
    with pytest.raises(RuntimeError):
        async with manager.meter("u1", estimate=5) as meter:
            meter.record(USAGE)
            raise RuntimeError("half-way")
    assert await manager.get_available("u1") == 9


async def test_a_cancelled_caller_does_not_take_the_charge_with_it(manager: AsyncCreditManager) -> None:
    """Cancelled twice, even while it settles: the charge is made once."""
    await manager.add_credits("u1", 10)
    inside = asyncio.Event()

    async def work() -> None:
        async with manager.meter("u1", estimate=5) as meter:
            meter.record(USAGE)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await manager.close()
    async with AsyncCreditManager(manager.store) as again:
        balance = await again.get_balance("u1")
    assert (balance.available, balance.held) == (9, 0)


async def test_a_closed_meter_records_nothing(manager: AsyncCreditManager) -> None:
    """Recording after the end raises instead of being lost."""
    await manager.add_credits("u1", 10)
    async with manager.meter("u1", estimate=5) as meter:
        pass
    with pytest.raises(StoreError, match="closed"):
        meter.record(USAGE)


async def test_what_cannot_be_held_is_not_begun(manager: AsyncCreditManager) -> None:
    """The body of the meter does not run."""
    with pytest.raises(InsufficientCreditsError):
        async with manager.meter("u1", estimate=5):
            pytest.fail("it ran")


async def test_a_meter_renews_its_lease(manager: AsyncCreditManager) -> None:
    """A lease outlives its time to live for as long as the work runs."""
    await manager.add_credits("u1", 10)
    async with manager.meter("u1", estimate=5, ttl=0.2) as meter:
        assert meter.lease is not None
        while (await manager.list_leases("u1"))[0].expires_at == meter.lease.expires_at:
            await asyncio.sleep(0.01)
        meter.record(USAGE)
    assert isinstance(meter.result, SettleResult)
    assert not meter.result.late


async def test_a_lease_that_was_released_meanwhile_is_said_so(manager: AsyncCreditManager) -> None:
    """Somebody released the lease by hand: the charge is refused and the caller learns why."""
    await manager.add_credits("u1", 10)
    with pytest.raises(LeaseClosedError, match="released"):
        async with manager.meter("u1", estimate=5) as meter:
            await manager.release("u1", meter.lease_id)
            meter.record(USAGE)


def test_a_blocking_meter(blocking: CreditManager) -> None:
    """The same, from a thread, renewal included."""
    blocking.add_credits("u1", 10)
    with blocking.meter("u1", estimate=5, ttl=0.2) as meter:
        assert meter.lease is not None
        while blocking.list_leases("u1")[0].expires_at == meter.lease.expires_at:
            pass
        meter.record(USAGE)
    assert isinstance(meter.result, SettleResult)
    assert (meter.result.amount, meter.result.late) == (1, False)
    with pytest.raises(ValueError, match="half-way"), blocking.meter("u1", estimate=5) as failing:
        failing.record(USAGE)
        raise ValueError("half-way")
    assert blocking.get_available("u1") == Decimal(8)
