"""Plans: allowances, periods, features, as a user of the manager sees them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.errors import (
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidIdError,
    PlanNotFoundError,
    PricingNotLoadedError,
)
from ducto_redis.store import MemoryStore
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01"},
    "fixed": {"report": 10},
    "plans": {
        "free": {
            "name": "Free",
            "free_allowance": 100,
            "features": {"chat": True, "seats": 0, "label": "", "off": False, "nothing": None},
        },
        "pro": {"name": "Pro", "free_allowance": 500, "features": {"context": 200000}},
        "rolls": {"free_allowance": 100, "rollover": 150},
        "daily": {"free_allowance": 10, "period": "day", "time_zone": "Europe/Berlin"},
        "anchored": {"free_allowance": 10, "anchor": "assignment"},
        "empty": {"name": "Empty"},
    },
}
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


def left(credits: CreditManager, account: str = "u1") -> Decimal:
    return credits.check_allowance(account).remaining


def test_a_plan_is_assigned_and_shown(credits: CreditManager) -> None:
    """The plan that was set is the plan that is there, with its name, features and time."""
    assert credits.get_user_plan("u1") is None
    changed = credits.set_user_plan("u1", "free")
    assert (changed.account, changed.replayed) == ("u1", False)
    plan = credits.get_user_plan("u1")
    assert plan is not None
    assert (plan.plan, plan.name, plan.time_zone, plan.assigned_at) == ("free", "Free", "UTC", START)
    assert plan.features["chat"] is True


def test_allowance_is_spent_before_the_balance(credits: CreditManager) -> None:
    """A charge takes the allowance first, and the balance only for what is beyond it."""
    credits.add_credits("u1", 50)
    credits.set_user_plan("u1", "free")
    first = credits.deduct("u1", 30)
    assert (first.allowance_consumed, first.balance_after) == (30, 50)
    second = credits.deduct("u1", 90)
    assert (second.amount, second.allowance_consumed, second.balance_after) == (90, 70, 30)
    status = credits.check_allowance("u1")
    assert (status.plan, status.limit, status.used, status.held, status.remaining) == ("free", 100, 100, 0, 0)
    assert (status.period_start, status.period_end) == (
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
    )


def test_allowance_alone_pays(credits: CreditManager) -> None:
    """An account without a single credit spends its allowance, and no more."""
    credits.set_user_plan("u1", "free")
    assert credits.deduct("u1", 100).balance_after == 0
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u1", "0.000001")
    assert left(credits) == 0


def test_skip_allowance_leaves_it_alone(credits: CreditManager) -> None:
    """With `skip_allowance` the balance pays all of it, or the charge is refused."""
    credits.add_credits("u1", 15)
    credits.set_user_plan("u1", "free")
    charged = credits.deduct_fixed("u1", "report", skip_allowance=True)
    assert (charged.allowance_consumed, charged.balance_after) == (0, 5)
    with pytest.raises(InsufficientCreditsError):
        credits.deduct_fixed("u1", "report", skip_allowance=True)
    assert left(credits) == 100


def test_a_lease_rests_on_allowance(credits: CreditManager) -> None:
    """What a lease holds of the allowance nobody else gets; settling for less gives the rest back."""
    credits.add_credits("u1", 20)
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 110)
    assert (lease.amount, lease.allowance_consumed, lease.available) == (110, 100, 10)
    assert (left(credits), credits.check_allowance("u1").held) == (0, 100)
    with pytest.raises(InsufficientCreditsError):
        credits.reserve("u1", 11)
    settled = credits.settle("u1", lease.lease_id, 40)
    assert (settled.allowance_consumed, settled.balance_after, settled.available) == (40, 20, 20)
    assert left(credits) == 60


def test_a_released_lease_gives_the_allowance_back(credits: CreditManager) -> None:
    """Work that cost nothing leaves the allowance as it was."""
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 80)
    credits.release("u1", lease.lease_id)
    assert left(credits) == 100


def test_a_settle_may_leave_the_allowance_alone(credits: CreditManager) -> None:
    """With `skip_allowance` a settle pays from the balance, and the hold on the allowance is given back."""
    credits.add_credits("u1", 50)
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 80)
    settled = credits.settle("u1", lease.lease_id, 30, skip_allowance=True)
    assert (settled.amount, settled.allowance_consumed, settled.balance_after) == (30, 0, 20)
    assert left(credits) == 100


def test_an_extension_rests_on_allowance_too(credits: CreditManager) -> None:
    """A lease that grows takes what is left of the allowance first."""
    credits.add_credits("u1", 50)
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 80)
    credits.extend("u1", lease.lease_id, 30)
    assert (left(credits), credits.get_balance("u1").held) == (0, 10)
    assert credits.settle("u1", lease.lease_id, 105).allowance_consumed == 100


def test_work_over_its_hold_takes_what_is_left_of_the_allowance(credits: CreditManager) -> None:
    """A settle beyond its hold takes allowance that nobody holds before the balance, and the rest is a shortfall."""
    credits.add_credits("u1", 5)
    credits.set_user_plan("u1", "free")
    lease, other = credits.reserve("u1", 20), credits.reserve("u1", 30)
    settled = credits.settle("u1", lease.lease_id, 90)
    assert (settled.amount, settled.allowance_consumed, settled.shortfall) == (75, 70, 15)
    assert credits.settle("u1", other.lease_id, 30).allowance_consumed == 30


def test_an_expired_lease_gives_the_allowance_back(credits: CreditManager, clock: Clock) -> None:
    """A lease whose time is over holds nothing of the allowance; settled late, it takes what is left then."""
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 80, ttl=60)
    clock.move(seconds=61)
    assert left(credits) == 100
    credits.deduct("u1", 90)
    settled = credits.settle("u1", lease.lease_id, 30)
    assert (settled.late, settled.amount, settled.allowance_consumed, settled.shortfall) == (True, 10, 10, 20)


def test_unused_allowance_of_an_older_period_does_not_return(credits: CreditManager, clock: Clock) -> None:
    """A lease over the end of a period pays from the old one, and what it does not use is gone with it."""
    credits.set_user_plan("u1", "free")
    lease = credits.reserve("u1", 80, ttl=30 * 24 * 3600)
    clock.set(datetime(2026, 4, 1, 0, 0, 1, tzinfo=UTC))
    assert left(credits) == 100
    settled = credits.settle("u1", lease.lease_id, 30)
    assert (settled.allowance_consumed, left(credits)) == (30, 100)


def test_a_new_period_brings_a_new_allowance(credits: CreditManager, clock: Clock) -> None:
    """At the first instant of the month the allowance is whole again, and not an instant before."""
    credits.set_user_plan("u1", "free")
    credits.deduct("u1", 100)
    clock.set(datetime(2026, 4, 1, tzinfo=UTC) - timedelta(milliseconds=1))
    assert left(credits) == 0
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u1", 1)
    clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    assert left(credits) == 100
    assert credits.deduct("u1", 1).allowance_consumed == 1


def test_upgrade_keeps_what_was_used(credits: CreditManager) -> None:
    """A larger plan in the middle of a period gives the difference; the balance is not touched."""
    credits.add_credits("u1", 7)
    credits.set_user_plan("u1", "free")
    credits.deduct("u1", 60)
    credits.set_user_plan("u1", "pro")
    status = credits.check_allowance("u1")
    assert (status.limit, status.used, status.remaining) == (500, 60, 440)
    assert credits.get_balance("u1").balance == 7


def test_downgrade_keeps_what_was_used(credits: CreditManager) -> None:
    """A smaller plan leaves nothing where more was used already, and takes nothing from the balance."""
    credits.add_credits("u1", 7)
    credits.set_user_plan("u1", "pro")
    credits.deduct("u1", 300)
    credits.set_user_plan("u1", "free")
    assert (left(credits), credits.check_allowance("u1").used) == (0, 300)
    assert credits.get_balance("u1").balance == 7
    credits.set_user_plan("u1", "pro")
    assert left(credits) == 200, "there and back again creates nothing"


def test_removing_a_plan_keeps_the_balance(credits: CreditManager) -> None:
    """Without a plan there is no allowance; paid credits stay."""
    credits.add_credits("u1", 7)
    credits.set_user_plan("u1", "free")
    assert not credits.unset_user_plan("u1").replayed
    assert credits.get_user_plan("u1") is None
    assert (left(credits), credits.get_balance("u1").available) == (0, 7)
    assert credits.check_allowance("u1").plan is None
    assert credits.unset_user_plan("u1").replayed


def test_the_same_plan_again_changes_nothing(credits: CreditManager) -> None:
    """Assigning the plan that is there does not refill the allowance."""
    credits.set_user_plan("u1", "free")
    credits.deduct("u1", 30)
    seq = credits.get_balance("u1").seq
    assert credits.set_user_plan("u1", "free").replayed
    assert (left(credits), credits.get_balance("u1").seq) == (70, seq)


def test_a_lease_outlives_its_plan(credits: CreditManager) -> None:
    """What a lease holds of the allowance stays its own when the plan changes under it."""
    credits.set_user_plan("u1", "pro")
    lease = credits.reserve("u1", 400)
    credits.set_user_plan("u1", "free")
    assert left(credits) == 0
    settled = credits.settle("u1", lease.lease_id, 350)
    assert (settled.amount, settled.allowance_consumed, settled.shortfall) == (350, 350, 0)


def test_rollover_is_limited(credits: CreditManager, clock: Clock) -> None:
    """Unused allowance moves into the next period up to the plan's limit, and lasts no longer than that."""
    credits.set_user_plan("u1", "rolls")
    credits.deduct("u1", 40)
    clock.set(datetime(2026, 4, 15, tzinfo=UTC))
    assert credits.deduct("u1", 1).allowance_consumed == 1
    status = credits.check_allowance("u1")
    assert (status.rolled_over, status.limit, status.remaining) == (60, 160, 159)
    clock.set(datetime(2026, 5, 15, tzinfo=UTC))
    status = credits.check_allowance("u1")
    assert (status.rolled_over, status.remaining) == (150, 250), "159 were left, 150 may roll"


def test_rollover_over_months_without_a_request(credits: CreditManager, clock: Clock) -> None:
    """Periods that nobody touched roll too: the same as if somebody had looked each month."""
    credits.set_user_plan("u1", "rolls")
    credits.deduct("u1", 90)
    clock.set(datetime(2026, 5, 15, tzinfo=UTC))
    assert left(credits) == 210, "10 of March, 100 of April, 100 of May"
    clock.set(datetime(2026, 12, 15, tzinfo=UTC))
    assert left(credits) == 250


def test_days_follow_the_plans_time_zone(credits: CreditManager, clock: Clock) -> None:
    """A daily allowance of a plan in Berlin begins at midnight there, on 23-hour days too."""
    credits.set_user_plan("u1", "daily")
    clock.set(datetime(2026, 3, 28, 23, 30, tzinfo=UTC))  # 00:30 on the day when the clocks go forward
    status = credits.check_allowance("u1")
    assert (status.period_start, status.period_end) == (
        datetime(2026, 3, 29, tzinfo=BERLIN).astimezone(UTC),
        datetime(2026, 3, 30, tzinfo=BERLIN).astimezone(UTC),
    )
    assert status.period_start is not None
    assert status.period_end is not None
    assert status.period_end - status.period_start == timedelta(hours=23)
    credits.deduct("u1", 10)
    clock.set(datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC))
    assert left(credits) == 0
    clock.set(datetime(2026, 3, 29, 22, tzinfo=UTC))
    assert left(credits) == 10


def test_an_account_has_a_time_zone_of_its_own(credits: CreditManager, clock: Clock) -> None:
    """The zone that is given with the plan wins over the plan's."""
    credits.set_user_plan("u1", "daily", time_zone="America/New_York")
    plan = credits.get_user_plan("u1")
    assert plan is not None
    assert plan.time_zone == "America/New_York"
    clock.set(datetime(2026, 11, 1, 12, tzinfo=UTC))  # 25 hours: the clocks go back
    status = credits.check_allowance("u1")
    assert (status.period_start, status.period_end) == (
        datetime(2026, 11, 1, 4, tzinfo=UTC),
        datetime(2026, 11, 2, 5, tzinfo=UTC),
    )


def test_anchored_periods_begin_with_the_assignment(credits: CreditManager, clock: Clock) -> None:
    """A plan of January 31st renews on the last day of February, and on the 31st of March."""
    clock.set(datetime(2026, 1, 31, 15, tzinfo=UTC))
    credits.set_user_plan("u1", "anchored")
    ends = []
    for _ in range(3):
        status = credits.check_allowance("u1")
        assert status.period_end is not None
        ends.append(status.period_end)
        clock.set(status.period_end)
    assert ends == [datetime(2026, month, day, tzinfo=UTC) for month, day in ((2, 28), (3, 31), (4, 30))]


def test_a_clock_that_goes_back_refills_nothing(credits: CreditManager, clock: Clock) -> None:
    """Periods only move forward: a clock set back gives no second allowance."""
    clock.set(datetime(2026, 4, 1, 1, tzinfo=UTC))
    credits.set_user_plan("u1", "free")
    credits.deduct("u1", 100)
    clock.set(datetime(2026, 3, 31, 23, tzinfo=UTC))
    assert left(credits) == 0
    clock.set(datetime(2026, 4, 1, 2, tzinfo=UTC))
    assert left(credits) == 0


@pytest.mark.parametrize(
    ("feature", "present", "value"),
    [
        ("chat", True, True),
        ("seats", True, 0),
        ("label", True, ""),
        ("off", False, False),
        ("nothing", False, None),
        ("missing", False, None),
    ],
)
def test_features(feature: str, present: bool, value: object, credits: CreditManager) -> None:
    """0 and "" are features that the plan has; False, None and what it does not name are not."""
    credits.set_user_plan("u1", "free")
    status = credits.check_feature("u1", feature)
    assert (bool(status), status.present, status.value, status.plan) == (present, present, value, "free")


def test_no_plan_has_no_feature(credits: CreditManager) -> None:
    """An account without a plan has no feature, and that is no error."""
    status = credits.check_feature("u1", "chat")
    assert not status
    assert (status.plan, status.value) == (None, None)


def test_an_unknown_plan_is_named(credits: CreditManager) -> None:
    """The error says which plan there is not, and which there are; nothing is changed."""
    with pytest.raises(PlanNotFoundError, match=r"'gold'.*'pro'") as refused:
        credits.set_user_plan("u1", "gold")
    assert (refused.value.plan, refused.value.plans) == ("gold", tuple(sorted(DOCUMENT["plans"])))  # type: ignore[arg-type]
    assert credits.get_balance("u1").seq == 0


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "+01:00"])
def test_an_unknown_time_zone_is_refused(zone: str, credits: CreditManager) -> None:
    """A zone that is none is an error that names it."""
    with pytest.raises(ConfigError, match="time zone"):
        credits.set_user_plan("u1", "free", time_zone=zone)


def test_a_plan_that_is_no_name_is_refused(credits: CreditManager) -> None:
    """A plan is named by text."""
    with pytest.raises(InvalidIdError):
        credits.set_user_plan("u1", "")
    with pytest.raises(InvalidIdError):
        credits.check_feature("u1", "")


def test_without_a_document_there_are_no_plans() -> None:
    """Before a document is published nobody has a plan, and none can be assigned."""
    with CreditManager(MemoryStore()) as credits:
        assert credits.get_user_plan("u1") is None
        assert credits.check_allowance("u1").remaining == 0
        with pytest.raises(PricingNotLoadedError):
            credits.set_user_plan("u1", "free")


def test_a_key_assigns_once(credits: CreditManager) -> None:
    """The same key gives the first answer again, also after the plan was changed since; another plan conflicts."""
    first = credits.set_user_plan("u1", "free", idempotency_key="k")
    credits.set_user_plan("u1", "pro")
    again = credits.set_user_plan("u1", "free", idempotency_key="k")
    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)
    plan = credits.get_user_plan("u1")
    assert plan is not None
    assert plan.plan == "pro"
    with pytest.raises(IdempotencyConflictError):
        credits.set_user_plan("u1", "pro", idempotency_key="k")


def test_a_plan_that_the_document_lost_gives_nothing(credits: CreditManager) -> None:
    """An account keeps the name of a plan that a new document lacks, without allowance and features."""
    credits.add_credits("u1", 5)
    credits.set_user_plan("u1", "free")
    credits.publish_pricing({**DOCUMENT, "plans": {"pro": {"free_allowance": 1}}})
    credits.deduct("u1", 1)
    plan = credits.get_user_plan("u1")
    assert plan is not None
    assert (plan.plan, plan.name, dict(plan.features)) == ("free", "free", {})
    assert (left(credits), credits.get_balance("u1").balance) == (0, 4)


def test_a_new_document_changes_the_allowance(credits: CreditManager) -> None:
    """Accounts of a plan get its new terms with the next call; what was used stays used."""
    credits.set_user_plan("u1", "free")
    credits.deduct("u1", 30)
    credits.publish_pricing({**DOCUMENT, "plans": {"free": {"free_allowance": 40}}})
    assert left(credits) == 10
    assert credits.deduct("u1", 10).allowance_consumed == 10


def test_plans_of_teams(credits: CreditManager) -> None:
    """A team has a plan as a user has, and its members spend its allowance."""
    credits.create_team("acme", owner="ana")
    credits.set_user_plan("acme", "free")
    assert credits.deduct_team("acme", "ana", 30).allowance_consumed == 30
    assert left(credits, "acme") == 70


async def test_another_process_learns_of_the_plan(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """A process that has charged the account without a plan uses the plan with the next call."""
    await manager.publish_pricing(DOCUMENT)
    await other.load_pricing()
    await other.add_credits("u1", 10)
    assert (await other.deduct("u1", 1)).allowance_consumed == 0
    await manager.set_user_plan("u1", "free")
    assert (await other.deduct("u1", 5)).allowance_consumed == 5
    await manager.unset_user_plan("u1")
    assert (await other.deduct("u1", 5)).allowance_consumed == 0


async def test_a_plan_that_was_just_published_can_be_assigned(
    manager: AsyncCreditManager, other: AsyncCreditManager
) -> None:
    """A process that asked for the document a moment ago knows the plan that another one publishes now."""
    await other.load_pricing()
    await manager.publish_pricing(DOCUMENT)
    await other.set_user_plan("u1", "free")
    assert (await manager.check_allowance("u1")).remaining == 100
