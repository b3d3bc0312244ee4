"""Managers and meters that are cancelled, interrupted, closed and opened by many at the same time."""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import CreditError, LeaseClosedError, StoreError
from ducto_redis.manager.background import Background
from ducto_redis.manager.outbox import Outbox, PendingCharge
from tests.servers import Server

from .conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


async def test_a_cancelled_close_charges(manager: AsyncCreditManager) -> None:
    """Whoever closes a meter himself and is cancelled has closed it, once; closing again gives the same result."""
    await manager.add_credits("u1", 10)
    meter = manager.meter("u1", estimate=5)
    await meter.open()
    meter.record(USAGE)
    task = asyncio.create_task(meter.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    first, second = await asyncio.gather(meter.close(), meter.close())
    assert first is second is meter.result
    assert (await manager.get_balance("u1")).balance == 9


async def test_a_cancelled_open_leaves_no_hold(manager: AsyncCreditManager) -> None:
    """Wherever the cancellation comes, nothing stays held for work that will not run."""
    await manager.add_credits("u1", 10)
    for turns in range(6):
        meter = manager.meter("u1", estimate=5)
        opening = asyncio.create_task(meter.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            await meter.close()
        while manager.pending.tasks:
            await asyncio.sleep(0)
        assert await manager.list_leases("u1") == []


async def test_a_meter_is_used_once(manager: AsyncCreditManager) -> None:
    """Nothing is recorded before it opens, and its work does not run a second time without a hold."""
    await manager.add_credits("u1", 10)
    meter = manager.meter("u1", estimate=5)
    with pytest.raises(StoreError, match="not open"):
        meter.record(USAGE)
    async with meter:
        pass
    with pytest.raises(StoreError, match="closed"):
        async with meter:
            pytest.fail("it ran")


async def test_a_meter_that_is_closed_while_it_opens(manager: AsyncCreditManager) -> None:
    """Its lease is released, and whoever opened it is told."""
    await manager.add_credits("u1", 10)
    meter = manager.meter("u1", estimate=5)
    opening = asyncio.create_task(meter.open())
    await asyncio.sleep(0)
    assert await meter.close() is None
    with pytest.raises(StoreError, match="closed while it opened"):
        await opening
    assert await manager.list_leases("u1") == []


def test_an_interrupted_close_charges_later(blocking: CreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a blocking meter settles: the charge is made all the same."""
    blocking.add_credits("u1", 10)
    settle = blocking.store.settle

    async def interrupted(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(blocking.store, "settle", settle)
        raise KeyboardInterrupt

    monkeypatch.setattr(blocking.store, "settle", interrupted)
    with pytest.raises(KeyboardInterrupt), blocking.meter("u1", estimate=5) as meter:
        meter.record(USAGE)
    while blocking.pending.outbox:
        threading.Event().wait(0.01)
    assert blocking.get_balance("u1").balance == 9


async def test_two_flushes_lose_nothing() -> None:
    """Whatever overlaps: each charge is sent, and only what was sent leaves."""
    outbox, sent = Outbox(), []

    async def send(charge: PendingCharge) -> None:
        await asyncio.sleep(0)
        sent.append(charge.key)

    for number in range(5):
        outbox.put(PendingCharge("u1", str(number)))
    assert await asyncio.gather(outbox.flush(send), outbox.flush(send)) == [True, True]
    assert set(sent) == {"0", "1", "2", "3", "4"}
    assert not len(outbox)


async def test_a_charge_that_cannot_be_made_now_lets_others_pass() -> None:
    """Only an engine that cannot be reached stops a flush."""
    outbox, sent = Outbox(), []

    async def send(charge: PendingCharge) -> None:
        if charge.key == "broken":
            raise StoreError("settle failed in the engine")
        sent.append(charge.key)

    for key in ("broken", "whole"):
        outbox.put(PendingCharge("u1", key))
    assert not await outbox.flush(send)
    assert (sent, len(outbox)) == (["whole"], 1)


@pytest.mark.parametrize("opened", [True, False])
async def test_no_charge_vanishes_with_its_manager(
    start_valkey: Callable[..., Server], caplog: pytest.LogCaptureFixture, opened: bool
) -> None:
    """What waits when it closes, also if it never reached the engine, and what comes later, is logged and counted."""
    server = start_valkey()
    manager = AsyncCreditManager.from_url(server.url, timeout_seconds=0.2)
    if opened:
        await manager.open()
    server.kill()
    manager.deduct_later("u1", USAGE, "before")
    with caplog.at_level(logging.ERROR, "ducto_redis.outbox"):
        await asyncio.gather(manager.close(), manager.close())
        manager.deduct_later("u1", USAGE, "after")
    given_up = [
        json.loads(record.getMessage().partition("): ")[2])["key"]
        for record in caplog.records
        if record.name == "ducto_redis.outbox"
    ]
    assert given_up == ["before", "after"]
    assert (manager.outbox.given_up, manager.pending.outbox) == (2, 0)


async def test_an_account_below_its_floor_is_charged_later_too(manager: AsyncCreditManager) -> None:
    """It can pay nothing: the charge is made, and is all shortfall, instead of being given up."""
    await manager.publish_pricing({**DOCUMENT, "min_balance": 10})
    await manager.add_credits("u1", 5)
    manager.deduct_later("u1", USAGE, "request-1")
    while manager.pending.outbox:
        await asyncio.sleep(0.01)
    balance = await manager.get_balance("u1")
    assert (balance.balance, balance.held, balance.seq) == (5, 0, 3)
    with pytest.raises(LeaseClosedError, match="settled"):
        await manager.release("u1", "request-1")
    assert manager.outbox.given_up == 0


async def test_calls_under_way_do_not_connect_a_closed_manager_anew(manager: AsyncCreditManager) -> None:
    """Wherever the close comes, each call has an answer or a StoreError, and the connection stays closed."""
    await manager.add_credits("u1", 100)
    for turns in range(8):
        other = AsyncCreditManager(manager.store)
        await other.open()
        calls = [asyncio.create_task(other.deduct("u1", USAGE)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.close()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(answer, BaseException) or isinstance(answer, StoreError)
        assert not manager.store.link._connections


async def test_a_closed_manager_renews_nothing(manager: AsyncCreditManager) -> None:
    """A meter that nobody closed does not try for ever."""
    await manager.add_credits("u1", 10)
    meter = manager.meter("u1", estimate=5)
    await meter.open()
    assert await meter.renew_core() == meter.ttl / 2
    await manager.close()
    assert await meter.renew_core() is None


async def test_opened_by_many_at_once() -> None:
    """A local ledger has one worker, and none once the manager is closed."""

    def workers() -> int:
        return sum(thread.name.startswith("ledger worker") for thread in threading.enumerate())

    manager = AsyncCreditManager.from_url("memory://")
    await asyncio.gather(*(manager.add_credits("u1", 1, durability="fast") for _ in range(20)))
    assert workers() == 1
    await manager.close()
    closing = AsyncCreditManager.from_url("memory://")
    opening = asyncio.create_task(closing.open())
    await asyncio.sleep(0)
    await closing.close()
    with pytest.raises(CreditError):
        await opening
    assert workers() == 0


def test_the_background_outlives_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A planned call that fails is logged, and the next is made; a cancelled one is not."""
    background, done = Background("test"), threading.Event()
    background.later(0, lambda: {}["missing"])
    background.later(0, lambda: pytest.fail("cancelled")).cancel()
    background.later(0, done.set)
    assert done.wait(5)
    background.stop()
    assert [record.getMessage() for record in caplog.records] == ["test: a planned call failed"]


def test_the_background_of_a_forked_child() -> None:
    """It waits for no thread and no lock of the parent's, and has a thread of its own."""
    background = Background("test")
    background.later(60, lambda: None)
    with background._changed:  # held by another thread of the parent, so to speak
        child = os.fork()
        if child == 0:
            status = 1
            try:
                done = threading.Event()
                background.later(0, done.set)
                status = 0 if done.wait(5) else 2
                background.stop()
            finally:
                os._exit(status)
    background.stop()
    assert os.waitpid(child, 0)[1] == 0
