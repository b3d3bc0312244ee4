"""What changed from one document to another is found, and told with the prices before and after."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.difference import SECTIONS, DocumentChange, compare_documents
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.rates import Rate, compare_rates, linear_rates
from tests.pricing.documents import documents
from tests.searching import examples


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, DocumentChange]:
    """The changes by path."""
    changes = compare_documents(PricingDocument.from_dict(before), PricingDocument.from_dict(after))
    assert len({change.path for change in changes}) == len(changes)
    return {change.path: change for change in changes}


def one_model(formula: str) -> dict[str, Any]:
    return {"models": {"m": formula}}


@given(documents(), documents())
@examples(25, long=800)
def test_equal_documents_have_no_difference_and_others_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    """There is a difference exactly where documents differ, in the order of the sections, the same both ways."""
    before, after = PricingDocument.from_dict(one), PricingDocument.from_dict(other)
    assert compare_documents(before, before) == []
    changes = compare_documents(before, after)
    assert bool(changes) == (before != after)
    sections = [SECTIONS.index(change.section) for change in changes]
    assert sections == sorted(sections)
    back = {change.path: change for change in compare_documents(after, before)}
    other_way = {"added": "removed", "removed": "added", "changed": "changed"}
    for change in changes:
        mirrored = back.pop(change.path)
        assert mirrored.kind == other_way[change.kind]
        assert (mirrored.before, mirrored.after) == (change.after, change.before)
    assert not back


def test_changed_formula_has_prices_before_and_after() -> None:
    """Of formulas that are sums of measures, each measure's price is told: per 1,000,000 tokens, per 1 of all else."""
    change = compare(
        {"measures": ["pages"], **one_model("input_tokens * 0.0025 + output_tokens * (1 / 100) + pages * 2 + 1")},
        {"measures": ["pages"], **one_model("output_tokens * 0.012 + input_tokens * 0.002 + pages * 2")},
    )["models.m"]
    assert (change.kind, change.same_price) == ("changed", False)
    assert change.rates == (
        Rate("requests", 1, Decimal(1), Decimal(0), Decimal(-100)),
        Rate("input_tokens", 1_000_000, Decimal(2500), Decimal(2000), Decimal(-20)),
        Rate("output_tokens", 1_000_000, Decimal(10000), Decimal(12000), Decimal(20)),
        Rate("pages", 1, Decimal(2), Decimal(2), Decimal(0)),
    )


def test_same_price_in_other_words() -> None:
    """A formula that was only written differently is said to charge the same."""
    change = compare(one_model("input_tokens * (0.01 / 1000)"), one_model("input_tokens / 100000"))["models.m"]
    assert change.same_price
    assert not compare(one_model("input_tokens * 2"), one_model("input_tokens * 3"))["models.m"].same_price


@pytest.mark.parametrize(
    "formula",
    [
        "input_tokens / output_tokens",
        "max(1, input_tokens)",
        "input_tokens * output_tokens",
        "1 if model == 'm' else 2",
    ],
)
def test_formula_that_is_no_sum(formula: str) -> None:
    """What is no sum of measures has no price per measure: only its text is compared."""
    assert linear_rates(Formula(formula, "models.m")) is None
    change = compare(one_model(formula), one_model("input_tokens"))["models.m"]
    assert (change.rates, change.same_price) == ((), False)


def test_rates_are_what_the_engine_charges() -> None:
    """The price per measure is the price of one more of it, exact before it is rounded for people."""
    rates = linear_rates(Formula("input_tokens / 3 - uncached_input_tokens * 0.25 + (requests + 1) * 2", "models.m"))
    assert rates == {"requests": 4, "input_tokens": Fraction(1, 3), "uncached_input_tokens": Fraction(-1, 4)}
    engine = PricingEngine.from_dict(one_model("input_tokens / 3 - uncached_input_tokens * 0.25 + (requests + 1) * 2"))
    assert engine.total(UsageMetrics(model="m", input_tokens=12)) == 4 + 12 * (Fraction(1, 3) - Fraction(1, 4))
    assert compare_rates({"input_tokens": Fraction(1, 3)}, {})[0].before == Decimal("333333.333333333333")
    tiny = compare_rates({"pages": Fraction(1, 10**13)}, {"pages": Fraction(-5, 10**13)})[0]
    assert (tiny.before, tiny.after, tiny.percent) == (Decimal(0), Decimal("-0.000000000001"), Decimal(-600))


def test_added_and_removed_models_are_compared_with_what_prices_them() -> None:
    """A model that one document does not name is priced by an entry of it all the same, or by none."""
    changes = compare(
        {"models": {"gpt*": "input_tokens", "old": "output_tokens", "gone": 5}},
        {"models": {"gpt*": "input_tokens", "gpt-9": "input_tokens * 2", "old*": "output_tokens * 3"}},
    )
    added = changes["models.gpt-9"]
    assert (added.kind, added.before, added.priced_before) == ("added", "input_tokens", "models.gpt*")
    assert added.rates[0].percent == 100
    removed = changes["models.old"]
    assert (removed.kind, removed.after, removed.priced_after) == ("removed", "output_tokens * 3", "models.old*")
    assert (changes["models.gone"].after, changes["models.gone"].priced_after) == (None, None)


def test_overrides_of_a_plan() -> None:
    """A plan's own rate is compared with the document's where only one document's plan has it."""
    plan = {"rate_overrides": {"m": "input_tokens"}}
    changes = compare(
        {**one_model("input_tokens * 4"), "plans": {"pro": plan}},
        {**one_model("input_tokens * 4"), "plans": {"pro": {}}},
    )
    (change,) = changes.values()
    assert (change.section, change.path, change.kind) == ("plans", "plans.pro.rate_overrides.m", "removed")
    assert (change.after, change.priced_after) == ("input_tokens * 4", "models.m")
    assert change.rates[0].percent == 300
    wildcard = {"rate_overrides": {"m*": "input_tokens * 3"}}
    (changed, added) = compare(
        {**one_model("input_tokens * 4"), "plans": {"pro": plan}},
        {**one_model("input_tokens * 4"), "plans": {"pro": wildcard}},
    ).values()
    assert (changed.kind, changed.after, changed.priced_after) == (
        "removed",
        "input_tokens * 3",
        "plans.pro.rate_overrides.m*",
    )
    assert (added.kind, added.priced_before) == ("added", None)


def test_every_field_of_a_plan() -> None:
    """Fields, features, limits per operation and spend caps of a plan are told one by one."""
    before = {
        "name": "Pro",
        "free_allowance": 50,
        "features": {"chat": True, "old": 1, "same": [1]},
        "per_operation": {"agent": {"max_concurrent": 1}},
        "spend_caps": [{"window": "day", "limit": 5}, {"window": "day", "limit": 9, "rolling": True}],
    }
    after = {
        "name": "Pro",
        "free_allowance": 100,
        "features": {"chat": 1, "new": "x", "same": [1]},
        "max_concurrent": 3,
        "spend_caps": [{"window": "day", "limit": 6}, {"window": "day", "limit": 9, "rolling": True, "action": "warn"}],
    }
    changes = compare({**one_model("1"), "plans": {"pro": before}}, {**one_model("1"), "plans": {"pro": after}})
    found = {path.removeprefix("plans.pro."): (it.kind, it.before, it.after) for path, it in changes.items()}
    assert found == {
        "free_allowance": ("changed", 50, 100),
        "features.chat": ("changed", True, 1),
        "features.old": ("removed", 1, None),
        "features.new": ("added", None, "x"),
        "per_operation.agent.max_concurrent": ("removed", 1, None),
        "max_concurrent": ("added", None, 3),
        "spend_caps[account day].limit": ("changed", 5, 6),
        "spend_caps[account rolling day].action": ("changed", "deny", "warn"),
    }


def test_the_other_sections() -> None:
    """Measures, tools, search, cache, fixed prices and settings are compared too; plans come and go as a whole."""
    before = {**one_model("1"), "measures": ["a"], "tools": {"t": "1"}, "fixed": {"job": 1}, "signup_bonus": 5}
    after = {
        **one_model("1"),
        "measures": ["b"],
        "tools": {"_default": "2"},
        "fixed": {"job": 2},
        "search": {"costs": "search_queries"},
        "cache": {"discount": "-cache_read_tokens"},
        "plans": {"free": {"free_allowance": 5}},
        "default_plan": "free",
    }
    changes = compare(before, after)
    assert [(it.section, path, it.kind) for path, it in changes.items()] == [
        ("measures", "measures.a", "removed"),
        ("measures", "measures.b", "added"),
        ("tools", "tools._default", "added"),
        ("tools", "tools.t", "removed"),
        ("search", "search.costs", "added"),
        ("cache", "cache.discount", "added"),
        ("fixed", "fixed.job", "changed"),
        ("plans", "plans.free", "added"),
        ("settings", "default_plan", "added"),
        ("settings", "signup_bonus", "changed"),
    ]
    assert changes["tools.t"].priced_after == "tools._default"
    assert changes["plans.free"].after == {"id": "free", "name": "free", "free_allowance": 5}
