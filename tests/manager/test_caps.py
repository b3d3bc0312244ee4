"""Spend caps, as a user of the manager sees them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import (
    CapNotFoundError,
    CapReachedError,
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
)
from ducto_redis.results import CapStatus
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01", "small": "output_tokens * 0.001", "_default": "output_tokens"},
    "plans": {
        "free": {"free_allowance": 100},
        "capped": {
            "time_zone": "Europe/Berlin",
            "spend_caps": [
                {"window": "day", "limit": 50},
                {"window": "month", "limit": 20, "scope": "member"},
                {"window": "day", "limit": 5, "model": "gpt-4o", "action": "warn"},
            ],
        },
        "pair": {
            "spend_caps": [
                {"window": "day", "limit": 20, "scope": "member"},
                {"window": "day", "limit": 5, "model": "gpt-4o"},
            ]
        },
        "same": {
            "spend_caps": [
                {"window": "day", "limit": 50},
                {"window": "day", "limit": 20, "scope": "member"},
                {"window": "day", "limit": 5, "model": "gpt-4o"},
            ]
        },
    },
}
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 1000)
        yield manager


def only(caps: tuple[CapStatus, ...]) -> CapStatus:
    (cap,) = caps
    return cap


def test_a_cap_refuses_what_would_pass_it(credits: CreditManager) -> None:
    """Exactly the limit may be spent; a micro-credit more is refused, and nothing changes by it."""
    cap = credits.set_spend_cap("u1", 10, "day")
    assert (cap.scope, cap.source, cap.window, cap.action, cap.limit, cap.used) == (
        "account",
        "own",
        "day",
        "deny",
        10,
        0,
    )
    credits.deduct("u1", 4)
    before = credits.describe("u1")
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", "6.000001")
    assert credits.describe("u1") == before
    error = refused.value
    assert (error.cap_id, error.scope, error.window) == (cap.cap_id, "account", "day")
    assert (error.limit, error.used, error.held, error.needed) == (10, 4, 0, Decimal("6.000001"))
    assert error.window_end == datetime(2026, 3, 11, tzinfo=UTC)
    assert credits.deduct("u1", 6).balance_after == 990


def test_what_is_reserved_counts_until_it_is_settled(credits: CreditManager) -> None:
    """Holds count towards the limit; settling counts what it cost, releasing nothing."""
    credits.set_spend_cap("u1", 10, "day")
    lease = credits.reserve("u1", 8)
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.used, cap.held, cap.remaining) == (0, 8, 2)
    with pytest.raises(CapReachedError) as refused:
        credits.reserve("u1", 3)
    assert (refused.value.used, refused.value.held) == (0, 8)
    credits.settle("u1", lease.lease_id, 1)
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.used, cap.held, cap.remaining) == (1, 0, 9)
    other = credits.reserve("u1", 9)
    credits.release("u1", other.lease_id)
    assert only(credits.check_spend_cap("u1")).remaining == 9


def test_a_settle_over_its_hold_is_charged(credits: CreditManager) -> None:
    """Work that is done is charged whatever the cap; what comes after is refused."""
    credits.set_spend_cap("u1", 10, "day")
    lease = credits.reserve("u1", 5)
    assert credits.settle("u1", lease.lease_id, 25).amount == 25
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.used, cap.remaining) == (25, 0)
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


def test_an_extension_is_capped(credits: CreditManager) -> None:
    """A lease cannot grow past the limit."""
    credits.set_spend_cap("u1", 10, "day")
    lease = credits.reserve("u1", 8)
    with pytest.raises(CapReachedError):
        credits.extend("u1", lease.lease_id, 3)
    credits.extend("u1", lease.lease_id, 2)
    assert only(credits.check_spend_cap("u1")).held == 10


def test_an_expired_lease_holds_nothing(credits: CreditManager, clock: Clock) -> None:
    """Once its time is over a lease gives its place in the cap free; a late settle counts all the same."""
    credits.set_spend_cap("u1", 10, "month")
    lease = credits.reserve("u1", 10, ttl=60)
    clock.move(seconds=61)
    assert only(credits.check_spend_cap("u1")).held == 0
    credits.deduct("u1", 7)
    credits.settle("u1", lease.lease_id, 2)
    assert only(credits.check_spend_cap("u1")).used == 9


def test_allowance_counts_too(credits: CreditManager) -> None:
    """A cap limits spending, whoever pays for it."""
    credits.set_user_plan("u1", "free")
    credits.set_spend_cap("u1", 10, "day")
    assert credits.deduct("u1", 10).allowance_consumed == 10
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


@pytest.mark.parametrize(
    ("window", "end"),
    [
        ("minute", datetime(2026, 3, 10, 12, 1, tzinfo=UTC)),
        ("hour", datetime(2026, 3, 10, 13, tzinfo=UTC)),
        ("day", datetime(2026, 3, 11, tzinfo=UTC)),
        ("week", datetime(2026, 3, 16, tzinfo=UTC)),
        ("month", datetime(2026, 4, 1, tzinfo=UTC)),
    ],
)
def test_calendar_windows(window: str, end: datetime, credits: CreditManager, clock: Clock) -> None:
    """A window is full until its last instant, and empty from the next one on."""
    credits.set_spend_cap("u1", 10, window)  # type: ignore[arg-type]
    credits.deduct("u1", 10)
    clock.set(end - timedelta(milliseconds=1))
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 1)
    assert refused.value.window_end == end
    clock.set(end)
    assert only(credits.check_spend_cap("u1")).remaining == 10
    credits.deduct("u1", 10)
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


def test_a_total_never_ends(credits: CreditManager, clock: Clock) -> None:
    """A total counts for ever, and says no end."""
    cap = credits.set_spend_cap("u1", 10, "total")
    assert (cap.window_start, cap.window_end) == (None, None)
    credits.deduct("u1", 10)
    clock.move(days=4000)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 1)
    assert refused.value.window_end is None


@pytest.mark.parametrize(
    ("window", "length"),
    [
        ("minute", timedelta(minutes=1)),
        ("hour", timedelta(hours=1)),
        ("day", timedelta(days=1)),
        ("week", timedelta(days=7)),
        ("month", timedelta(days=30)),
    ],
)
def test_rolling_windows(window: str, length: timedelta, credits: CreditManager, clock: Clock) -> None:
    """What was spent counts for the whole length of a rolling window, and at most a sixtieth longer."""
    credits.set_spend_cap("u1", 10, window, rolling=True)  # type: ignore[arg-type]
    credits.deduct("u1", 6)
    clock.move(seconds=length.total_seconds() / 2)
    credits.deduct("u1", 4)
    clock.move(seconds=length.total_seconds() / 2)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 1)
    assert refused.value.window_end is None
    clock.move(seconds=length.total_seconds() / 30)
    assert only(credits.check_spend_cap("u1")).used == 4
    credits.deduct("u1", 6)
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


def test_what_is_held_counts_in_the_next_window(credits: CreditManager, clock: Clock) -> None:
    """A lease over midnight holds in the new day, and is counted in the day in which it is settled."""
    credits.set_spend_cap("u1", 10, "day")
    credits.deduct("u1", 2)
    lease = credits.reserve("u1", 8, ttl=24 * 3600)
    clock.set(datetime(2026, 3, 11, 0, 5, tzinfo=UTC))
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.used, cap.held) == (0, 8)
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 3)
    credits.settle("u1", lease.lease_id, 5)
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.used, cap.held) == (5, 0)


@pytest.mark.parametrize(("day", "hours"), [(datetime(2026, 3, 29), 23), (datetime(2026, 10, 25), 25)])
def test_days_when_the_clocks_change(day: datetime, hours: int, credits: CreditManager, clock: Clock) -> None:
    """A day in Berlin has 23 or 25 hours when the clocks change, and its cap lasts as long."""
    start = day.replace(tzinfo=BERLIN).astimezone(UTC)
    clock.set(start)
    cap = credits.set_spend_cap("u1", 10, "day", time_zone="Europe/Berlin")
    assert (cap.window_start, cap.window_end) == (start, start + timedelta(hours=hours))
    credits.deduct("u1", 10)
    clock.set(start + timedelta(hours=hours, milliseconds=-1))
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)
    clock.set(start + timedelta(hours=hours))
    credits.deduct("u1", 10)


def test_a_clock_that_goes_back_opens_no_window(credits: CreditManager, clock: Clock) -> None:
    """Windows only move forward: a clock set back over midnight gives no second day."""
    clock.set(datetime(2026, 3, 11, 0, 0, 1, tzinfo=UTC))
    credits.set_spend_cap("u1", 10, "day")
    credits.deduct("u1", 10)
    clock.set(datetime(2026, 3, 10, 23, 59, 59, tzinfo=UTC))
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


def test_several_caps_at_once(credits: CreditManager, clock: Clock) -> None:
    """All of them must let it pass; the refusal names the one that did not."""
    day = credits.set_spend_cap("u1", 10, "day")
    month = credits.set_spend_cap("u1", 15, "month")
    credits.deduct("u1", 8)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 3)
    assert (refused.value.cap_id, refused.value.window) == (day.cap_id, "day")
    clock.move(days=1)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 8)
    assert (refused.value.cap_id, refused.value.window, refused.value.used) == (month.cap_id, "month", 8)
    credits.deduct("u1", 7)
    assert {cap.window: cap.used for cap in credits.check_spend_cap("u1")} == {"day": 7, "month": 15}


def test_models_have_caps_of_their_own(credits: CreditManager) -> None:
    """A model's cap counts that model, by whichever dated name it was asked for, and no other."""
    cap = credits.set_spend_cap("u1", 5, "day", model="gpt-4o-2024-08-06")
    assert cap.scope == "model/gpt-4o"
    credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=300))
    credits.deduct("u1", UsageMetrics(model="gpt-4o-2024-11-20", output_tokens=200))
    credits.deduct("u1", UsageMetrics(model="small", output_tokens=9000))
    credits.deduct("u1", 100)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=1))
    assert (refused.value.scope, refused.value.used) == ("model/gpt-4o", 5)


def test_several_models_in_one_call(credits: CreditManager) -> None:
    """Each model's part counts towards its own cap, and all of it towards the account's."""
    credits.set_spend_cap("u1", 100, "day")
    credits.set_spend_cap("u1", 5, "day", model="gpt-4o")
    credits.set_spend_cap("u1", 5, "day", model="small")
    credits.deduct(
        "u1",
        [UsageMetrics(model="gpt-4o", output_tokens=400), UsageMetrics(model="small", output_tokens=1000)],
    )
    assert {cap.scope: cap.used for cap in credits.check_spend_cap("u1")} == {
        "account": 5,
        "model/gpt-4o": 4,
        "model/small": 1,
    }


def test_members_have_caps_of_their_own(credits: CreditManager) -> None:
    """A member's cap counts that member alone; the team's cap counts all of them."""
    credits.create_team("acme", owner="ana", initial_credits=100)
    credits.add_team_member("acme", "bob")
    credits.set_spend_cap("acme", 10, "day", member="bob")
    credits.set_spend_cap("acme", 30, "day")
    credits.deduct_team("acme", "bob", 10)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct_team("acme", "bob", 1)
    assert refused.value.scope == "member/bob"
    credits.deduct_team("acme", "ana", 20)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct_team("acme", "ana", 1)
    assert refused.value.scope == "account"


@pytest.mark.parametrize("action", ["warn", "notify"])
def test_a_warning_lets_it_pass_and_says_so_once(action: str, credits: CreditManager, clock: Clock) -> None:
    """The first charge of a window that passes the limit carries the warning, and no other."""
    cap = credits.set_spend_cap("u1", 10, "day", action=action)  # type: ignore[arg-type]
    assert credits.deduct("u1", 10).warnings == ()
    (warning,) = credits.deduct("u1", 1).warnings
    assert (warning.cap_id, warning.scope, warning.action) == (cap.cap_id, "account", action)
    assert credits.deduct("u1", 1).warnings == ()
    clock.move(days=1)
    assert len(credits.deduct("u1", 11).warnings) == 1


def test_the_same_cap_again_gets_a_new_limit(credits: CreditManager) -> None:
    """Setting the cap again keeps what it has counted; another window, kind or action is another cap."""
    first = credits.set_spend_cap("u1", 10, "day")
    credits.deduct("u1", 10)
    again = credits.set_spend_cap("u1", 12, "day")
    assert (again.cap_id, again.limit, again.used) == (first.cap_id, 12, 10)
    credits.set_spend_cap("u1", 12, "day", rolling=True)
    credits.set_spend_cap("u1", 8, "day", action="warn")
    assert {(cap.limit, cap.rolling, cap.action, cap.used) for cap in credits.check_spend_cap("u1")} == {
        (12, False, "deny", 10),
        (12, True, "deny", 0),
        (8, False, "warn", 0),
    }
    with pytest.raises(ConfigError, match="several"):
        credits.remove_spend_cap("u1", window="day")
    credits.remove_spend_cap("u1", window="day", action="warn")
    credits.remove_spend_cap("u1", window="day")


def test_the_time_zone_of_a_cap(credits: CreditManager) -> None:
    """It is the account's, else its plan's; and a cap that is there keeps its own."""
    assert credits.set_spend_cap("u1", 10, "month").time_zone == "UTC"
    credits.set_user_plan("u1", "capped")
    assert credits.set_spend_cap("u1", 10, "week").time_zone == "Europe/Berlin"
    credits.set_user_plan("u1", "capped", time_zone="Asia/Tokyo")
    assert credits.set_spend_cap("u1", 10, "hour").time_zone == "Asia/Tokyo"
    assert credits.set_spend_cap("u1", 11, "week").time_zone == "Europe/Berlin"
    assert credits.set_spend_cap("u1", 10, "total").time_zone == "UTC"


def test_a_temporary_raise(credits: CreditManager, clock: Clock) -> None:
    """Until its time the raised limit holds, then the cap's own, with all that was spent."""
    cap = credits.set_spend_cap("u1", 10, "month")
    credits.deduct("u1", 10)
    until = clock.time + timedelta(hours=1)
    raised = credits.raise_spend_cap("u1", cap, 30, until)
    assert (raised.limit, raised.raised_until, raised.remaining) == (30, until, 20)
    credits.deduct("u1", 15)
    clock.set(until - timedelta(milliseconds=1))
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", 6)
    assert refused.value.limit == 30
    clock.set(until)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("u1", "0.000001")
    assert refused.value.limit == 10
    cap = only(credits.check_spend_cap("u1"))
    assert (cap.limit, cap.used, cap.remaining, cap.raised_until) == (10, 25, 0, None)


def test_a_raise_that_is_over_is_refused(credits: CreditManager, clock: Clock) -> None:
    """A raise ends in the future, by the server's clock."""
    cap = credits.set_spend_cap("u1", 10, "month")
    for until in (clock.time, clock.time - timedelta(days=1)):
        with pytest.raises(ConfigError):
            credits.raise_spend_cap("u1", cap.cap_id, 30, until)
    with pytest.raises(ConfigError, match="datetime"):
        credits.raise_spend_cap("u1", cap.cap_id, 30, "tomorrow")  # type: ignore[arg-type]


@pytest.mark.parametrize("rolling", [False, True])
def test_clearing_forgets_what_was_spent(rolling: bool, credits: CreditManager) -> None:
    """What was spent in the window is forgotten; what is held still counts."""
    cap = credits.set_spend_cap("u1", 10, "day", rolling=rolling)
    credits.deduct("u1", 6)
    lease = credits.reserve("u1", 4)
    cleared = credits.clear_spend_cap("u1", cap.cap_id)
    assert (cleared.used, cleared.held, cleared.remaining) == (0, 4, 6)
    credits.settle("u1", lease.lease_id, 4)
    credits.deduct("u1", 6)
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)


def test_removing_a_cap(credits: CreditManager) -> None:
    """Without the cap nothing is refused; a lease that it had counted settles as any other."""
    cap = credits.set_spend_cap("u1", 10, "day")
    lease = credits.reserve("u1", 10)
    credits.remove_spend_cap("u1", cap.cap_id)
    assert credits.check_spend_cap("u1") == ()
    credits.deduct("u1", 100)
    assert credits.settle("u1", lease.lease_id, 10).shortfall == 0


def test_a_removed_cap_begins_anew(credits: CreditManager) -> None:
    """A cap that is set after its like was removed counts from nothing; an old lease lowers nothing of it."""
    credits.set_spend_cap("u1", 10, "day")
    lease = credits.reserve("u1", 10)
    credits.remove_spend_cap("u1", window="day")
    credits.set_spend_cap("u1", 10, "day")
    other = credits.reserve("u1", 10)
    credits.release("u1", lease.lease_id)
    assert only(credits.check_spend_cap("u1")).held == 10
    credits.release("u1", other.lease_id)


def test_caps_are_removed_by_what_they_were_set_with(credits: CreditManager) -> None:
    """Window and scope name a cap as well as its id."""
    credits.create_team("acme", owner="ana")
    credits.set_spend_cap("acme", 10, "day")
    credits.set_spend_cap("acme", 10, "day", rolling=True)
    credits.set_spend_cap("acme", 10, "day", member="ana")
    credits.set_spend_cap("acme", 10, "day", model="gpt-4o")
    credits.remove_spend_cap("acme", window="day", member="ana")
    credits.remove_spend_cap("acme", window="day", model="gpt-4o")
    credits.remove_spend_cap("acme", window="day", rolling=True)
    cap = only(credits.check_spend_cap("acme"))
    assert (cap.scope, cap.rolling) == ("account", False)
    with pytest.raises(CapNotFoundError, match="member/ana per day"):
        credits.remove_spend_cap("acme", window="day", member="ana")
    with pytest.raises(ConfigError):
        credits.remove_spend_cap("acme")


def test_the_caps_of_a_plan(credits: CreditManager) -> None:
    """A plan's caps hold for the account and each of its members, in the plan's time zone, and cannot be removed."""
    credits.create_team("acme", owner="ana", initial_credits=1000)
    credits.add_team_member("acme", "bob")
    credits.set_user_plan("acme", "capped")
    (warning,) = credits.deduct("acme", UsageMetrics(model="gpt-4o", output_tokens=600)).warnings
    assert warning.scope == "model/gpt-4o"
    credits.deduct_team("acme", "ana", 20)
    for member in ("ana", "bob"):
        with pytest.raises(CapReachedError) as refused:
            credits.deduct_team("acme", member, 21 if member == "bob" else 1)
        assert refused.value.scope == f"member/{member}"
    credits.deduct_team("acme", "bob", 20)
    with pytest.raises(CapReachedError) as refused:
        credits.deduct("acme", 5)
    assert (refused.value.scope, refused.value.window_end) == ("account", datetime(2026, 3, 10, 23, tzinfo=UTC))
    cap = next(cap for cap in credits.check_spend_cap("acme") if cap.scope == "account")
    assert (cap.source, cap.time_zone) == ("plan", "Europe/Berlin")
    with pytest.raises(ConfigError, match="plan"):
        credits.remove_spend_cap("acme", cap)
    credits.raise_spend_cap("acme", cap, 100, NOON + timedelta(hours=1))
    credits.deduct("acme", 5)
    credits.unset_user_plan("acme")
    credits.deduct("acme", 500)
    assert credits.check_spend_cap("acme") == ()


def test_a_plans_cap_before_anything_was_spent(credits: CreditManager) -> None:
    """The caps of a plan can be raised and cleared before anything was spent against them, by the id of any look."""
    until = NOON + timedelta(days=1)
    credits.set_user_plan("u1", "same")
    listed = credits.check_spend_cap("u1")
    credits.add_credits("u1", 100)  # the ids of a look before a change still name the same caps
    for cap in listed:
        raised = credits.raise_spend_cap("u1", cap, 60, until)
        assert (raised.scope, raised.limit, raised.raised_until) == (cap.scope, 60, until)
        assert credits.clear_spend_cap("u1", cap).cap_id == raised.cap_id
    assert len(credits.check_spend_cap("u1")) == len(listed) == 2
    credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=600))
    assert [cap.used for cap in credits.check_spend_cap("u1")] == [6, 6]
    assert credits.raise_spend_cap("u1", "plan-day-deny", 70, until, model="gpt-4o").limit == 70


def test_a_members_cap_of_the_plan_before_they_spent(credits: CreditManager) -> None:
    """A plan's cap for members can be raised for one who has not spent yet."""
    credits.create_team("acme", "Acme", owner="ana", initial_credits=100)
    credits.set_user_plan("acme", "pair")
    cap = only(tuple(cap for cap in credits.check_spend_cap("acme", member="ana") if cap.scope == "member/ana"))
    assert credits.raise_spend_cap("acme", cap, 30, NOON + timedelta(days=1)).limit == 30
    assert credits.deduct_team("acme", "ana", 25).amount == 25


def test_an_unknown_id_of_a_plans_cap(credits: CreditManager) -> None:
    """An id that no cap has says which there are, and changes nothing."""
    credits.set_user_plan("u1", "same")
    before = credits.get_balance("u1").seq
    for wrong in ("plan-week-deny-1", "plan-day-warn", "plan", "-1"):
        with pytest.raises(CapNotFoundError, match="it has 'plan-day-deny"):
            credits.raise_spend_cap("u1", wrong, 60, NOON + timedelta(days=1))
    assert credits.get_balance("u1").seq == before


def test_members_of_a_capped_plan_show_their_caps_before_they_spend(credits: CreditManager) -> None:
    """What a plan allows each member is there to be seen before their first charge."""
    credits.create_team("acme", owner="ana", initial_credits=1000)
    credits.set_user_plan("acme", "capped")
    caps = credits.check_spend_cap("acme", member="ana")
    assert {(cap.scope, cap.limit) for cap in caps} >= {("account", 50), ("member/ana", 20)}


def test_an_id_of_several_scopes(credits: CreditManager) -> None:
    """Ids are unique in their scope: without one the account's own is meant, a member's is named with the member."""
    credits.create_team("acme", owner="ana", initial_credits=1000)
    credits.set_user_plan("acme", "same")
    credits.deduct_team("acme", "ana", UsageMetrics(model="gpt-4o", output_tokens=100))
    ids = {cap.scope: cap.cap_id for cap in credits.check_spend_cap("acme")}
    assert set(ids) == {"account", "member/ana", "model/gpt-4o"}
    assert len(set(ids.values())) == 1
    assert credits.clear_spend_cap("acme", ids["account"]).scope == "account"
    assert credits.clear_spend_cap("acme", ids["account"], model="gpt-4o").scope == "model/gpt-4o"
    assert credits.clear_spend_cap("acme", ids["account"], member="ana").scope == "member/ana"
    credits.set_user_plan("acme", "pair")
    member, model = credits.check_spend_cap("acme")
    with pytest.raises(ConfigError, match="several"):
        credits.clear_spend_cap("acme", member.cap_id)
    assert {credits.clear_spend_cap("acme", cap).scope for cap in (member, model)} == {"member/ana", "model/gpt-4o"}


def test_check_leaves_out_what_cannot_apply(credits: CreditManager) -> None:
    """A member's and a model's caps are left out where another member or model is asked for."""
    credits.create_team("acme", owner="ana")
    credits.add_team_member("acme", "bob")
    credits.set_spend_cap("acme", 1, "day")
    credits.set_spend_cap("acme", 2, "day", member="ana")
    credits.set_spend_cap("acme", 3, "day", member="bob")
    credits.set_spend_cap("acme", 4, "day", model="gpt-4o")

    def limits(**selected: str) -> set[Decimal]:
        return {cap.limit for cap in credits.check_spend_cap("acme", **selected)}

    assert limits() == {1, 2, 3, 4}
    assert limits(member="ana") == {1, 2, 4}
    assert limits(member="ana", model="small") == {1, 2}
    assert limits(model="gpt-4o-2024-08-06") == {1, 2, 3, 4}


def test_a_limit_of_nothing(credits: CreditManager) -> None:
    """A limit of zero stops all spending of what it counts."""
    credits.set_spend_cap("u1", 0, "total", model="gpt-4o")
    with pytest.raises(CapReachedError):
        credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=1))
    credits.deduct("u1", UsageMetrics(model="small", output_tokens=1))


def test_caps_come_before_credits(credits: CreditManager) -> None:
    """Where both would refuse, the cap says so."""
    credits.set_spend_cap("u2", 10, "day")
    with pytest.raises(CapReachedError):
        credits.deduct("u2", 11)
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u2", 10)


def test_keys(credits: CreditManager) -> None:
    """The same key takes effect once, a removal too; with another request it conflicts."""
    credits.set_spend_cap("u1", 10, "day", idempotency_key="k1")
    credits.set_spend_cap("u1", 20, "day")
    assert credits.set_spend_cap("u1", 10, "day", idempotency_key="k1").limit == 20
    with pytest.raises(IdempotencyConflictError):
        credits.set_spend_cap("u1", 11, "day", idempotency_key="k1")
    cap = only(credits.check_spend_cap("u1"))
    removed = credits.remove_spend_cap("u1", cap.cap_id, idempotency_key="k2")
    again = credits.remove_spend_cap("u1", cap.cap_id, idempotency_key="k2")
    assert (again.transaction_id, again.replayed) == (removed.transaction_id, True)


async def test_event_loops(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """A cap that one process sets holds for the next call of another."""
    await other.add_credits("u1", 100)
    await other.deduct("u1", 1)
    cap = await manager.set_spend_cap("u1", 10, "day")
    await other.deduct("u1", 10)
    with pytest.raises(CapReachedError):
        await other.deduct("u1", 1)
    await manager.clear_spend_cap("u1", cap)
    await other.deduct("u1", 10)
    await manager.remove_spend_cap("u1", window="day")
    await other.deduct("u1", 10)
