"""Spend caps that cannot be."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from ducto_redis import CreditManager
from ducto_redis.errors import CapNotFoundError, ConfigError, InvalidAmountError, MemberNotFoundError
from tests.manager.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        yield manager


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "fortnight"}, "'minute'.*'total'"),
        ({"window": "dayly"}, "did you mean 'day'"),
        ({"window": "total", "rolling": True}, "never ends"),
        ({"window": "day", "action": "refuse"}, "'deny'.*'notify'"),
        ({"window": "day", "time_zone": "Mars/Olympus"}, "time zone"),
        ({"window": "day", "member": "ana", "model": "gpt-4o"}, "not both"),
    ],
)
def test_wrong_settings(options: dict[str, object], message: str, credits: CreditManager) -> None:
    """What a cap cannot be is refused with what it can be."""
    window = options.pop("window")
    with pytest.raises(ConfigError, match=message):
        credits.set_spend_cap("u1", 10, window, **options)  # type: ignore[arg-type]
    assert credits.check_spend_cap("u1") == ()


@pytest.mark.parametrize("limit", [-1, "x", 0.5, "1e30"])
def test_wrong_limits(limit: object, credits: CreditManager) -> None:
    """A limit is an amount of credits, zero or more."""
    with pytest.raises(InvalidAmountError):
        credits.set_spend_cap("u1", limit, "day")  # type: ignore[arg-type]


def test_unknown_members_and_caps(credits: CreditManager, clock: Clock) -> None:
    """The error names what was not found, and what there is."""
    credits.create_team("acme", owner="ana")
    with pytest.raises(MemberNotFoundError):
        credits.set_spend_cap("acme", 10, "day", member="zoe")
    with pytest.raises(MemberNotFoundError):
        credits.check_spend_cap("acme", member="zoe")
    with pytest.raises(MemberNotFoundError):
        credits.set_spend_cap("u1", 10, "day", member="zoe")
    cap = credits.set_spend_cap("acme", 10, "day")
    for call in (
        lambda: credits.remove_spend_cap("acme", "nothing"),
        lambda: credits.clear_spend_cap("acme", "nothing"),
        lambda: credits.raise_spend_cap("acme", "nothing", 1, clock.time + timedelta(days=1)),
    ):
        with pytest.raises(CapNotFoundError, match=r"'nothing'.*account per day") as refused:
            call()
        assert any(cap.cap_id in known for known in refused.value.caps)


def test_at_most_sixteen_caps_of_a_scope(credits: CreditManager) -> None:
    """A scope that has its sixteen takes no more."""
    zones = ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"]
    caps = [(window, zone) for window in ("hour", "day", "week", "month") for zone in zones]
    for window, zone in caps:
        credits.set_spend_cap("u1", 10, window, time_zone=zone)  # type: ignore[arg-type]
    with pytest.raises(InvalidAmountError, match="16"):
        credits.set_spend_cap("u1", 10, "minute")
    assert credits.set_spend_cap("u1", 11, "day").limit == 11
    assert len(credits.check_spend_cap("u1")) == 16
