"""`ducto team`."""

import json

import pytest

from ducto_redis import CreditManager
from tests.cli.conftest import Ducto

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def _namespace(ducto: Ducto, engine: str) -> None:
    assert ducto("credits", "add", "u1", "1").exit_code == 0


def test_create_and_show(ducto: Ducto, engine: str, namespace: str) -> None:
    """A team is shown with its pool and members."""
    created = ducto("team", "create", "acme", "--name", "Acme Inc.", "--owner", "ana", "--credits", "500")
    assert created.stdout == "acme is a team (Acme Inc.): balance 500\n"
    added = ducto("team", "add", "acme", "bob", "--role", "admin", "--spend-cap", "50")
    assert added.stdout == "bob is admin of acme, with spend caps: 50 per month\n"
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.deduct_team("acme", "bob", 12)
    first, titles, *rows = ducto("team", "show", "acme").stdout.splitlines()
    assert first == "acme (Acme Inc.): balance 488, held 0, available 488"
    assert titles.split() == ["member", "role", "joined", "spent", "caps"]
    assert {tuple(row.split()[:2]) for row in rows} == {("ana", "owner"), ("bob", "admin")}
    assert any(row.endswith("12  50 per month") for row in rows)
    shown = json.loads(ducto("team", "show", "acme", "--json").stdout)
    assert {member["user"]: member["spent"] for member in shown["members"]} == {"ana": "0.000000", "bob": "12.000000"}


def test_members_come_and_go(ducto: Ducto) -> None:
    """Roles change, members are removed, and those who were removed stay known."""
    ducto("team", "create", "acme", "--owner", "ana")
    ducto("team", "add", "acme", "bob")
    assert ducto("team", "role", "acme", "bob", "admin").stdout == "bob is admin of acme\n"
    assert ducto("team", "remove", "acme", "bob").stdout == "bob is no member of acme any more\n"
    assert "removed" in ducto("team", "show", "acme").stdout
    for arguments in (("remove", "acme", "bob"), ("role", "acme", "bob", "admin"), ("remove", "acme", "ana")):
        refused = ducto("team", *arguments)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


def test_a_key_creates_once(ducto: Ducto) -> None:
    """The same command with the same key adds the credits once; without it, the second is refused."""
    for _ in range(2):
        done = ducto("team", "create", "acme", "--credits", "5", "--key", "k", "--json")
    assert json.loads(done.stdout)["balance"] == "5.000000"
    refused = ducto("team", "create", "acme")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


def test_json(ducto: Ducto) -> None:
    """With --json, the same as JSON."""
    ducto("team", "create", "acme", "--owner", "ana")
    assert json.loads(ducto("team", "add", "acme", "bob", "--json").stdout)["role"] == "member"
    assert json.loads(ducto("team", "role", "acme", "bob", "owner", "--json").stdout)["role"] == "owner"
    assert json.loads(ducto("team", "remove", "acme", "bob", "--json").stdout)["account"] == "acme"


def test_what_is_no_team(ducto: Ducto) -> None:
    """An account that is no team is told so in one line."""
    for arguments in (("show", "u1"), ("add", "u1", "bob"), ("remove", "u1", "bob")):
        refused = ducto("team", *arguments)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
        assert "is no team" in refused.stderr
    assert ducto("team", "add", "u1", "bob", "--role", "boss").exit_code == 2
