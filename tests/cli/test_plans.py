"""`ducto plan`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Ducto

pytestmark = pytest.mark.usefixtures("engine")

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01"},
    "plans": {
        "free": {
            "name": "Free",
            "free_allowance": 100,
            "features": {"seats": 3, "sso": True, "gb": 2.5, "tier": "gold"},
        },
        "pro": {"name": "Pro", "free_allowance": 500, "time_zone": "Europe/Berlin"},
    },
}


@pytest.fixture(autouse=True)
def _published(ducto: Ducto, engine: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(DOCUMENT))
    assert ducto("pricing", "set", str(file)).exit_code == 0


def test_set_show_remove(ducto: Ducto) -> None:
    """A plan that is set is shown with its allowance and features, until it is removed."""
    assert ducto("plan", "show", "u1").stdout == "u1 has no plan\n"
    assert ducto("plan", "set", "u1", "free").stdout == "u1 is on plan free\n"
    assert ducto("plan", "set", "u1", "free").stdout == "u1 was on plan free already\n"
    shown = ducto("plan", "show", "u1").stdout
    first, titles, row, *features = shown.splitlines()
    assert first.startswith("u1 is on plan free (Free) since 20")
    assert first.endswith("Z, UTC")
    assert titles.split() == ["period", "until", "limit", "rolled", "over", "used", "held", "remaining"]
    assert row.split()[-5:] == ["100", "0", "0", "0", "100"]
    assert sorted(features) == ["gb: 2.5", "seats: 3", "sso: true", 'tier: "gold"']
    assert ducto("plan", "remove", "u1").stdout == "u1 has no plan any more\n"
    assert ducto("plan", "remove", "u1").stdout == "u1 had no plan\n"


def test_json(ducto: Ducto) -> None:
    """With --json, the same as JSON."""
    changed = json.loads(ducto("plan", "set", "u1", "pro", "--json").stdout)
    assert (changed["account"], changed["replayed"]) == ("u1", False)
    shown = json.loads(ducto("plan", "show", "u1", "--json").stdout)
    assert (shown["plan"]["plan"], shown["plan"]["time_zone"]) == ("pro", "Europe/Berlin")
    assert shown["allowance"]["remaining"] == "500.000000"
    assert json.loads(ducto("plan", "show", "nobody", "--json").stdout)["plan"] is None
    assert not json.loads(ducto("plan", "remove", "u1", "--json").stdout)["replayed"]


def test_time_zone(ducto: Ducto) -> None:
    """The account's own time zone wins over the plan's; one that is none is refused."""
    ducto("plan", "set", "u1", "pro", "--time-zone", "Asia/Tokyo")
    assert "Asia/Tokyo" in ducto("plan", "show", "u1").stdout
    refused = ducto("plan", "set", "u1", "pro", "--time-zone", "Mars/Olympus")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


def test_unknown_plan(ducto: Ducto) -> None:
    """The error is one line that says which plans there are."""
    refused = ducto("plan", "set", "u1", "gold")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "no plan 'gold'; it has 'free', 'pro'" in refused.stderr
