"""Charges that wait for an engine that cannot be reached."""

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.results import DeductResult
from tests.servers import Server

from .conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


async def test_a_settle_waits_for_the_engine(start_valkey: Callable[..., Server]) -> None:
    """The engine dies between reserve and settle: the answer is not spoiled, and the charge is made once it is back."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        async with manager.meter("u1", estimate=5) as meter:
            meter.record(USAGE)
            server.kill()
        assert meter.result is None
        assert manager.pending.outbox == 1
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        balance = await manager.get_balance("u1")
        assert (balance.balance, balance.held) == (9, 0)


async def test_what_could_not_be_held_is_charged_later(start_valkey: Callable[..., Server]) -> None:
    """`deduct_later` charges once, whatever is asked twice, and takes no more than there is."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        await manager.add_credits("poor", "0.4")
        server.kill()
        manager.deduct_later("u1", USAGE, "request-1")
        manager.deduct_later("u1", USAGE, "request-1")
        manager.deduct_later("poor", USAGE, "request-2")
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        assert (await manager.get_balance("u1")).balance == 9
        assert (await manager.get_balance("poor")).balance == 0


async def test_a_members_charge_is_charged_later(start_valkey: Callable[..., Server]) -> None:
    """What a member of a team spent while the engine was away counts as theirs."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5, max_concurrent=1) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.create_team("acme", owner="ann")
        await manager.add_credits("acme", 10)
        await manager.reserve("acme", 1, member="ann")
        server.kill()
        manager.deduct_later("acme", USAGE, "request-1", member="ann")
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        team = await manager.get_team("acme")
        assert (team.balance, team.members[0].spent) == (9, 1)


async def test_a_full_outbox_admits_nothing_new(start_valkey: Callable[..., Server]) -> None:
    """Work that could not be charged later is not begun."""
    server = start_valkey()
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.3, outbox_limit=1) as manager:
        await manager.add_credits("u1", 10)
        server.kill()
        manager.deduct_later("u1", USAGE, "request-1")
        with pytest.raises(StoreUnavailableError, match="wait for the engine"):
            await manager.reserve("u1", 1)


async def test_what_is_given_up_is_logged_whole(
    start_valkey: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """A charge that cannot be made by the end is in the log with all that is needed to make it by hand."""
    server = start_valkey()
    manager = AsyncCreditManager.from_url(server.url, timeout_seconds=0.3)
    await manager.add_credits("u1", 10)
    server.kill()
    manager.deduct_later("u1", USAGE, "request-1")
    with caplog.at_level(logging.ERROR, "ducto_redis.outbox"):
        await manager.close()
    assert manager.outbox.given_up == 1
    charge = json.loads(caplog.records[-1].getMessage().partition(": ")[2])
    assert charge["account"] == "u1"
    assert charge["key"] == "request-1"
    assert charge["usage"] == [{"model": "gpt-4o", "input_tokens": 1000}]


def test_a_blocking_manager_has_one_too(start_valkey: Callable[..., Server]) -> None:
    """From threads the charge is sent by the manager's own thread."""
    server = start_valkey(appendfsync="always")
    with CreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 10)
        with manager.meter("u1", estimate=5) as meter:
            meter.record(USAGE)
            server.kill()
        assert meter.result is None
        server.start()
        pause = threading.Event()
        while len(manager.core.outbox):
            pause.wait(0.01)
        assert manager.get_balance("u1").balance == 9


async def once_admitted(call: Callable[[], Awaitable[DeductResult]]) -> DeductResult:
    """Ask until the circuit breaker has seen that the engine is back."""
    while True:
        try:
            return await call()
        except StoreUnavailableError as refused:
            if "nothing is admitted" not in str(refused):
                raise
            await asyncio.sleep(0.02)


async def test_an_engine_that_is_away_is_said_so_with_the_key(start_valkey: Callable[..., Server]) -> None:
    """The error carries the key under which it is safe to ask again."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.3) as manager:
        await manager.add_credits("u1", 10)
        server.kill()
        with pytest.raises(StoreUnavailableError) as away:
            await manager.deduct("u1", 1, idempotency_key="chat-1")
        assert away.value.operation_key == "chat-1"
        server.start()
        again = await once_admitted(lambda: manager.deduct("u1", 1, idempotency_key="chat-1"))
        assert again.balance_after == 9


async def test_the_key_of_an_unknown_outcome_repeats_that_call(start_valkey: Callable[..., Server]) -> None:
    """A call without a key of its own can be asked again under the key that the error carries."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.3) as manager:
        await manager.add_credits("u1", 10)
        server.kill()
        with pytest.raises(StoreUnavailableError) as away:
            await manager.deduct("u1", 1)
        server.start()
        for replayed in (False, True, True):
            result = await once_admitted(lambda: manager.deduct("u1", 1, idempotency_key=away.value.operation_key))
            assert result.replayed is replayed
        assert await manager.get_available("u1") == 9


async def test_a_lost_reply_of_the_reserve_does_not_lose_the_charge(start_valkey: Callable[..., Server]) -> None:
    """The lease had been opened after all: the charge settles it instead of opening an empty one."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        await manager.reserve("u1", USAGE, lease_id="request-1")
        manager.deduct_later("u1", USAGE, "request-1")
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        balance = await manager.get_balance("u1")
        assert (balance.balance, balance.held) == (9, 0)
        assert manager.outbox.given_up == 0


async def test_a_hold_that_nobody_will_use_is_not_charged(start_valkey: Callable[..., Server]) -> None:
    """Where expired leases are charged, a lease whose opening stayed unknown is released once the engine is back."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.3, on_lease_expiry="charge") as manager:
        await manager.add_credits("u1", 10)
        lease = await manager.reserve("u1", 5)
        server.kill()
        manager.release_later("u1", lease.lease_id)
        manager.release_later("u1", "never-opened")
        with pytest.raises(StoreUnavailableError):
            async with manager.meter("u1", 3):
                pytest.fail("it ran")
        assert manager.pending.outbox == 3
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        assert await manager.get_available("u1") == 10
        assert manager.outbox.given_up == 0


async def test_run_billed_gives_its_result_and_charges_later(start_valkey: Callable[..., Server]) -> None:
    """Work that was done is not lost because the engine went away: neither its result nor its charge."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.add_credits("u1", 10)

        async def work() -> tuple[str, str]:
            server.kill()
            return "done", "2.5"

        billed = await manager.run_billed("u1", 5, work)
        assert (billed.result, billed.charge) == ("done", None)
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        balance = await manager.get_balance("u1")
        assert (balance.available, balance.held) == (7.5, 0)


async def test_usage_without_a_price_is_charged_its_hold(start_valkey: Callable[..., Server]) -> None:
    """Nobody is there to hear the error when the outbox is flushed, and finished work is not free."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        lease = await manager.reserve("u1", 5)
        server.kill()
        unknown = UsageMetrics(model="unknown", input_tokens=1)
        manager.charge_later(PendingCharge("u1", lease.lease_id, (unknown,), hold="5"))
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        balance = await manager.get_balance("u1")
        assert (balance.balance, balance.held) == (5, 0)


async def test_work_that_runs_when_the_outbox_fills_is_not_lost(start_valkey: Callable[..., Server]) -> None:
    """The limit is for new work; what was admitted before still fits."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5, outbox_limit=1) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 10)
        async with manager.meter("u1", estimate=2) as first, manager.meter("u1", estimate=2) as second:
            first.record(USAGE)
            second.record(USAGE)
            server.kill()
        assert (manager.pending.outbox, manager.outbox.given_up) == (2, 0)
        server.start()
        while manager.pending.outbox:
            await asyncio.sleep(0.01)
        assert await manager.get_available("u1") == 8
