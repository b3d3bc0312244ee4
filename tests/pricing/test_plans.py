"""Plans are read exactly, and refused where they contradict themselves."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.errors import ConfigError
from ducto_redis.pricing import Plan, PricingDocument, SpendCap

MODELS = {"m": "input_tokens", "gpt-4o": 1}


def read(plan: dict[str, object], models: dict[str, object] | None = None) -> Plan:
    """The plan, as it reads back from the document's JSON too."""
    document = PricingDocument.from_dict({"models": models or MODELS, "plans": {"p": plan}})
    assert PricingDocument.from_json(document.to_json()) == document
    return document.plans["p"]


def cap(**values: object) -> dict[str, object]:
    return {"window": "day", "limit": 1, **values}


def test_billing_mode_is_accepted_for_the_default() -> None:
    """`billing_mode` of a plan means its default billing mode."""
    plan = read({"billing_mode": "overdraft", "overdraft_floor": -5})
    assert (plan.default_billing_mode, plan.overdraft_floor) == ("overdraft", -5)


@pytest.mark.parametrize(
    ("settings", "period", "anchor"),
    [
        ({}, "month", "calendar"),
        ({"period": "week"}, "week", "calendar"),
        ({"anchor": "assignment"}, "month", "assignment"),
        ({"period": "day", "anchor": "assignment"}, "day", "assignment"),
        ({"period": "assignment"}, "month", "assignment"),
        ({"period": "assignment", "anchor": "assignment"}, "month", "assignment"),
    ],
)
def test_periods(settings: dict[str, object], period: str, anchor: str) -> None:
    """A period is a calendar month unless the plan says otherwise; `assignment` anchors it."""
    plan = read(settings)
    assert (plan.period, plan.anchor) == (period, anchor)


@pytest.mark.parametrize(
    "plan",
    [
        {"billing_mode": "overdraft"},
        {"overdraft_floor": -5},
        {"billing_mode": "strict", "overdraft_floor": 0},
        {"billing_mode": "strict", "per_operation": {"agent": {"billing_mode": "overdraft", "overdraft_floor": -30}}},
        {"billing_mode": "strict", "overdraft_floor": -5, "per_operation": {"agent": {"billing_mode": "overdraft"}}},
        {"per_operation": {"agent": {"billing_mode": "overdraft"}, "chat": {"overdraft_floor": -3}}},
        {"rollover": 0},
        {"rollover": "none"},
        {"free_allowance": 1, "rollover": 5},
        {"features": {"a": 0, "b": "", "c": False, "d": None}},
        {"spend_caps": [cap(), cap(window="month"), cap(rolling=True), cap(scope="member"), cap(model="m")]},
        {"spend_caps": [cap(model="m"), cap(model="gpt-4o"), cap(model="gpt-4o", window="total")]},
        {"spend_caps": [cap(), cap(action="warn", limit=0), cap(window="month", time_zone="Asia/Kolkata")]},
        {"spend_caps": [cap(limit=0)]},
        {"rate_overrides": {"gpt*": 2, "gpt-4o-2024-08-06": 3}},
    ],
)
def test_allowed(plan: dict[str, object]) -> None:
    """What only looks like a contradiction is read, and survives a round trip."""
    read(plan)


def test_a_cap_has_the_plans_zone_unless_it_says_otherwise() -> None:
    """A cap's own time zone is kept; None stands for the plan's."""
    plan = read({"time_zone": "Europe/Berlin", "spend_caps": [cap(), cap(time_zone="America/New_York", action="warn")]})
    assert plan.spend_caps == (
        SpendCap(window="day", limit=Decimal(1)),
        SpendCap(window="day", limit=Decimal(1), action="warn", time_zone="America/New_York"),
    )


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"billing_mode": "strict", "overdraft_floor": -1}, "overdraft_floor: contradicts default_billing_mode"),
        (
            {"billing_mode": "strict", "overdraft_floor": -1, "per_operation": {"a": {"billing_mode": "strict"}}},
            "overdraft_floor: contradicts default_billing_mode",
        ),
        (
            {"billing_mode": "strict", "per_operation": {"a": {"overdraft_floor": -3}}},
            "per_operation.a.overdraft_floor: contradicts the plan's default_billing_mode",
        ),
        (
            {"billing_mode": "overdraft", "per_operation": {"a": {"billing_mode": "strict", "overdraft_floor": -3}}},
            "per_operation.a.overdraft_floor: contradicts billing_mode",
        ),
        ({"billing_mode": "strict", "overdraft_floor": 1}, "overdraft_floor: must be zero or below"),
        ({"rollover": 5}, "rollover: there is no free_allowance"),
        ({"rollover": 5, "free_allowance": 0}, "rollover: there is no free_allowance"),
        ({"rollover": -5, "free_allowance": 1}, "rollover: an amount must be zero or more"),
        ({"period": "assignment", "anchor": "calendar"}, "anchor: contradicts the period"),
        ({"time_zone": "Berlin"}, "time_zone: a time zone is an IANA name such as 'Europe/Berlin', not 'Berlin'; did"),
        ({"max_concurrent": -1}, "max_concurrent: must be a whole number"),
        ({"features": {"a\tb": 1}}, "features: the name of a key has no control characters"),
        ({"features": {"": 1}}, "features: the name of a key has 1 to 128 bytes"),
        ({"per_operation": {"a\x1fb": {}}}, "per_operation: the name of a key has no control characters"),
        ({"per_operation": {"é" * 65: {}}}, "per_operation: the name of a key has 1 to 128 bytes"),
        ({"rate_overrides": {"claude*": 1}}, "rate_overrides.claude*: the document prices no model 'claude*'"),
        ({"rate_overrides": {"gpt-4": 1}}, "rate_overrides.gpt-4: the document prices no model 'gpt-4'; did you mean"),
        ({"spend_caps": [cap(model="gpt-4")]}, "spend_caps[0].model: the document prices no model 'gpt-4'; it pri"),
        ({"spend_caps": [cap(model="gpt*")]}, "spend_caps[0].model: a spend cap counts one model or all"),
        ({"spend_caps": [cap(model="_default")]}, "spend_caps[0].model: a spend cap counts one model or all"),
        ({"spend_caps": [cap(model="a\nb")]}, "spend_caps[0].model: the name of a model has no control"),
        ({"spend_caps": [cap(model="m", scope="member")]}, "spend_caps[0].model: a spend cap of members counts all"),
        ({"spend_caps": [cap(time_zone="Mars/Base")]}, "spend_caps[0].time_zone: a time zone is an IANA name"),
        ({"spend_caps": [cap(window="year")]}, "spend_caps[0].window: must be 'minute' or 'hour'"),
        ({"spend_caps": [cap(), cap(limit=2)]}, "spend_caps[1]: does the same in the same window as "),
        (
            {"time_zone": "Asia/Tokyo", "spend_caps": [cap(), cap(time_zone="Asia/Tokyo")]},
            "spend_caps[1]: does the same in the same window as plans.p.spend_caps[0]",
        ),
        (
            {"spend_caps": [cap(rolling=True), cap(rolling=True, time_zone="Asia/Tokyo")]},
            "spend_caps[1]: does the same",
        ),
        ({"spend_caps": [cap(model="gpt-4o"), cap(model="gpt-4o-latest")]}, "spend_caps[1]: does the same"),
        (
            {
                "spend_caps": [
                    cap(window=window, rolling=rolling, action=action)
                    for window in ("minute", "hour", "day", "week", "month")
                    for rolling in (True, False)
                    for action in ("deny", "warn")
                ]
            },
            "spend_caps[16]: a plan has at most 16 spend caps that count the same",
        ),
    ],
)
def test_contradictions(plan: dict[str, object], message: str) -> None:
    """A plan that contradicts itself, or limits what cannot be, is refused with the path."""
    with pytest.raises(ConfigError) as caught:
        PricingDocument.from_dict({"models": MODELS, "plans": {"p": plan}})
    assert str(caught.value).startswith(f"plans.p.{message}"), str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"plans": {"p": {"id": "q"}}}, "plans.p.id: must be 'p', the key of the plan"),
        ({"plans": {"p": {"free_alowance": 1}}}, "plans.p.free_alowance: unknown key; did you mean 'free_allowance'?"),
        ({"plans": {"p": {"free_allowance": -1}}}, "plans.p.free_allowance: an amount must be zero or more"),
        ({"plans": {"p": {"period": "monthly"}}}, "plans.p.period: must be 'day' or 'week' or 'month' or 'assignment'"),
        ({"plans": {"p": {"anchor": "x"}}}, "plans.p.anchor: must be 'calendar' or 'assignment'"),
        ({"plans": {"p": {"time_zone": "Mars/Base"}}}, "plans.p.time_zone: a time zone is an IANA name"),
        ({"plans": {"p": {"time_zone": "../x"}}}, "plans.p.time_zone: a time zone is an IANA name"),
        ({"plans": {"p": {"rollover": "all"}}}, "plans.p.rollover: must be a number"),
        (
            {"plans": {"p": {"rate_overrides": {"x": "1"}}}},
            "plans.p.rate_overrides.x: the document prices no model 'x'",
        ),
        (
            {"plans": {"p": {"rate_overrides": {"_default": "1"}}}},
            "plans.p.rate_overrides._default: the document prices",
        ),
        ({"plans": {"p": {"features": {"f": {1, 2}}}}}, "plans.p.features.f: must be a JSON value"),
        (
            {"plans": {"p": {"default_billing_mode": "loose"}}},
            "plans.p.default_billing_mode: must be 'strict' or 'overdraft'",
        ),
        (
            {"plans": {"p": {"default_billing_mode": "strict", "billing_mode": "overdraft"}}},
            "plans.p.billing_mode: contradicts default_billing_mode",
        ),
        ({"plans": {"p": {"overdraft_floor": 1}}}, "plans.p.overdraft_floor: must be zero or below"),
        ({"plans": {"p": {"max_concurrent": 0}}}, "plans.p.max_concurrent: must be a whole number, 1 or more"),
        ({"plans": {"p": {"max_concurrent": 1.5}}}, "plans.p.max_concurrent: must be a whole number"),
        (
            {"plans": {"p": {"per_operation": {"agent": {"overdraft_floor": 3}}}}},
            "plans.p.per_operation.agent.overdraft_floor: must be zero or below",
        ),
        (
            {"plans": {"p": {"per_operation": {"a": {"billing_mode": "strict", "overdraft_floor": -3}}}}},
            "plans.p.per_operation.a.overdraft_floor: contradicts billing_mode",
        ),
        ({"plans": {"p": {"per_operation": {"a": {"mode": 1}}}}}, "plans.p.per_operation.a.mode: unknown key"),
        ({"plans": {"p": {"spend_caps": [{"limit": 1}]}}}, "plans.p.spend_caps[0]: a spend cap needs a window"),
        (
            {"plans": {"p": {"spend_caps": [{"window": "day", "limit": -1}]}}},
            "plans.p.spend_caps[0].limit: an amount must be zero or more",
        ),
        (
            {"plans": {"p": {"spend_caps": [{"window": "day", "limit": 1, "model": "zz"}]}}},
            "plans.p.spend_caps[0].model: the document prices no model 'zz'",
        ),
        (
            {"plans": {"p": {"spend_caps": [{"window": "total", "limit": 1, "rolling": True}]}}},
            "plans.p.spend_caps[0].rolling: the window 'total' never ends",
        ),
    ],
)
def test_refused(more: dict[str, object], message: str) -> None:
    """A plan that is wrong is refused with the path of the mistake."""
    with pytest.raises(ConfigError) as caught:
        PricingDocument.from_dict({"models": {"m": "input_tokens"}, **more})
    assert str(caught.value).startswith(message), str(caught.value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "free_allowance": st.integers(1, 10**9),
            "period": st.sampled_from(["day", "week", "month", "assignment"]),
            "time_zone": st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]),
            "billing_mode": st.sampled_from(["strict", "overdraft"]),
            "max_concurrent": st.integers(1, 100),
            "per_operation": st.dictionaries(st.sampled_from(["agent", "chat"]), st.just({"max_concurrent": 2})),
            "spend_caps": st.lists(
                st.fixed_dictionaries(
                    {
                        "window": st.sampled_from(["minute", "hour", "day", "week", "month", "total"]),
                        "limit": st.decimals(0, 10**6, places=6),
                    },
                    optional={
                        "action": st.sampled_from(["deny", "warn", "notify"]),
                        "time_zone": st.sampled_from(["UTC", "Asia/Kolkata"]),
                    },
                ),
                max_size=1,
            ),
        },
    )
)
def test_any_plan_round_trips(plan: dict[str, object]) -> None:
    """Whatever a plan says reads back from the document's JSON as the same."""
    read(plan)
