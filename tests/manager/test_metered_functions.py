"""Functions that are metered by a decorator, for event loops and for threads."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, Payer, UsageMetrics, current_meter
from ducto_redis.errors import (
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    LeaseClosedError,
    StoreError,
)
from tests.manager.clock import Clock


def rendered(seconds: int) -> UsageMetrics:
    """Costs 0.4 a second."""
    return UsageMetrics(model="render", measures={"gpu_seconds": seconds})


async def test_what_is_recorded_is_charged(manager: AsyncCreditManager) -> None:
    """Account and estimate are functions of the arguments; what the function records is charged."""
    await manager.add_credits("u1", 10)

    @manager.metered(account=lambda user, seconds: user, estimate=lambda user, seconds: rendered(seconds))
    async def render(user: str, seconds: int) -> str:
        """Render something."""
        assert await manager.get_available("u1") == 10 - Decimal("0.4") * seconds
        current_meter().record(rendered(2))
        return f"{seconds} seconds for {user}"

    assert await render("u1", seconds=5) == "5 seconds for u1"
    assert await manager.get_available("u1") == Decimal("9.2")
    assert inspect.iscoroutinefunction(render)
    assert (render.__name__, render.__doc__) == ("render", "Render something.")


def test_the_same_for_threads(blocking: CreditManager) -> None:
    """A plain function is metered by a CreditManager; values serve as well as functions of the arguments."""
    blocking.add_credits("u1", 10)

    @blocking.metered(account="u1", estimate=5, usage_of=rendered)
    def render(seconds: int) -> int:
        assert blocking.get_available("u1") == 5
        current_meter().record(rendered(1))
        return seconds

    assert render(2) == 2
    assert blocking.get_available("u1") == 10 - 3 * Decimal("0.4")


async def test_a_payer_says_more(manager: AsyncCreditManager) -> None:
    """A Payer names the member who spends, and what the work is called."""
    await manager.create_team("team", owner="ann")
    await manager.add_credits("team", 10)

    @manager.metered(account=lambda who: Payer("team", member=who, operation_type="video"), estimate=5)
    async def render(who: str) -> None:
        (lease,) = await manager.list_leases("team")
        assert lease.operation_type == "video"
        current_meter().record(rendered(5))

    await render("ann")
    team = await manager.get_team("team")
    assert [(member.user, member.spent) for member in team.members] == [("ann", 2)]


async def test_who_cannot_pay_does_not_run(manager: AsyncCreditManager) -> None:
    """The function is not called where the estimate can't be held."""

    @manager.metered(account="poor", estimate=5)
    async def work() -> None:
        raise AssertionError("it ran")

    with pytest.raises(InsufficientCreditsError):
        await work()


async def test_each_call_has_its_own_meter(manager: AsyncCreditManager) -> None:
    """Calls that run at the same time, and calls inside of calls, record each for its own account."""
    for account in ("u1", "u2", "u3"):
        await manager.add_credits(account, 10)

    @manager.metered(account=lambda user, seconds: user, estimate=5)
    async def work(user: str, seconds: int) -> None:
        await asyncio.sleep(0)
        if user == "u2":
            await work("u3", 7)
        current_meter().record(rendered(seconds))

    await asyncio.gather(work("u1", 1), work("u2", 2))
    balances = [await manager.get_available(account) for account in ("u1", "u2", "u3")]
    assert balances == [Decimal("9.6"), Decimal("9.2"), Decimal("7.2")]
    with pytest.raises(RuntimeError, match=r"manager\.metered"):
        current_meter()


@pytest.mark.parametrize(("on_error", "left"), [("charge", "9.6"), ("release", "10")])
async def test_after_an_exception(manager: AsyncCreditManager, on_error: Any, left: str) -> None:
    """A call that raises is charged what it recorded, or nothing, as it was told."""
    await manager.add_credits("u1", 10)

    @manager.metered(account="u1", estimate=5, on_error=on_error)
    async def work() -> None:
        current_meter().record(rendered(1))
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await work()
    balance = await manager.get_balance("u1")
    assert (balance.available, balance.held) == (Decimal(left), 0)


def test_usage_without_a_price_is_charged_its_hold(blocking: CreditManager) -> None:
    """The work is done: that its usage has no price takes nothing from its caller, and it is not free."""
    blocking.add_credits("u1", 10)

    @blocking.metered(account="u1", estimate=5)
    def work() -> str:
        current_meter().record(UsageMetrics(model="unknown", output_tokens=1))
        return "done"

    assert work() == "done"
    assert blocking.get_available("u1") == 5


class Job:
    """A job that counts its runs; it fails in those that it is told to."""

    def __init__(self, manager: CreditManager, **options: Any) -> None:
        self.runs = 0
        self.fails: set[int] = set()
        self.run = manager.metered(
            account="u1", estimate=5, lease_id=lambda seconds: f"job-{seconds}", usage_of=rendered, **options
        )(self._run)

    def _run(self, seconds: int) -> int:
        self.runs += 1
        if self.runs in self.fails:
            raise RuntimeError("failed")
        return seconds


def test_a_job_is_charged_once(blocking: CreditManager) -> None:
    """A job that was charged does not run again; another job does."""
    blocking.add_credits("u1", 10)
    job = Job(blocking)
    job.run(1)
    with pytest.raises(LeaseClosedError) as caught:
        job.run(1)
    assert caught.value.how == "settled"
    job.run(2)
    assert job.runs == 2
    assert blocking.get_available("u1") == 10 - 3 * Decimal("0.4")


def test_a_job_may_run_again_without_a_charge(blocking: CreditManager) -> None:
    """For a queue that lost the result, a job runs again, and is not charged again."""
    blocking.add_credits("u1", 10)
    job = Job(blocking, when_charged="run")
    assert [job.run(1), job.run(1)] == [1, 1]
    assert job.runs == 2
    balance = blocking.get_balance("u1")
    assert (balance.available, balance.held) == (Decimal("9.6"), 0)


def test_a_job_that_failed_is_begun_again(blocking: CreditManager) -> None:
    """A job whose runs failed and were released is held and charged again, once."""
    blocking.add_credits("u1", 10)
    job = Job(blocking, on_error="release")
    job.fails = {1, 2}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="failed"):
            job.run(1)
    assert blocking.get_available("u1") == 10
    job.run(1)
    with pytest.raises(LeaseClosedError):
        job.run(1)
    assert blocking.get_available("u1") == Decimal("9.6")


async def test_a_job_that_was_killed_is_begun_again() -> None:
    """A job whose lease expired is held again, and charged once, even if the run that was given up comes to its end."""
    clock = Clock()
    async with AsyncCreditManager(clock.store) as manager:
        await manager.add_credits("u1", 10)
        await manager.reserve("u1", 5, lease_id="job-1", ttl=120.0)
        clock.move(seconds=121)

        @manager.metered(account="u1", estimate=5, lease_id=lambda: "job-1")
        async def job() -> None:
            assert (await manager.get_balance("u1")).held == 5
            current_meter().record(UsageMetrics(fixed_job="daily_report"))

        await manager.publish_pricing({"version": 1, "fixed": {"daily_report": 3}})
        await job()
        balance = await manager.get_balance("u1")
        assert (balance.available, balance.held) == (7, 0)
        with pytest.raises(LeaseClosedError):
            await job()
        with pytest.raises(IdempotencyConflictError):
            await manager.settle("u1", "job-1", 4)
        assert await manager.get_available("u1") == 7


def run_twice_at_once(manager: CreditManager, *, outer: int, inner: int | None) -> None:
    """Run a job while another run of it is under way: each renders so many seconds, or fails."""
    runs = 0

    @manager.metered(account="u1", estimate=5, lease_id=lambda: "job", on_error="release")
    def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            with suppress(ConnectionError):
                job()
            current_meter().record(rendered(outer))
        elif inner is None:
            raise ConnectionError("failed")
        else:
            current_meter().record(rendered(inner))

    job()


def test_two_runs_at_once(blocking: CreditManager) -> None:
    """Two runs of a job at the same time share its lease, and are charged once: whoever ends first."""
    blocking.add_credits("u1", 10)
    run_twice_at_once(blocking, outer=3, inner=2)
    balance = blocking.get_balance("u1")
    assert (balance.balance, balance.held) == (10 - Decimal("0.8"), 0)


def test_two_runs_at_once_of_which_one_fails(blocking: CreditManager) -> None:
    """The run that fails releases the lease of both; the one that succeeds is charged all the same."""
    blocking.add_credits("u1", 10)
    run_twice_at_once(blocking, outer=3, inner=None)
    blocking.close()
    with CreditManager(blocking.store) as manager:
        balance = manager.get_balance("u1")
    assert (balance.balance, balance.held) == (10 - Decimal("1.2"), 0)


async def test_what_cannot_be_metered(manager: AsyncCreditManager, blocking: CreditManager) -> None:
    """Functions of the other kind, generators and settings that can't be are told at once."""

    async def coroutine() -> None: ...

    def plain() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> Any:
        yield 1

    for wrong, why in ((plain, "CreditManager"), (generator, "generator"), (agenerator, "generator")):
        with pytest.raises(ConfigError, match=why):
            manager.metered(account="u1", estimate=1)(wrong)  # type: ignore[arg-type]
    for other, why in ((coroutine, "AsyncCreditManager"), (generator, "generator"), (agenerator, "generator")):
        with pytest.raises(ConfigError, match=why):
            blocking.metered(account="u1", estimate=1)(other)
    settings: list[Any] = [{"lease_id": "job"}, {"on_error": "ignore"}, {"when_charged": "skip"}, {"ttl": 0}]
    for setting in settings:
        with pytest.raises((ConfigError, ValueError)):
            blocking.metered(account="u1", estimate=1, **setting)


async def test_it_takes_no_records_after_its_end(manager: AsyncCreditManager) -> None:
    """What a task records that outlives the function is refused rather than lost."""
    await manager.add_credits("u1", 10)
    meters = []

    @manager.metered(account="u1", estimate=5)
    async def work() -> None:
        meters.append(current_meter())

    await work()
    with pytest.raises(StoreError, match="closed"):
        meters[0].record(rendered(1))
