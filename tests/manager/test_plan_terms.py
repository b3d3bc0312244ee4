"""What plans mean at a time, and what is known of accounts."""

from datetime import UTC, datetime

import pytest

from ducto_redis.engine.operation import PLAIN, Bounds, CapRule, Conditions
from ducto_redis.errors import ConfigError, TermsNeeded
from ducto_redis.manager.plan_terms import terms_of
from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.manager.repricing import AccountBook
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import PricingEngine

DOCUMENT = {
    "models": {"gpt-4o": "input_tokens * 0.001", "mini": "input_tokens * 0.0001", "_default": "input_tokens"},
    "fixed": {"report": 5},
    "plans": {
        "free": {"free_allowance": 100, "rollover": 20, "time_zone": "Europe/Berlin"},
        "anchored": {"free_allowance": 0.5, "anchor": "assignment"},
        "capped": {
            "time_zone": "Europe/Berlin",
            "spend_caps": [
                {"window": "day", "limit": 50},
                {"window": "hour", "limit": 2.5, "rolling": True, "action": "warn"},
                {"window": "total", "limit": 900},
                {"window": "month", "limit": 20, "scope": "member", "action": "notify"},
                {"window": "day", "limit": 5, "model": "gpt-4o"},
            ],
        },
        "dear": {"rate_overrides": {"gpt-4o": "input_tokens * 0.01"}},
    },
}
PRICING = Pricing.of(PricingEngine.from_dict(DOCUMENT), 3, 7)


def ms(*when: int) -> int:
    """A time in UTC, in milliseconds."""
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1000


NOON = ms(2026, 3, 10, 12)
MARCH_IN_BERLIN = Bounds(ms(2026, 2, 28, 23), ms(2026, 3, 31, 22))
TODAY_IN_BERLIN = Bounds(ms(2026, 3, 9, 23), ms(2026, 3, 10, 23))


def test_an_allowance_has_the_period_of_its_plan() -> None:
    """Limit and rollover in micro-credits, the month in the plan's time zone, under the document's activation."""
    terms = terms_of(PRICING, "free", TermsNeeded("free", ms(2026, 1, 5), "", NOON))
    assert (terms.plan, terms.activation, terms.time_zone) == ("free", 7, "Europe/Berlin")
    assert (terms.allowance, terms.rollover, terms.period) == (100_000_000, 20_000_000, MARCH_IN_BERLIN)
    assert (terms.caps, terms.bounds) == ((), ())


def test_the_account_may_have_a_time_zone_of_its_own() -> None:
    """It is where the account's periods begin, whatever the plan says."""
    terms = terms_of(PRICING, "free", TermsNeeded("free", ms(2026, 1, 5), "Asia/Tokyo", NOON))
    assert terms.period == Bounds(ms(2026, 2, 28, 15), ms(2026, 3, 31, 15))


def test_a_plan_that_is_assigned_now_begins_now() -> None:
    """Without a time of assignment, anchored periods begin with today."""
    now = terms_of(PRICING, "anchored", TermsNeeded("anchored", 0, "", NOON))
    assert now.period == Bounds(ms(2026, 3, 10), ms(2026, 4, 10))
    then = terms_of(PRICING, "anchored", TermsNeeded("anchored", ms(2026, 1, 31, 9), "", NOON))
    assert (then.period, then.allowance) == (Bounds(ms(2026, 2, 28), ms(2026, 3, 31)), 500_000)


def test_caps_of_a_plan_and_the_bounds_that_they_need() -> None:
    """Each cap is read in the account's calendar; windows that roll or never end have no bounds."""
    terms = terms_of(PRICING, "capped", TermsNeeded("capped", ms(2026, 1, 5), "", NOON))
    assert terms.caps == (
        CapRule("account", "day", 50_000_000, "deny", False, "Europe/Berlin"),
        CapRule("account", "hour", 2_500_000, "warn", True, "Europe/Berlin"),
        CapRule("account", "total", 900_000_000, "deny", False, "Europe/Berlin"),
        CapRule("members", "month", 20_000_000, "notify", False, "Europe/Berlin"),
        CapRule("model/gpt-4o", "day", 5_000_000, "deny", False, "Europe/Berlin"),
    )
    assert dict(terms.bounds) == {"day@Europe/Berlin": TODAY_IN_BERLIN, "month@Europe/Berlin": MARCH_IN_BERLIN}
    assert terms.period is None


def test_the_windows_that_the_engine_asks_for_are_answered() -> None:
    """Also where the account has no plan, no document was published, or the plan is gone from the document."""
    asked = TermsNeeded("capped", 0, "", NOON, ("minute@UTC", "day@Europe/Berlin"))
    wanted = {"minute@UTC": Bounds(NOON, NOON + 60_000), "day@Europe/Berlin": TODAY_IN_BERLIN}
    assert wanted.items() < dict(terms_of(PRICING, "capped", asked).bounds).items()
    for pricing, plan_id, activation in ((PRICING, "", 7), (PRICING, "gone", 7), (None, "capped", 0)):
        terms = terms_of(pricing, plan_id, asked)
        assert dict(terms.bounds) == wanted
        assert (terms.plan, terms.activation, terms.allowance, terms.period, terms.caps) == (
            plan_id,
            activation,
            0,
            None,
            (),
        )


def test_a_zone_that_this_machine_does_not_know() -> None:
    """It is named, and not taken for another."""
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        terms_of(PRICING, "", TermsNeeded("", 0, "", NOON, ("day@Mars/Olympus",)))


@pytest.mark.parametrize(
    ("more", "opening"),
    [
        ({}, PLAIN),
        ({"signup_bonus": 50}, Conditions(True, 50_000_000, 7, "")),
        ({"default_plan": "free"}, Conditions(True, 0, 7, "free")),
        ({"signup_bonus": 0.5, "default_plan": "free"}, Conditions(True, 500_000, 7, "free")),
    ],
)
def test_what_new_accounts_begin_with(more: dict[str, object], opening: Conditions) -> None:
    """The document's bonus and default plan; without either, plans cost an account that has none nothing."""
    pricing = Pricing.of(PricingEngine.from_dict({**DOCUMENT, **more}), 3, 7)
    assert pricing.opening == opening
    if opening == PLAIN:
        assert pricing.opening is PLAIN


def test_each_models_part_of_a_price() -> None:
    """Parts add up to the price, under the plan's rates and under the names by which caps count; jobs have no model."""
    usages = [
        UsageMetrics(model="gpt-4o", input_tokens=1000),
        UsageMetrics(model="gpt-4o-2024-08-06", input_tokens=500),
        UsageMetrics(fixed_job="report"),
        UsageMetrics(model="mini", input_tokens=1000),
    ]
    for plan, gpt in (("", 1_500_000), ("dear", 15_000_000), ("gone", 1_500_000)):
        assert PRICING.total_micro(usages, plan) == gpt + 100_000 + 5_000_000
        assert PRICING.models(usages, plan, 0) == (("gpt-4o", gpt), ("mini", 100_000))
        one = PRICING.total_micro(usages[1:2], plan)
        assert PRICING.models(usages[1:2], plan, one) == (("gpt-4o", one),)
    assert PRICING.models(usages[2:3], "", 5_000_000) == ()


def test_an_account_book_is_bounded() -> None:
    """It forgets the account that it learned of first; an account that it knows takes no second place."""
    book = AccountBook(limit=2)
    book.learn("a", "free")
    book.learn("b", "")
    book.learn("a", "pro")
    assert (book.plan_of("a"), book.plan_of("b"), book.plan_of("c")) == ("pro", "", None)
    book.learn("c", "pro")
    assert (book.plan_of("a"), book.plan_of("b"), book.plan_of("c")) == (None, "", "pro")
