"""Pricing documents made up by hypothesis."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.one_of(
    st.sampled_from(
        [
            "gpt-4o",
            "yes",
            "null",
            "~",
            "1.0",
            "true",
            "<<",
            "=",
            "- a",
            "a: b #",
            "'",
            '"',
            "\\",
            "é😀",
            "\u2028",
            "y",
            "0b1",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12).filter(
        lambda name: "*" not in name and len(name.encode()) <= 128
    ),
)
NUMBERS = st.one_of(st.integers(0, 10**9), st.decimals(0, 10**6, places=6))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
FORMULAS = st.builds(
    lambda one, other, text: (
        f'input_tokens * {one} + output_tokens / {other + 1} - (1 if model == "{text}" else requests)'
    ),
    NUMBERS,
    st.integers(0, 1000),
    st.sampled_from(["it's #1: - ~", "a, b", "{x}", "é"]),
)
FEATURES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A pricing document, as plain Python values."""
    models = draw(st.dictionaries(NAMES, FORMULAS, min_size=1, max_size=4))
    plan_ids = draw(st.lists(NAMES, max_size=2, unique=True))
    document: dict[str, Any] = {
        "version": draw(st.integers(1, 10**6)),
        "models": models,
        "tools": draw(st.dictionaries(NAMES, FORMULAS, max_size=2)),
        "fixed": draw(st.dictionaries(NAMES, NUMBERS, max_size=3)),
        "min_balance": draw(NUMBERS),
        "signup_bonus": draw(NUMBERS),
        "plans": {plan_id: _plan(draw, models) for plan_id in plan_ids},
    }
    if draw(st.booleans()):
        document["search"] = {"costs": draw(FORMULAS)}
        document["cache"] = {"discount": "-cache_read_tokens * 0.0005"}
    if plan_ids and draw(st.booleans()):
        document["default_plan"] = plan_ids[0]
    return document


def _plan(draw: st.DrawFn, models: dict[str, str]) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "name": draw(TEXTS.filter(bool)),
        "free_allowance": draw(NUMBERS),
        "period": draw(st.sampled_from(["day", "week", "month"])),
        "anchor": draw(st.sampled_from(["calendar", "assignment"])),
        "time_zone": draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"])),
        "rate_overrides": draw(st.dictionaries(st.sampled_from(sorted(models)), FORMULAS, max_size=2)),
        "features": draw(st.dictionaries(NAMES, FEATURES, max_size=3)),
        "max_concurrent": draw(st.one_of(st.none(), st.integers(1, 100))),
        "spend_caps": [
            {"window": window, "limit": draw(NUMBERS), "action": draw(st.sampled_from(["deny", "warn", "notify"]))}
            for window in draw(st.lists(st.sampled_from(["minute", "day", "month"]), max_size=2, unique=True))
        ],
    }
    if draw(st.booleans()):
        plan["per_operation"] = {draw(NAMES): {"billing_mode": "overdraft", "overdraft_floor": -draw(NUMBERS)}}
    return plan
