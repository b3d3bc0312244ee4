"""What a plan's own rates change, and under which name spend caps count a model."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.errors import InvalidIdError, PlanNotFoundError, UnpricedModelError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import PricingEngine

DOCUMENT = {
    "models": {
        "gpt-4o": 1,
        "gpt-4o-2024-08-06": 2,
        "claude-sonnet": 3,
        "llama-8b": 4,
        "_default": 9,
    },
    "cache": {"discount": "-cache_read_tokens * 0.5"},
    "fixed": {"job": 100},
    "signup_bonus": 50,
    "default_plan": "free",
    "plans": {
        "free": {"name": "Free"},
        "pro": {"rate_overrides": {"gpt-4o": "10 + input_tokens", "claude*": 30, "mistral": 70}},
        "base": {"rate_overrides": {"_default": 90}},
        "dated": {"rate_overrides": {"claude-sonnet-2024-06": 33, "gpt*": 5}},
    },
}
ENGINE = PricingEngine.from_dict(DOCUMENT)


@pytest.mark.parametrize(
    ("plan", "model", "credits"),
    [
        ("", "gpt-4o", 1),
        ("free", "gpt-4o", 1),
        # exactly, and by the name without date or version: also over a closer entry of the document
        ("pro", "gpt-4o", 10),
        ("pro", "gpt-4o-latest", 10),
        ("pro", "gpt-4o-2024-08-06", 10),
        ("pro", "gpt-4o-2024-11-20", 10),
        # by a wildcard, over the document's exact entry
        ("pro", "claude-sonnet", 30),
        ("dated", "gpt-4o-2024-08-06", 5),
        # a model that the document prices by its default only
        ("pro", "mistral-2407", 70),
        # what no override names stays the document's
        ("pro", "llama-8b", 4),
        ("pro", "gpt-5", 9),
        ("dated", "claude-sonnet", 3),
        ("dated", "claude-sonnet-2024-06", 33),
        # an override of the default is for what nothing names
        ("base", "gpt-4o", 1),
        ("base", "llama-8b-2024-01-01", 4),
        ("base", "gpt-5", 90),
        ("base", None, 90),
    ],
)
def test_which_rate_wins(plan: str, model: str | None, credits: int) -> None:
    """An override that names the model wins over the document's entry; all ways to the price agree."""
    usage = UsageMetrics(model=model)
    engine = ENGINE.for_plan(plan)
    assert engine.total(usage) == credits
    assert engine.calculate(usage).total == credits
    assert engine.total_micro(usage) == credits * 10**6
    assert engine.total_micro_of([usage, usage]) == 2 * credits * 10**6
    assert ENGINE.total(usage, plan) == credits
    assert ENGINE.total_micro(usage, plan) == credits * 10**6


def test_the_line_names_the_override() -> None:
    """A breakdown says that a plan's rate was charged, and the cache discount and fixed prices stay."""
    cost = ENGINE.for_plan("pro").calculate(
        UsageMetrics(model="gpt-4o", input_tokens=4, cache_read_tokens=4, fixed_job="job")
    )
    assert [(line.path, line.credits) for line in cost.lines] == [
        ("plans.pro.rate_overrides.gpt-4o", Decimal(14)),
        ("cache.discount", Decimal(-2)),
        ("fixed.job", Decimal(100)),
    ]


def test_engines_of_plans() -> None:
    """A plan without rates of its own has the document's engine; the others have one each, whoever is asked."""
    pro = ENGINE.for_plan("pro")
    assert ENGINE.for_plan("") is ENGINE
    assert ENGINE.for_plan("free") is ENGINE
    assert pro is not ENGINE
    assert ENGINE.for_plan("pro") is pro
    assert pro.for_plan("pro") is pro
    assert pro.for_plan("free") is ENGINE
    assert pro.for_plan("") is ENGINE
    assert pro.document is ENGINE.document
    for find in (ENGINE.for_plan, pro.for_plan, ENGINE.plan):
        with pytest.raises(PlanNotFoundError, match="no plan 'gold'; it has 'base', 'dated', 'free', 'pro'") as caught:
            find("gold")
        assert (caught.value.plan, caught.value.plans) == ("gold", ("base", "dated", "free", "pro"))


def test_unpriced_with_overrides() -> None:
    """A plan's rates price only what they name."""
    engine = PricingEngine.from_dict(
        {"models": {"a": 1, "b": 2}, "plans": {"p": {"rate_overrides": {"a": 3}}, "q": {"rate_overrides": {"b*": 4}}}}
    )
    for name in ("c", None):
        with pytest.raises(UnpricedModelError):
            engine.for_plan("p").total_micro(UsageMetrics(model=name))
    assert engine.for_plan("q").total(UsageMetrics(model="bc")) == 4


def test_threads_share_engines() -> None:
    """Threads that meet at the first use of plans' engines all get the right price."""
    engine = PricingEngine.from_dict(
        {
            "models": {f"m{number}": number for number in range(20)},
            "plans": {
                f"p{plan}": {"rate_overrides": {f"m{number}": plan * 100 + number for number in range(20)}}
                for plan in range(1, 9)
            },
        }
    )
    cases = [(plan, number) for plan in range(1, 9) for number in range(20)] * 5

    def price(case: tuple[int, int]) -> int:
        plan, number = case
        return engine.for_plan(f"p{plan}").total_micro(UsageMetrics(model=f"m{number}-latest"))

    with ThreadPoolExecutor(8) as threads:
        prices = list(threads.map(price, cases))
    assert prices == [(plan * 100 + number) * 10**6 for plan, number in cases]


def test_what_the_document_says_of_plans() -> None:
    """The default plan and the bonus are there for the engine of each plan."""
    for engine in (ENGINE, ENGINE.for_plan("pro")):
        assert (engine.default_plan, engine.signup_bonus_micro) == ("free", 50_000_000)
        assert engine.plan("free").name == "Free"
        assert set(engine.document.plans) == {"free", "pro", "base", "dated"}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (None, ""),
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-11-20", "gpt-4o"),
        ("gpt-4o-latest", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("claude-sonnet@20250514", "claude-sonnet"),
        # the document's entry counts before a plan's
        ("claude-sonnet-2024-06", "claude-sonnet"),
        # priced by a plan's entry, a plan's wildcard, by the default only
        ("mistral-2407", "mistral"),
        ("claude-opus-2024-06", "claude-opus-2024-06"),
        ("gpt-5-latest", "gpt-5-latest"),
        ("_default", "_default"),
    ],
)
def test_cap_model(model: str | None, name: str) -> None:
    """Caps count a model under its own price entry, whichever plan an account has; otherwise under its own name."""
    for plan in ("", "pro", "dated"):
        assert ENGINE.for_plan(plan).cap_model(model) == name
    if model is not None:
        assert ENGINE.document.cap_model(model) == name


@pytest.mark.parametrize("model", ["", "x" * 129, "a\nb"])
def test_cap_model_of_no_name(model: str) -> None:
    """What cannot name a model is refused."""
    with pytest.raises(InvalidIdError):
        ENGINE.cap_model(model)


@given(
    st.dictionaries(st.sampled_from(["a", "a-2024-01-01", "b", "a*", "b*"]), st.integers(1, 9), min_size=1),
    st.sampled_from(["a", "b", "a-latest", "a-2024-01-01", "b-x", "c"]),
)
def test_plan_price_is_the_override_or_the_documents(overrides: dict[str, int], model: str) -> None:
    """Whatever the overrides: with none that names the model the plan pays the document's price, else an override's."""
    document = {"models": {"a": 100, "b": 200, "_default": 300}}
    plain = PricingEngine.from_dict(document)
    engine = PricingEngine.from_dict({**document, "plans": {"p": {"rate_overrides": overrides}}})
    named = any(
        model == entry
        or (entry == "a" and model.startswith("a"))
        or (entry.endswith("*") and model.startswith(entry[0]))
        for entry in overrides
    )
    price = engine.for_plan("p").total(UsageMetrics(model=model))
    assert price < 10 if named else price == plain.total(UsageMetrics(model=model))
