"""Which entry prices a model."""

import pytest

from ducto_redis.pricing.resolution import resolve

ENTRIES = {"gpt-4o", "gpt-4", "gpt*", "gpt-4o-mini*", "claude-sonnet-4", "claude-sonnet", "o1", "o1-2024", "_default"}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-20240806", "gpt-4o"),
        ("gpt-4o-2024-08", "gpt-4o"),
        ("gpt-4o-08-2024", "gpt-4o"),
        ("gpt-4o-08-06", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-2411", "gpt-4"),
        ("gpt-4o-latest", "gpt-4o"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("claude-sonnet-4@001", "claude-sonnet-4"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        # the longer name wins
        ("o1-2024-12-17", "o1-2024"),
        ("o1-2025-12-17", "o1"),
        # no date, no version
        ("gpt-4o-2024-13-45", "gpt*"),
        ("gpt-4o-2023-02-29", "gpt*"),
        ("gpt-4-1399", "gpt*"),
        ("gpt-4-turbo", "gpt*"),
        ("gpt-4o-audio", "gpt*"),
        ("gpt-4oo", "gpt*"),
        ("claude-sonnet-4-thinking", "_default"),
        ("claude-sonnet-4@", "_default"),
        ("claude-sonnet-4@a b", "_default"),
        ("GPT-4o", "_default"),
        # the longest pattern wins, also over nothing more
        ("gpt-4o-mini", "gpt-4o-mini*"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini*"),
        # entries that are no names cannot be named
        ("_default-latest", "_default"),
        ("gpt*", "gpt*"),
        ("-latest", "_default"),
        ("-2024-08-06", "_default"),
        (None, "_default"),
    ],
)
def test_resolve(name: str | None, entry: str) -> None:
    """The exact name, else the name without date or version, else the longest pattern, else the default."""
    assert resolve(name, ENTRIES) == entry


def test_unpriced() -> None:
    """Without a default, what nothing fits has no price."""
    assert resolve("gpt-4o-mini", {"gpt-4o"}) is None
    assert resolve(None, {"gpt-4o"}) is None
