"""Spend caps that cannot be."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from ducto_redis import CreditManager
from ducto_redis.errors import CapNotFoundError, ConfigError, InvalidAmountError, MemberNotFoundError, TeamNotFoundError
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
    for ask in (
        lambda team: credits.set_spend_cap(team, 10, "day", member="anna"),
        lambda team: credits.check_spend_cap(team, member="anna"),
        lambda team: credits.remove_spend_cap(team, window="day", member="anna"),
        lambda team: credits.clear_spend_cap(team, "1", member="anna"),
        lambda team: credits.raise_spend_cap(team, "1", 1, clock.time + timedelta(days=1), member="anna"),
    ):
        with pytest.raises(MemberNotFoundError, match="did you mean 'ana'") as unknown:
            ask("acme")
        assert (unknown.value.member, unknown.value.members) == ("anna", ("ana",))
        with pytest.raises(TeamNotFoundError, match="nothing ever happened") as no_team:
            ask("u1")
        assert (no_team.value.team, no_team.value.exists) == ("u1", False)
    assert credits.get_balance("u1").seq == 0
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


PRICES = {
    "models": {"gpt-4o": 1, "claude*": 1},
    "plans": {"pro": {"rate_overrides": {"gpt-4o": 2}}},
}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-2024-08-06", "claude-9"])
def test_a_cap_for_a_model_that_has_a_price(model: str, credits: CreditManager) -> None:
    """By its name, as a dated version, or by a wildcard; without any document every name is taken."""
    assert credits.set_spend_cap("u1", 10, "day", model="o7").scope == "model/o7"
    credits.publish_pricing(PRICES)
    assert credits.set_spend_cap("u1", 10, "day", model=model).scope == f"model/{model.removesuffix('-2024-08-06')}"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt-4p", "prices no model 'gpt-4p'; it prices 'claude\\*', 'gpt-4o'; did you mean 'gpt-4o'"),
        ("_default", "one model or all"),
        ("claude*", "one model or all"),
    ],
)
def test_a_cap_that_could_limit_nothing(model: str, message: str, credits: CreditManager) -> None:
    """A mistyped model would be a cap that nobody enforces: it is refused, with the models that there are."""
    credits.publish_pricing(PRICES)
    with pytest.raises(ConfigError, match=message):
        credits.set_spend_cap("u1", 10, "day", model=model)
    assert credits.get_balance("u1").seq == 0


def test_caps_of_models_that_the_document_dropped(credits: CreditManager) -> None:
    """They can be seen and removed."""
    credits.publish_pricing(PRICES)
    cap = credits.set_spend_cap("u1", 10, "day", model="gpt-4o")
    credits.publish_pricing({"models": {"o3": 1}})
    assert credits.check_spend_cap("u1", model="gpt-4o") == (cap,)
    credits.remove_spend_cap("u1", window="day", model="gpt-4o")
    assert credits.check_spend_cap("u1") == ()


def test_a_model_that_only_the_default_prices(credits: CreditManager, caplog: pytest.LogCaptureFixture) -> None:
    """It may be any, so it is taken; where it looks like a slip of the pen, the log says so."""
    credits.publish_pricing({"models": {"gpt-4o": 1, "_default": 1}})
    assert credits.set_spend_cap("u1", 10, "day", model="llama").scope == "model/llama"
    assert not caplog.records
    assert credits.set_spend_cap("u1", 10, "day", model="gpt-4p").scope == "model/gpt-4p"
    assert "did you mean 'gpt-4o'" in caplog.text


def test_a_model_that_was_published_a_moment_ago(clock: Clock) -> None:
    """The newest document is asked before a model is refused."""
    with CreditManager(clock.store) as ours, CreditManager(clock.store) as theirs:
        ours.publish_pricing(PRICES)
        theirs.publish_pricing({"models": {"o3": 1}})
        assert ours.set_spend_cap("u1", 10, "day", model="o3").scope == "model/o3"
