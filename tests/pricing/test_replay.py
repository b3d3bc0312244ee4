"""Charges of the past are priced by another document, exactly, one by one."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.engine.cause import Cause, encode_cause
from ducto_redis.engine.entry import JournalEntry
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import MICRO
from ducto_redis.pricing import PricingEngine
from ducto_redis.pricing.replay import PricingReplay, Replay

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
OLD = PricingEngine.from_dict(
    {
        "models": {"a": "input_tokens / 3", "b": "input_tokens * 2"},
        "plans": {"pro": {"rate_overrides": {"a": "input_tokens"}}},
    }
)
NEW = PricingEngine.from_dict(
    {
        "models": {"a": "input_tokens / 7", "b": "input_tokens * 3"},
        "plans": {"pro": {"rate_overrides": {"a": "input_tokens * 5"}}},
    }
)


def charge(
    *usages: UsageMetrics,
    account: str = "u1",
    amount: int | None = None,
    details: str = "",
    shortfall: int = 0,
    version: int = 1,
) -> JournalEntry:
    """A settle entry, priced by OLD unless it says otherwise."""
    if amount is None:
        amount = OLD.total_micro_of(usages)
    cause = encode_cause(Cause(usages)).decode()
    change = shortfall - amount
    return JournalEntry(
        3, "1700000000000-0", "settle", account, 1, 1, "k", amount, change, shortfall, version, cause, details, ()
    )


def used(model: str, tokens: int, **more: Any) -> UsageMetrics:
    return UsageMetrics(model=model, input_tokens=tokens, **more)


def replayed(*entries: JournalEntry, engine: PricingEngine = NEW, max_names: int = 1000) -> PricingReplay:
    replay = Replay(engine, max_names=max_names)
    for entry in entries:
        replay.take(entry, {1: OLD}.get)
    return replay.result(START, END)


def test_charges_are_rounded_one_by_one() -> None:
    """The sum is of rounded charges, as they would have been charged, not a rounded sum."""
    result = replayed(*[charge(used("a", 1))] * 3)
    assert (result.total.charges, result.total.cost) == (3, Decimal("0.999999"))
    assert result.total.replayed == 3 * NEW.total(used("a", 1)) == Decimal("0.428571")
    assert result.total.difference == Decimal("-0.571428")
    assert (result.start, result.end) == (START, END)


def test_by_model_and_by_account() -> None:
    """Rows hold charges, what was charged and what would have been, the largest difference first."""
    result = replayed(charge(used("a", 7)), charge(used("b", 1)), charge(used("b", 2), account="u2"))
    assert [(row.name, row.charges, row.cost, row.replayed) for row in result.by_model] == [
        ("b", 2, Decimal(6), Decimal(9)),
        ("a", 1, Decimal("2.333333"), Decimal(1)),
    ]
    assert [(row.name, row.difference) for row in result.by_account] == [("u2", 2), ("u1", Decimal("-0.333333"))]


def test_plans_rates_are_respected() -> None:
    """Usage is priced under the plan that it was charged under; a plan that the document lacks is said."""
    result = replayed(charge(used("a", 1), details="plan\x1fpro"), charge(used("b", 1), details="plan\x1fgold"))
    assert {row.name: row.replayed for row in result.by_model} == {"a": Decimal(5), "b": Decimal(3)}
    assert [(plan.plan, plan.charges) for plan in result.missing_plans] == [("gold", 1)]


def test_allowance_and_shortfall_are_told() -> None:
    """What an allowance paid and what could not be charged stand beside what it cost."""
    total = replayed(charge(used("b", 5), details="allowance\x1f4000000 2", shortfall=3 * MICRO)).total
    assert (total.cost, total.charged, total.from_allowance, total.replayed) == (10, 7, 4, 15)


def test_what_has_no_price_is_listed() -> None:
    """Models, tools, jobs and measures without a price are counted, and left out of the difference."""
    result = replayed(
        charge(used("c", 1), amount=5),
        charge(used("c", 2), amount=7),
        charge(used("b", 1)),
        charge(UsageMetrics(fixed_job="j"), amount=1),
    )
    assert [(it.charges, it.cost) for it in result.unpriced] == [(2, Decimal("0.000012")), (1, Decimal("0.000001"))]
    assert "model 'c'" in result.unpriced[0].reason
    assert (result.total.unpriced, result.total.unpriced_cost) == (3, Decimal("0.000013"))
    assert (result.total.replayed, result.total.difference) == (3, 1)


def test_several_models_in_one_charge() -> None:
    """Each model of a charge gets its own part, by the prices of then; without these they stay together."""
    usages = used("a", 1), used("b", 2), used("a", 2)
    whole = OLD.total_micro_of(usages)
    result = replayed(charge(*usages, details="allowance\x1f1000001 1"))
    rows = {row.name: row for row in result.by_model}
    assert rows["a"].cost == OLD.total(used("a", 1)) + OLD.total(used("a", 2))
    assert rows["b"].cost == 4
    assert sum(row.from_allowance for row in result.by_model) == Decimal("1.000001")
    assert result.total.charges == 1
    assert sum(row.cost for row in result.by_model) * MICRO == whole
    (together,) = replayed(charge(*usages, version=2, amount=whole)).by_model
    assert (together.name, together.replayed) == ("a + b", result.total.replayed)
    (differing,) = replayed(charge(*usages, amount=whole + 1)).by_model
    assert differing.name == "a + b"


def test_amounts_and_unreadable_entries_are_counted_apart() -> None:
    """Credits that the application named itself have no price in any document; nor has what cannot be read."""
    unreadable = charge(details="nonsense")
    result = replayed(charge(amount=5 * MICRO, shortfall=MICRO), unreadable)
    assert (result.by_amount, result.by_amount_charged, result.unreadable) == (1, Decimal(4), 1)
    assert (result.total.charges, result.by_model) == (0, ())


def test_names_are_bounded() -> None:
    """Beyond so many names, all others stand in one row, and the rows still add up."""
    result = replayed(*[charge(used("b", 1), account=f"u{number}") for number in range(5)], max_names=3)
    assert [(row.name, row.others) for row in result.by_account][-1] == (None, True)
    assert len(result.by_account) == 4
    assert sum(row.cost for row in result.by_account) == result.total.cost == 10


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**6)), min_size=1, max_size=3),
            st.sampled_from(["u1", "u2", "u3"]),
            st.sampled_from(["", "plan\x1fpro", "plan\x1fgone"]),
        ),
        max_size=20,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_grouping_adds_up(charges: list[tuple[list[tuple[str, int]], str, str]]) -> None:
    """By model and by account, the rows add up to the total, and that to what the engine charges for each usage."""
    entries, expected = [], 0
    for parts, account, details in charges:
        usages = [used(model, tokens) for model, tokens in parts]
        amount = sum(usage.input_tokens for usage in usages)
        entries.append(charge(*usages, account=account, details=details, amount=amount))
        models = {usage.model for usage in usages}
        if "c" not in models:
            expected += NEW.total_micro_of(usages, "pro" if details == "plan\x1fpro" else None)
    result = replayed(*entries)
    if all(len({model for model, _ in parts}) == 1 for parts, _, _ in charges):
        assert result.total.replayed * MICRO == expected
    for rows in (result.by_model, result.by_account):
        for name in ("cost", "charged", "from_allowance", "replayed", "difference", "unpriced", "unpriced_cost"):
            assert sum(getattr(row, name) for row in rows) == getattr(result.total, name)
    assert result.total.difference == result.total.replayed - result.total.cost + result.total.unpriced_cost


@pytest.mark.parametrize("measure", ["0.1", "1234567890123.123456", "7"])
def test_measures_are_exact(measure: str) -> None:
    """A measure of many digits comes out of the journal as it went in."""
    engine = PricingEngine.from_dict({"measures": ["s"], "models": {"m": "s / 1000"}})
    usage = UsageMetrics(model="m", measures={"s": Decimal(measure)})
    assert replayed(charge(usage, amount=1), engine=engine).total.replayed == engine.total(usage)
