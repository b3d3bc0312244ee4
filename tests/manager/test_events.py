"""Events in the process: what a manager tells of its own operations, and to whom."""

import asyncio
import inspect
import logging
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditEvent, CreditManager, UsageMetrics
from ducto_redis.delivery import EventTail
from ducto_redis.errors import (
    CapReachedError,
    ConfigError,
    InsufficientCreditsError,
    LeaseExpiredError,
    RefundError,
    TransactionNotFoundError,
    UnpricedModelError,
)
from ducto_redis.events.types import (
    Added,
    CapReached,
    CapWarned,
    Deducted,
    DeductFailed,
    Expired,
    LeaseExpired,
    LowBalance,
    Overdraft,
    PlanChanged,
    PricingActivated,
    Refunded,
    RefundFailed,
    Released,
    Reserved,
    Settled,
)
from ducto_redis.manager import events as events_module
from ducto_redis.manager.events import tells
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01", "_default": "output_tokens"},
    "fixed": {"report": 3},
    "plans": {"free": {"free_allowance": 10}, "pro": {"free_allowance": 20}},
}
USAGE = UsageMetrics(model="gpt-4o", output_tokens=100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store, low_balance_thresholds=[50, "20.5", 10]) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.fixture
def told(credits: CreditManager) -> list[CreditEvent]:
    """What the manager tells from here on."""
    events: list[CreditEvent] = []
    credits.on("credits.*", events.append)
    return events


def said(events: list[CreditEvent]) -> list[Any]:
    """What events say, and forgets them."""
    data = [event.data for event in events]
    events.clear()
    return data


def test_credits_that_come_in(credits: CreditManager, told: list[CreditEvent], clock: Clock) -> None:
    """Adding and adjusting tell `credits.added`, with what the credits are and who says so."""
    expires_at = clock.time + timedelta(days=30)
    added = credits.add_credits("u1", 5, type="bonus", expires_at=expires_at, metadata={"order": "A-17"})
    (event,) = told
    assert (event.type, event.account, event.transaction_id) == ("credits.added", "u1", added.transaction_id)
    assert event.metadata == {"order": "A-17"}
    assert event.time.tzinfo is not None
    assert said(told) == [Added(amount=Decimal(5), balance_after=Decimal(5), type="bonus", expires_at=expires_at)]
    credits.adjust_credits("u1", -2, actor="ana", reason="ticket 81")
    assert said(told) == [
        Added(amount=Decimal(-2), balance_after=Decimal(3), type="adjustment", actor="ana", reason="ticket 81")
    ]


def test_a_charge(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A charge tells what it took, from what, for whom, and for which models."""
    credits.add_credits("u1", 100)
    told.clear()
    credits.deduct("u1", [USAGE, UsageMetrics(output_tokens=1)], operation_type="chat", metadata={"request": "r1"})
    assert [event.metadata for event in told] == [{"request": "r1"}]
    assert said(told) == [
        Deducted(amount=Decimal(2), balance_after=Decimal(98), operation_type="chat", models=("gpt-4o",))
    ]
    credits.deduct_fixed("u1", "report")
    assert said(told) == [Deducted(amount=Decimal(3), balance_after=Decimal(95))]


def test_a_lease(credits: CreditManager, told: list[CreditEvent]) -> None:
    """Opening, extending, settling and releasing a lease are each told."""
    credits.add_credits("u1", 100)
    told.clear()
    lease = credits.reserve("u1", 10, operation_type="agent")
    assert said(told) == [
        Reserved(
            lease_id=lease.lease_id,
            amount=Decimal(10),
            operation_type="agent",
            allowance_consumed=Decimal(0),
            expires_at=lease.expires_at,
        )
    ]
    credits.extend("u1", lease.lease_id, 5)
    credits.renew("u1", lease.lease_id)
    assert said(told) == [Reserved(lease_id=lease.lease_id, amount=Decimal(15), extended=True)]
    credits.settle("u1", lease.lease_id, USAGE)
    assert said(told) == [
        Settled(lease_id=lease.lease_id, amount=Decimal(1), balance_after=Decimal(99), models=("gpt-4o",))
    ]
    lease = credits.reserve("u1", 10)
    told.clear()
    credits.release("u1", lease.lease_id)
    assert said(told) == [Released(lease_id=lease.lease_id, amount=Decimal(10))]


def test_low_balance_fires_once_on_the_way_down(credits: CreditManager, told: list[CreditEvent]) -> None:
    """Each level is told when a charge reaches it, once until credits come in above it."""
    low: list[CreditEvent] = []
    credits.off("credits.*", told.append)
    credits.on("credits.low_balance", low.append)
    credits.add_credits("u1", 100)
    levels = []
    for amount in (49, 1, 1, 35, 3):
        credits.deduct("u1", amount)
        levels.append([event.data.level for event in low])
        low.clear()
    assert levels == [[], [50], [], [Decimal("20.5")], []]
    credits.add_credits("u1", 20)
    credits.deduct("u1", 25)
    assert said(low) == [
        LowBalance(level=Decimal("20.5"), balance_after=Decimal(6)),
        LowBalance(level=Decimal(10), balance_after=Decimal(6)),
    ]


def test_levels_fire_once_across_managers(credits: CreditManager, clock: Clock) -> None:
    """Two processes that charge one account tell a crossing once: it is the engine that knows."""
    crossings: list[CreditEvent] = []
    credits.on("credits.low_balance", crossings.append)
    with CreditManager(
        clock.store, low_balance_thresholds=[50], on_low_balance=lambda event: crossings.append(event)
    ) as other:
        credits.add_credits("u1", 60)
        for _ in range(10):
            credits.deduct("u1", 1)
            other.deduct("u1", 1)
    assert [event.data.level for event in crossings] == [50]


def test_overdraft_is_told_once(clock: Clock) -> None:
    """The charge that goes below zero tells so; one that goes on does not."""
    events: list[CreditEvent] = []
    with CreditManager(clock.store, policy="overdraft", overdraft_floor=-50) as manager:
        manager.on("credits.overdraft", events.append)
        manager.add_credits("u1", 5)
        manager.deduct("u1", 5)
        lease = manager.reserve("u1", 10)
        manager.settle("u1", lease.lease_id, 10)
        manager.deduct("u1", 1)
    assert said(events) == [Overdraft(amount=Decimal(10), balance_after=Decimal(-10))]


def test_caps_that_let_pass(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A cap that warns, and one that notifies, tell the first charge that passes their limit."""
    credits.add_credits("u1", 100)
    credits.set_spend_cap("u1", 5, window="day", action="warn")
    credits.set_spend_cap("u1", 7, window="month", action="notify")
    told.clear()
    for amount in (5, 1, 1, 1, 1):
        credits.deduct("u1", amount)
    data = [it for it in said(told) if not isinstance(it, Deducted)]
    assert [type(it) for it in data] == [CapWarned, CapReached]
    assert (data[0].scope, data[1].scope, data[1].blocking) == ("account", "account", False)


def test_a_refused_charge(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A refusal tells why, what was needed and what there was, and which operation it was."""
    credits.add_credits("u1", 5)
    told.clear()
    with pytest.raises(InsufficientCreditsError) as caught:
        credits.deduct("u1", 8, metadata={"request": "r1"})
    (event,) = told
    assert (event.type, event.account, event.transaction_id) == ("credits.deduct_failed", "u1", None)
    assert event.metadata == {"request": "r1"}
    assert said(told) == [
        DeductFailed(
            operation="deduct",
            error="insufficient_credits",
            message=str(caught.value),
            needed=Decimal(8),
            available=Decimal(5),
        )
    ]
    with pytest.raises(InsufficientCreditsError):
        credits.reserve("u1", 8, operation_type="agent")
    (failed,) = said(told)
    assert (failed.operation, failed.operation_type) == ("reserve", "agent")
    lease = credits.reserve("u1", 4)
    told.clear()
    with pytest.raises(InsufficientCreditsError):
        credits.extend("u1", lease.lease_id, 8)
    (failed,) = said(told)
    assert (failed.operation, failed.lease_id) == ("extend", lease.lease_id)


def test_a_model_without_a_price(clock: Clock) -> None:
    """A model that has no price is a refusal that somebody should hear of."""
    events: list[CreditEvent] = []
    with CreditManager(clock.store) as manager:
        manager.publish_pricing({"models": {"gpt-4o": "output_tokens"}})
        manager.on("credits.deduct_failed", events.append)
        with pytest.raises(UnpricedModelError):
            manager.deduct("u1", UsageMetrics(model="gpt-9", output_tokens=1))
    assert [data.error for data in said(events)] == ["model_not_priced"]


def test_a_cap_that_refuses(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A cap that refuses tells the failed charge, and the cap with its numbers."""
    credits.add_credits("u1", 100)
    credits.set_spend_cap("u1", 5, window="day")
    credits.deduct("u1", 3)
    told.clear()
    with pytest.raises(CapReachedError) as caught:
        credits.deduct("u1", 4)
    failed, reached = said(told)
    assert failed.error == "spend_cap_reached"
    assert reached == CapReached(
        cap_id=caught.value.cap_id,
        scope="account",
        blocking=True,
        window="day",
        limit=Decimal(5),
        used=Decimal(3),
        held=Decimal(0),
        needed=Decimal(4),
        window_end=caught.value.window_end,
    )


def test_refunds(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A refund, and one that is refused, are told; a refused one for the account whose charge it was."""
    credits.add_credits("u1", 100)
    charge = credits.deduct("u1", 5)
    told.clear()
    credits.refund_credits(charge.transaction_id, 2, reason="ticket 81")
    assert said(told) == [
        Refunded(amount=Decimal(2), balance_after=Decimal(97), refund_of=charge.transaction_id, reason="ticket 81")
    ]
    with pytest.raises(RefundError) as caught:
        credits.refund_credits(charge.transaction_id, 4)
    (event,) = told
    assert (event.type, event.account) == ("credits.refund_failed", "u1")
    assert said(told) == [
        RefundFailed(refund_of=charge.transaction_id, error="refund_error", message=str(caught.value))
    ]
    with pytest.raises(TransactionNotFoundError):
        credits.refund_credits("0-1-1700000000000-0")
    assert [event.account for event in told] == [""]


def test_plans_and_prices(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A change of plan and a new document are told; the same plan again changes nothing and tells nothing."""
    credits.set_user_plan("u1", "free")
    credits.set_user_plan("u1", "free")
    credits.unset_user_plan("u1")
    assert said(told) == [PlanChanged(plan="free"), PlanChanged(plan=None)]
    credits.publish_pricing(DOCUMENT)
    credits.activate_pricing(1)
    assert [event.account for event in told] == ["", ""]
    assert said(told) == [PricingActivated(version=2, activation=2), PricingActivated(version=1, activation=3)]


def test_a_lease_that_expired(credits: CreditManager, told: list[CreditEvent], clock: Clock) -> None:
    """A manager that finds a lease expired tells so: where it is settled late, and where it is to be renewed."""
    credits.add_credits("u1", 100)
    lease = credits.reserve("u1", 10, ttl=60)
    clock.move(seconds=61)
    told.clear()
    with pytest.raises(LeaseExpiredError):
        credits.renew("u1", lease.lease_id)
    with pytest.raises(LeaseExpiredError):
        credits.extend("u1", lease.lease_id, 1)
    assert said(told) == [LeaseExpired(lease_id=lease.lease_id)] * 2
    credits.settle("u1", lease.lease_id, 3)
    expired, settled = said(told)
    assert expired == LeaseExpired(lease_id=lease.lease_id)
    assert (settled.late, settled.amount) == (True, 3)


def test_a_sweep_tells_what_expired(credits: CreditManager, told: list[CreditEvent], clock: Clock) -> None:
    """A sweep tells how much it found on all accounts together; a dry run, and one that finds none, tell nothing."""
    for account in ("u1", "u2"):
        credits.add_credits(account, 5, expires_at=clock.time + timedelta(days=1))
    clock.move(days=2)
    told.clear()
    credits.sweep_expired_credits(dry_run=True)
    assert told == []
    credits.sweep_expired_credits()
    assert said(told) == [Expired(amount=Decimal(10), grants=2)]
    credits.sweep_expired_credits()
    assert told == []


def test_what_is_replayed_is_not_told_again(credits: CreditManager, told: list[CreditEvent]) -> None:
    """The answer of an earlier call is given again, and nobody hears of it twice."""
    for _ in range(2):
        credits.add_credits("u1", 30, idempotency_key="a")
        charge = credits.deduct("u1", 12, idempotency_key="b")
        if len(told) < 5:
            credits.reserve("u1", 1, lease_id="l1")
        credits.settle("u1", "l1", 1)
        credits.refund_credits(charge.transaction_id, 1, idempotency_key="c")
    assert [event.type.value.partition(".")[2] for event in told] == [
        "added",
        "deducted",
        "low_balance",
        "low_balance",
        "reserved",
        "settled",
        "refunded",
    ]


def test_a_told_method_takes_its_arguments_as_it_is_written(credits: CreditManager, told: list[CreditEvent]) -> None:
    """By position or by name, with the method's defaults; a wrong argument is a TypeError that names the method."""
    credits.add_credits(account="u1", amount=500)
    credits.deduct("u1", usage_or_amount=1, metadata={"request": "r1"})
    assert [event.metadata for event in told] == [None, {"request": "r1"}]
    assert said(told)[1] == Deducted(amount=Decimal(1), balance_after=Decimal(499))
    assert inspect.signature(AsyncCreditManager.deduct).parameters["operation_type"].default == "default"
    with pytest.raises(TypeError, match=r"deduct\(\) got an unexpected keyword argument 'amuont'"):
        credits.deduct("u1", 1, amuont=1)  # type: ignore[call-arg]


def test_a_told_method_is_seen_by_tracers() -> None:
    """The frame that tells is in the manager's file, on the template's lines: no count of calls leaves it out."""
    code = AsyncCreditManager.deduct.__code__
    assert code.co_filename == events_module.__file__
    lines = Path(code.co_filename).read_text().splitlines()
    assert lines[code.co_firstlineno - 1] == "async def call({parameters}):"


def test_a_method_that_cannot_be_told_is_refused() -> None:
    """A method whose parameters have no names could not be told: it is an error where it is decorated."""

    async def method(self: Any, *amounts: int) -> None:
        """Never called."""

    with pytest.raises(TypeError, match="cannot be told by name"):
        tells("deduct")(method)


def test_the_journal_tells_the_same(credits: CreditManager, told: list[CreditEvent], clock: Clock) -> None:
    """What a manager tells of an operation is, id for id and field for field, what the journal's entry tells.

    Except for what one side cannot know: a balance that the entry left alone, and a settled lease's member.
    """
    credits.add_credits("u1", 100, metadata={"order": 1})
    credits.add_credits("u1", 7, type="bonus", priority=1, expires_at=clock.time + timedelta(days=3))
    credits.deduct("u1", [USAGE, UsageMetrics(output_tokens=1)], operation_type="chat", metadata={"request": "r1"})
    lease = credits.reserve("u1", 40, operation_type="agent")
    settled = credits.settle("u1", lease.lease_id, 60, metadata={"request": "r2"})
    credits.refund_credits(settled.transaction_id, "2.5", reason="ticket 81")
    credits.adjust_credits("u1", -1, actor="ana", reason="ticket 82")
    lease = credits.reserve("u1", 1)
    credits.release("u1", lease.lease_id)
    credits.set_spend_cap("u1", 5, window="day", action="warn")
    credits.deduct("u1", 6)
    credits.set_user_plan("u1", "pro")
    credits.reserve("u1", 25)
    credits.deduct("u1", 1, skip_allowance=True)
    credits.create_team("acme", name="Acme", owner="ana")
    credits.add_credits("acme", 100)
    credits.deduct_team("acme", "ana", 95)
    credits.unset_user_plan("u1")
    tail = EventTail(credits.store, since=clock.time - timedelta(hours=1))
    journalled = {event.event_id: event for event in tail.read_all()}
    assert len(told) > 20
    assert {event.event_id for event in told} <= set(journalled)
    assert told == [journalled[event.event_id] for event in told]


def test_a_handlers_failure_stays_with_it(
    credits: CreditManager, told: list[CreditEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that raises is logged and counted; the operation, its caller and the other handlers go on."""

    def broken(event: CreditEvent) -> None:
        raise ValueError("no such customer")

    credits.off("credits.*", told.append)
    credits.on("credits.added", broken)
    credits.on("credits.added", told.append)
    with caplog.at_level(logging.ERROR):
        assert credits.add_credits("u1", 5).balance_after == 5
    assert len(told) == 1
    assert credits.event_counts.handler_errors == 1
    assert "broken of credits.added failed" in caplog.text
    assert "no such customer" in caplog.text


def test_order_and_removal(credits: CreditManager) -> None:
    """Handlers are called in the order of registration, until they are taken back; a handler may take itself back."""
    calls: list[str] = []

    def once(event: CreditEvent) -> None:
        calls.append("once")
        credits.off("credits.added", once)

    credits.on("credits.added", once)

    @credits.on("*")
    def always(event: CreditEvent) -> None:
        calls.append("always")

    credits.add_credits("u1", 1)
    credits.add_credits("u1", 1)
    assert calls == ["once", "always", "always"]
    assert credits.off("*", always)
    credits.add_credits("u1", 1)
    assert len(calls) == 3


def test_a_handler_may_use_the_manager(credits: CreditManager, told: list[CreditEvent]) -> None:
    """A handler that adds credits when they run low does so, after the charge."""
    credits.on("credits.low_balance", lambda event: credits.add_credits(event.account, 100) and None)
    credits.add_credits("u1", 51)
    told.clear()
    assert credits.deduct("u1", 1).balance_after == 50
    assert [event.type.value.partition(".")[2] for event in told] == ["deducted", "low_balance", "added"]
    assert credits.get_balance("u1").balance == 150


def test_the_blocking_manager_has_no_loop(credits: CreditManager) -> None:
    """A coroutine handler is refused where nothing could run it; one that hides is a failed handler."""

    async def handler(event: CreditEvent) -> None:
        """Never runs."""

    with pytest.raises(ConfigError, match="there is no event loop"):
        credits.on("credits.added", handler)
    with pytest.raises(ConfigError, match="there is no event loop"):
        CreditManager(credits.store, on_low_balance=handler)
    credits.on("credits.added", lambda event: handler(event))
    credits.add_credits("u1", 1)
    assert credits.event_counts.handler_errors == 1


def test_an_unknown_type_is_refused(credits: CreditManager) -> None:
    """A misspelt type is an error at registration."""
    with pytest.raises(ConfigError, match="there is no event"):
        credits.on("credits.low", print)
    with pytest.raises(ConfigError, match="there is no event"):
        credits.on("credits.low")


async def test_coroutine_handlers_run_in_order_and_hold_nobody_up() -> None:
    """Coroutine handlers of an async manager are awaited one after the other, while the operations go on."""
    seen: list[str] = []
    gate = asyncio.Event()

    async def slow(event: CreditEvent) -> None:
        await gate.wait()
        seen.append(f"slow {event.data.amount}")

    async def broken(event: CreditEvent) -> None:
        raise ValueError("no such customer")

    async with AsyncCreditManager.from_url("memory://", on_low_balance=slow) as manager:
        manager.on("credits.added", slow)
        manager.on("credits.added", broken)
        manager.on("credits.added", lambda event: seen.append(f"plain {event.data.amount}"))
        await manager.add_credits("u1", 1)
        await manager.add_credits("u1", 2)
        assert seen == ["plain 1.000000", "plain 2.000000"]
        gate.set()
    assert seen[2:] == ["slow 1.000000", "slow 2.000000"]
    assert (manager.event_counts.handler_errors, manager.event_counts.dropped) == (2, 0)
