"""Budgets: meters and leases inside of a run's lease, which pays for them and for nothing else."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, Payer, UsageMetrics
from ducto_redis.clients import paid_by
from ducto_redis.errors import (
    IdempotencyConflictError,
    InsufficientCreditsError,
    LeaseClosedError,
    LeaseNotFoundError,
    UnpricedModelError,
)
from ducto_redis.results import ReleaseResult, SettleResult
from tests.manager.conftest import DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)  # a credit


async def test_calls_spend_of_their_run(manager: AsyncCreditManager) -> None:
    """What calls cost is taken out of the run's hold; what the run has left at its end goes back to the account."""
    await manager.add_credits("u1", 100)
    async with manager.meter("u1", 50, operation_type="agent", lease_id="run") as run:
        async with manager.meter("u1", USAGE, parent="run") as call:
            call.record(USAGE)
            assert {lease.lease_id: lease.parent for lease in await manager.list_leases("u1")} == {
                "run": None,
                call.lease_id: "run",
            }
        step = await manager.reserve("u1", 5, parent=run.lease_id)
        async with manager.meter("u1", 5, parent=step.lease_id) as call:
            call.record(USAGE)
            call.record(USAGE)
        await manager.release("u1", step.lease_id)
        assert await manager.get_available("u1") == 50
        (lease,) = await manager.list_leases("u1")
        assert lease.amount == 47
    assert isinstance(run.result, ReleaseResult)
    assert (run.result.amount, await manager.get_available("u1")) == (47, 97)


async def test_calls_at_the_same_time_never_pass_the_budget(manager: AsyncCreditManager) -> None:
    """However many calls ask for it at once, the run's hold is given out once."""
    await manager.add_credits("u1", 100)
    run = await manager.reserve("u1", 10)

    async def call() -> Decimal:
        try:
            async with manager.meter("u1", 2, parent=run.lease_id) as meter:
                meter.record(UsageMetrics(model="gpt-4o", input_tokens=3000))
        except InsufficientCreditsError as refused:
            return Decimal(0) if refused.parent == run.lease_id else Decimal("nan")
        assert isinstance(meter.result, SettleResult)
        return meter.result.amount

    charged = await asyncio.gather(*[call() for _ in range(20)])
    assert sum(charged) == 10
    assert (await manager.release("u1", run.lease_id)).amount == 0
    assert await manager.get_available("u1") == 90


def test_blocking(blocking: CreditManager) -> None:
    """The same for threads."""
    blocking.add_credits("u1", 10)
    with blocking.meter("u1", 5) as run:
        with blocking.meter("u1", 2, parent=run.lease_id) as call:
            call.record(USAGE)
        assert not blocking.can_afford("u1", 5, parent=run.lease_id)
        assert blocking.can_afford("u1", 4, parent=run.lease_id)
        assert not blocking.can_afford("u1", 1, parent="no lease")
    assert blocking.get_available("u1") == 9


async def test_the_parent_is_part_of_the_request(manager: AsyncCreditManager) -> None:
    """The same lease id inside another lease, or inside none, is another request."""
    await manager.add_credits("u1", 100)
    for run in ("one", "two"):
        await manager.reserve("u1", 10, lease_id=run)
    await manager.reserve("u1", 1, lease_id="call", parent="one")
    assert (await manager.reserve("u1", 1, lease_id="call", parent="one")).replayed
    for parent in ("two", None):
        with pytest.raises(IdempotencyConflictError):
            await manager.reserve("u1", 1, lease_id="call", parent=parent)


async def test_an_account_s_own_leases_alone(manager: AsyncCreditManager) -> None:
    """Another account's lease is no parent."""
    await manager.add_credits("u1", 10)
    await manager.add_credits("u2", 10)
    await manager.reserve("u1", 5, lease_id="run")
    with pytest.raises(LeaseNotFoundError):
        await manager.reserve("u2", 1, parent="run")


async def test_a_run_goes_on_at_its_prices(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """A run that was priced by usage prices all that is inside of it as it was priced, whatever is published since."""
    await manager.add_credits("u1", 100)
    estimate = UsageMetrics(model="gpt-4o", input_tokens=20_000)
    await manager.reserve("u1", estimate, lease_id="run")
    await manager.reserve("u1", 20, lease_id="run in credits")
    await manager.publish_pricing({"models": {"gpt-5": "input_tokens * 0.5"}})
    for caller in (manager, other):
        async with caller.meter("u1", USAGE, parent="run") as call:
            call.record(USAGE)
        assert isinstance(call.result, SettleResult)
        assert (call.result.amount, call.lease and call.lease.version) == (1, 1)
        with pytest.raises(UnpricedModelError):
            await caller.reserve("u1", USAGE, parent="run in credits")
        async with caller.meter("u1", 5, parent="run in credits") as call:
            call.record(UsageMetrics(model="gpt-5", input_tokens=2))
        assert isinstance(call.result, SettleResult)
        assert call.result.amount == 1


async def test_a_run_goes_on_under_its_plan(manager: AsyncCreditManager) -> None:
    """Its prices are those of the plan that the account had, and its calls may be of another one meanwhile."""
    plans = {"half": {"rate_overrides": {"gpt-4o": "input_tokens * 0.0005"}}, "double": {"spend_caps": []}}
    await manager.publish_pricing({**DOCUMENT, "plans": plans})
    await manager.add_credits("u1", 100)
    await manager.set_user_plan("u1", "half")
    await manager.reserve("u1", UsageMetrics(model="gpt-4o", input_tokens=20_000), lease_id="run")
    await manager.set_user_plan("u1", "double")
    async with manager.meter("u1", USAGE, parent="run") as call:
        call.record(USAGE)
    assert isinstance(call.result, SettleResult)
    assert call.result.amount == Decimal("0.5")
    assert (await manager.deduct("u1", USAGE)).amount == 1


async def test_a_payer_may_name_a_parent(manager: AsyncCreditManager) -> None:
    """A metered function is paid out of the run that its Payer names, and is refused once that one is closed."""
    await manager.add_credits("u1", 10)
    await manager.reserve("u1", 5, lease_id="run")

    @manager.metered(account=Payer("u1", parent="run"), estimate=2, usage_of=lambda usage: usage)
    async def ask() -> UsageMetrics:
        return USAGE

    await ask()
    (lease,) = await manager.list_leases("u1")
    assert (lease.lease_id, lease.amount) == ("run", 4)
    await manager.release("u1", "run")

    @manager.metered(account=Payer("u1", parent="run"), estimate=2, lease_id=lambda: "job", when_charged="run")
    async def never() -> None:
        raise AssertionError("it ran, and nobody pays")

    for work in (ask, never):
        with pytest.raises(LeaseClosedError) as refused:
            await work()
        assert refused.value.lease_id == "run"
    with paid_by(Payer("u1", parent="run")):
        pass  # what metered clients take, too


@pytest.fixture
def proved(tmp_path: Path) -> Iterator[CreditManager]:
    """A manager with a ledger."""
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with CreditManager.from_url("memory://", ledger_url=ledger_url, low_balance_thresholds=[1]) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


@pytest.mark.parametrize("with_ledger", [False, True])
def test_explained(proved: CreditManager, with_ledger: bool) -> None:
    """A charge says which run it was inside of, and a run what was taken inside of it."""
    proved.add_credits("u1", 100)
    proved.reserve("u1", 50, lease_id="run")
    proved.reserve("u1", 5, lease_id="call", parent="run")
    proved.reserve("u1", 10, lease_id="open", parent="run")
    proved.extend("u1", "run", 10)
    charged = proved.settle("u1", "call", 7)
    ended = proved.settle("u1", "run", 3)
    if with_ledger:
        proved.wait_for_ledger()
    why = proved.explain(charged.transaction_id)
    assert why.lease is not None
    assert (why.lease.parent, why.lease.held, why.lease.charged, why.lease.returned) == ("run", 5, 7, 0)
    assert "inside lease run" in str(why)
    why = proved.explain(ended.transaction_id)
    assert why.lease is not None
    assert (why.lease.parent, why.lease.held, why.lease.inside) == (None, 60, 17)
    assert (why.lease.charged, why.lease.returned, why.lease.state) == (3, 40, "settled")
    assert "17 of them for leases inside it" in str(why)
    balance = proved.explain_balance("u1")
    assert (balance.adds_up, [hold.lease_id for hold in balance.leases]) == (True, ["open"])


async def test_told(manager: AsyncCreditManager) -> None:
    """Events name the parent: of what was opened inside, and of a refusal, where its hold was too small."""
    told: list[tuple[str, str | None]] = []
    manager.on("*", lambda event: told.append((event.type, getattr(event.data, "parent", "none"))))
    await manager.add_credits("u1", 10, type="bonus")
    await manager.reserve("u1", 5, lease_id="run")
    await manager.reserve("u1", 1, parent="run")
    for parent in ("run", None):
        with pytest.raises(InsufficientCreditsError):
            await manager.reserve("u1", 9, parent=parent)
    await asyncio.sleep(0)
    failed = [parent for kind, parent in told if kind == "credits.deduct_failed"]
    assert [parent for kind, parent in told if kind == "credits.reserved"] == [None, "run"]
    assert failed == ["run", None]
