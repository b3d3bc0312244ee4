"""`ducto cap`."""

import json

import pytest

from tests.cli.conftest import Ducto

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def _credits(ducto: Ducto, engine: str) -> None:
    assert ducto("credits", "add", "u1", "100").exit_code == 0


def cap_of(ducto: Ducto, account: str = "u1") -> dict[str, str]:
    (cap,) = json.loads(ducto("cap", "list", account, "--json").stdout)
    return dict(cap)


def test_set_list_remove(ducto: Ducto) -> None:
    """A cap that is set is listed with what it has counted, until it is removed."""
    assert ducto("cap", "list", "u1").stdout == "u1 has no spend caps\n"
    assert json.loads(ducto("cap", "list", "u1", "--json").stdout) == []
    shown = ducto("cap", "set", "u1", "10", "day", "--time-zone", "Europe/Berlin").stdout
    titles, row = (line.split() for line in shown.splitlines())
    assert titles == [
        "cap",
        "scope",
        "window",
        "action",
        "limit",
        "used",
        "held",
        "remaining",
        "ends",
        "raised",
        "until",
    ]
    assert row[1:8] == ["account", "day", "deny", "10", "0", "0", "10"]
    assert ducto("cap", "list", "u1").stdout == shown
    cap = cap_of(ducto)
    assert (cap["limit"], cap["source"], cap["time_zone"]) == ("10.000000", "own", "Europe/Berlin")
    assert ducto("cap", "remove", "u1", cap["cap_id"]).stdout == f"removed cap {cap['cap_id']} of u1\n"
    missing = ducto("cap", "remove", "u1", cap["cap_id"])
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "has no spend cap" in missing.stderr


def test_set_again_changes_the_limit(ducto: Ducto) -> None:
    """The same cap again is still one cap."""
    ducto("cap", "set", "u1", "10", "month")
    changed = json.loads(ducto("cap", "set", "u1", "20", "month", "--json").stdout)
    assert (changed["limit"], changed["cap_id"]) == ("20.000000", cap_of(ducto)["cap_id"])


def test_scopes_and_kinds(ducto: Ducto) -> None:
    """Members, models, rolling windows and warnings are caps of their own."""
    ducto("team", "create", "acme", "--owner", "ana")
    ducto("cap", "set", "acme", "1", "day", "--rolling")
    ducto("cap", "set", "acme", "2", "total", "--member", "ana", "--action", "warn")
    ducto("cap", "set", "acme", "3", "minute", "--model", "gpt-4o", "--action", "notify")
    listed = ducto("cap", "list", "acme").stdout
    assert all(part in listed for part in ("rolling day", "member/ana", "model/gpt-4o", "warn", "notify"))
    assert "member/ana" in ducto("cap", "list", "acme", "--member", "ana").stdout
    assert "model/gpt-4o" not in ducto("cap", "list", "acme", "--model", "small").stdout
    assert ducto("cap", "list", "acme", "--member", "zoe").exit_code == 1


def test_raise_and_clear(ducto: Ducto) -> None:
    """A raise names its end; it cannot be in the past."""
    ducto("cap", "set", "u1", "10", "month")
    cap_id = cap_of(ducto)["cap_id"]
    raised = ducto("cap", "raise", "u1", cap_id, "50", "--until", "2999-01-31T18:00+01:00")
    assert raised.stdout.splitlines()[1].endswith("2999-01-31 17:00:00Z")
    assert cap_of(ducto)["limit"] == "50.000000"
    past = ducto("cap", "raise", "u1", cap_id, "50", "--until", "2001-01-31")
    assert (past.exit_code, past.stderr.count("\n")) == (1, 1)
    assert ducto("cap", "raise", "u1", cap_id, "50", "--until", "soon").exit_code == 1
    cleared = json.loads(ducto("cap", "clear", "u1", cap_id, "--json").stdout)
    assert cleared["used"] == "0.000000"
    assert json.loads(ducto("cap", "raise", "u1", cap_id, "60", "--until", "2999-01-31", "--json").stdout)["limit"] == (
        "60.000000"
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("10", "fortnight"), 2),
        (("10", "day", "--action", "refuse"), 2),
        (("-1", "day"), 2),
        (("x", "day"), 1),
        (("10", "total", "--rolling"), 1),
        (("10", "day", "--time-zone", "Mars/Olympus"), 1),
        (("10", "day", "--member", "zoe"), 1),
        (("10", "day", "--member", "ana", "--model", "gpt-4o"), 1),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], status: int, ducto: Ducto) -> None:
    """What is typed wrong exits with 2, what cannot be with 1 and one line; no cap is set."""
    refused = ducto("cap", "set", "u1", *arguments)
    assert refused.exit_code == status
    assert status == 2 or refused.stderr.count("\n") == 1
    assert ducto("cap", "list", "u1").stdout == "u1 has no spend caps\n"


def test_a_row_is_a_line(ducto: Ducto) -> None:
    """However narrow the terminal, ids and times stay whole: they can be copied."""
    model = "a-model-with-a-very-long-name-" * 3
    shown = ducto("cap", "set", "u1", "10", "month", "--model", model).stdout
    titles, row = shown.splitlines()
    assert f"model/{model}" in row.split()
    assert titles.startswith("cap ")
