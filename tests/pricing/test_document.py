"""Documents are read exactly, and refused with the path of the mistake."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.errors import ConfigError, ExpressionError
from ducto_redis.pricing import OperationLimits, PricingDocument, SpendCap

YAML = """
version: 1
measures: [gpu_seconds, pages]
models:
  gpt-4o: "uncached_input_tokens * 0.0025 + cache_read_tokens * 0.00125 + output_tokens * 0.01"
  render: "gpu_seconds * 0.4"
  flat: 0.10
  _default: "input_tokens * (0.01 / 1000) + output_tokens * (0.03 / 1000)"
tools:
  web_search: "tool_calls * 10"
  _default: "tool_calls * 0.5"
search: {costs: "search_queries * 0.5 + search_results * 0.05"}
cache: {discount: "-cache_read_tokens * 0.0005"}
fixed: {daily_report: 10, embed_batch: 2.5}
min_balance: 0
signup_bonus: 50
default_plan: free
plans:
  free: {id: free, name: Free, free_allowance: 50000, max_concurrent: 1, features: {chat: true}}
  pro:
    id: pro
    name: Pro
    free_allowance: 500000
    period: week
    anchor: assignment
    time_zone: Europe/Berlin
    rollover: 1000.5
    rate_overrides: {gpt-4o: "input_tokens * 0.002 + output_tokens * 0.008"}
    features: {chat: true, agentic: true, context: 200000, share: 0.5, none: null, tags: [a, {b: ""}]}
    default_billing_mode: strict
    max_concurrent: 4
    per_operation: {agent: {billing_mode: overdraft, overdraft_floor: -30, max_concurrent: 1}}
    spend_caps:
      - {window: day, limit: 100, action: warn, rolling: true}
      - {window: total, limit: 0.000001, model: gpt-4o}
      - {window: month, limit: 5, scope: member, action: notify, time_zone: Asia/Kolkata}
"""


_NEEDS = "it needs at least one of models, tools, search and fixed"


def minimal(**more: object) -> dict[str, object]:
    return {"models": {"m": "input_tokens"}, **more}


def test_the_whole() -> None:
    """Every section is read, with exact numbers."""
    document = PricingDocument.from_yaml(YAML)
    assert document.measures == ("gpu_seconds", "pages")
    assert document.models["flat"] == "0.10"
    assert document.search == "search_queries * 0.5 + search_results * 0.05"
    assert document.cache_discount == "-cache_read_tokens * 0.0005"
    assert document.fixed == {"daily_report": Decimal(10), "embed_batch": Decimal("2.5")}
    assert document.signup_bonus == 50
    assert document.default_plan == "free"
    pro = document.plans["pro"]
    assert (pro.period, pro.anchor, pro.time_zone, pro.rollover) == (
        "week",
        "assignment",
        "Europe/Berlin",
        Decimal("1000.5"),
    )
    assert pro.features["share"] == Decimal("0.5")
    assert pro.features["tags"] == ["a", {"b": ""}]
    assert pro.per_operation == {
        "agent": OperationLimits(billing_mode="overdraft", overdraft_floor=Decimal(-30), max_concurrent=1)
    }
    assert pro.spend_caps == (
        SpendCap(window="day", limit=Decimal(100), action="warn", rolling=True),
        SpendCap(window="total", limit=Decimal("0.000001"), model="gpt-4o"),
        SpendCap(window="month", limit=Decimal(5), scope="member", action="notify", time_zone="Asia/Kolkata"),
    )


def test_json_round_trip() -> None:
    """A document's JSON is ASCII without control characters, and reads back as the same document and text."""
    document = PricingDocument.from_yaml(YAML)
    text = document.to_json()
    assert text.isascii()
    assert text.isprintable()
    again = PricingDocument.from_json(text)
    assert again == document
    assert again.to_json() == text
    assert PricingDocument.from_json(text.encode()) == document
    assert PricingDocument.from_dict(json.loads(text)) == document


_NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
_AMOUNTS = st.decimals(0, 10**9, places=6).map(str)


@given(
    names=st.lists(_NAMES, min_size=1, max_size=4, unique=True),
    amount=_AMOUNTS,
    label=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    feature=st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.decimals(-1000, 1000, places=3),
)
@settings(max_examples=60, deadline=None)
def test_any_document_round_trips(names: list[str], amount: str, label: str, feature: object) -> None:
    """Whatever names, amounts and features: what `to_json` writes reads back as the same."""
    document = PricingDocument.from_dict(
        {
            "models": {name.replace("*", "x"): "1 +\n\tinput_tokens * 1e-3" for name in names},
            "fixed": {name: Decimal(amount) for name in names},
            "plans": {name: {"name": label, "features": {name: feature}} for name in names},
        }
    )
    text = document.to_json()
    assert text.isprintable()
    assert PricingDocument.from_json(text) == document


def test_floats_count_as_they_print() -> None:
    """A float in a dict is its shortest representation."""
    document = PricingDocument.from_dict(minimal(fixed={"a": 0.1, "b": 2.5e-05}, models={"m": 0.1}))
    assert document.fixed == {"a": Decimal("0.1"), "b": Decimal("0.000025")}
    assert document.models == {"m": "0.1"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": {}}, "model: unknown key; did you mean 'models'?"),
        ({"zzz": 1}, "zzz: unknown key; there are"),
        ({"version": 0}, "version: must be a whole number, 1 or more"),
        ({"version": "1"}, "version: must be a number, not a text"),
        ({"models": []}, "models: must be an object, not a list"),
        ({"models": {"m": None}}, "models.m: must be a formula, not nothing"),
        ({"models": {"m": True}}, "models.m: must be a formula, not true or false"),
        ({"models": {"": "1"}}, "models: the name of a key has 1 to 128 bytes"),
        ({"models": {"é" * 65: "1"}}, "models: the name of a key has 1 to 128 bytes, not 130"),
        ({"models": {"a\nb": "1"}}, "models: the name of a key has no control characters"),
        ({"models": {1: "1"}}, "models: has the key 1; keys must be texts"),
        ({"models": {"*": "1"}}, "models.*: for all other models write _default"),
        ({"models": {"a*b": "1"}}, "models.a*b: the * stands only at the end"),
        ({"models": {"m": float("nan")}}, "models.m: 'nan' is not a decimal number"),
        ({"measures": "pages"}, "measures: must be a list, not a text"),
        ({"measures": ["a b"]}, "measures[0]: a measure is named by"),
        ({"measures": ["min"]}, "measures[0]: 'min' is a word of the grammar"),
        ({"measures": ["lambda"]}, "measures[0]: 'lambda' is a word of the grammar"),
        ({"measures": ["while"]}, "measures[0]: 'while' is a word of the grammar"),
        ({"measures": ["model"]}, "measures[0]: 'model' is a built-in measure"),
        ({"measures": ["pages", "pages"]}, "measures[1]: 'pages' is listed twice"),
        ({"measures": [5]}, "measures[0]: must be a name, not a number"),
        ({"tools": {"t": []}}, "tools.t: must be a formula, not a list"),
        ({"search": "1"}, "search: must be an object, not a text"),
        ({"search": {}}, "search.costs: is missing"),
        ({"search": {"cost": "1"}}, "search.cost: unknown key; did you mean 'costs'?"),
        ({"cache": {"discounts": "1"}}, "cache.discounts: unknown key; did you mean 'discount'?"),
        ({"fixed": {"j": -1}}, "fixed.j: an amount must be zero or more"),
        ({"fixed": {"j": "1"}}, "fixed.j: must be a number, not a text"),
        ({"fixed": {"j": Decimal("0.0000001")}}, "fixed.j: an amount has at most 6 decimal places"),
        ({"fixed": {"j": 10**29}}, "fixed.j: an amount must be"),
        ({"fixed": {"j": 10**5000}}, "fixed.j: a number has at most 30 digits"),
        ({"fixed": {"j": Decimal("1e99")}}, "fixed.j: a number's exponent"),
        ({"fixed": {"j": float("inf")}}, "fixed.j: 'inf' is not a decimal number"),
        ({"min_balance": -1}, "min_balance: an amount must be zero or more"),
        ({"signup_bonus": True}, "signup_bonus: must be a number, not true or false"),
        ({"default_plan": "fre", "plans": {"free": {}}}, "default_plan: there is no plan 'fre'; there are 'free'; did"),
        ({"plans": {"p": []}}, "plans.p: must be an object"),
    ],
)
def test_refused(more: dict[str, object], message: str) -> None:
    """A document that is wrong is refused with the path of the mistake."""
    with pytest.raises(ConfigError) as caught:
        PricingDocument.from_dict(minimal(**more))
    assert str(caught.value).startswith(message), str(caught.value)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"models": {"a.b c": "1 +"}}, "models.'a.b c'"),
        ({"tools": {"t": "x"}}, "tools.t"),
        ({"search": {"costs": "x"}}, "search.costs"),
        ({"cache": {"discount": "x"}}, "cache.discount"),
        ({"plans": {"p": {"rate_overrides": {"m": "x"}}}}, "plans.p.rate_overrides.m"),
    ],
)
def test_wrong_formulas(more: dict[str, object], path: str) -> None:
    """A wrong formula is refused with the path of the section that it stands in."""
    with pytest.raises(ExpressionError) as caught:
        PricingDocument.from_dict(minimal(**more))
    assert caught.value.path == path


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"version": 1}, {"models": {}}])
def test_nothing_priced(value: object) -> None:
    """What prices nothing is no document."""
    with pytest.raises(ConfigError):
        PricingDocument.from_dict(value)  # type: ignore[arg-type]


def test_from_file(tmp_path: Path) -> None:
    """A file is read by its ending."""
    (tmp_path / "a.yaml").write_text(YAML)
    document = PricingDocument.from_file(tmp_path / "a.yaml")
    (tmp_path / "a.json").write_text(document.to_json())
    assert PricingDocument.from_file(str(tmp_path / "a.json")) == document
    with pytest.raises(ConfigError, match="ends in"):
        PricingDocument.from_file(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        PricingDocument.from_file(tmp_path / "b.json")


def test_every_problem() -> None:
    """`problems` lists all mistakes with their paths; the first is the one that reading raises."""
    source = {
        "version": 0,
        "measures": ["min", "pages"],
        "models": {"m": "tokns", "n": "pages", "a*b": 1},
        "search": {"cost": 1},
        "fixed": {"job": -1, "good": 2},
        "plans": {
            "p": {
                "rate_overrides": {"m": "2", "x": "1 +"},
                "free_allowance": -1,
                "rollover": 5,
                "max_concurrent": 0,
                "spend_caps": [{"limit": 1}, {"window": "dya", "limit": -1, "model": "m"}, 5],
                "per_operation": {"agent": 5},
            },
            "q": [],
        },
        "default_plan": "q",
        "plan": {},
    }
    problems = PricingDocument.problems(source)
    assert [problem.partition(": ")[0] for problem in problems] == [
        "version",
        "measures[0]",
        "models.m",
        "models.a*b",
        "search.cost",
        "search.costs",
        "fixed.job",
        "plans.p.free_allowance",
        "plans.p.rate_overrides.x",
        "plans.p.rate_overrides.x",
        "plans.p.max_concurrent",
        "plans.p.per_operation.agent",
        "plans.p.spend_caps[0]",
        "plans.p.spend_caps[1].window",
        "plans.p.spend_caps[1].limit",
        "plans.p.spend_caps[2]",
        "plans.q",
        "plan",
    ]
    with pytest.raises(ConfigError) as caught:
        PricingDocument.from_dict(source)
    assert str(caught.value) == problems[0]


def test_no_problems(tmp_path: Path) -> None:
    """A document that is right has no problems; a file that cannot be read has one."""
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "b.json").write_text("{")
    assert PricingDocument.problems(tmp_path / "a.yaml") == []
    assert PricingDocument.problems(minimal()) == []
    assert len(PricingDocument.problems(str(tmp_path / "b.json"))) == 1
    assert PricingDocument.problems({}) == ["the pricing document prices nothing; " + _NEEDS]
    assert PricingDocument.problems([]) == ["the pricing document must be an object, not a list"]  # type: ignore[arg-type]
