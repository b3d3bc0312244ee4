"""`ducto leases list` and `ducto leases release`."""

import json

import pytest

from ducto_redis.manager import CreditManager
from tests.cli.conftest import Ducto


@pytest.fixture
def held(engine: str, namespace: str) -> str:
    """Account u1 has 10 credits, 4 of which a lease holds. Returns the lease's id."""
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.add_credits("u1", 10)
        return manager.reserve("u1", 4, operation_type="render").lease_id


def test_list(held: str, ducto: Ducto) -> None:
    """Open leases are listed with what they hold and for what."""
    text = ducto("leases", "list", "u1").stdout
    assert held in text
    assert "render" in text
    (lease,) = json.loads(ducto("leases", "list", "u1", "--json").stdout)
    assert (lease["lease_id"], lease["amount"], lease["operation_type"]) == (held, "4.000000", "render")


def test_release(held: str, ducto: Ducto) -> None:
    """A lease that is released holds nothing any more; releasing it again changes nothing."""
    assert ducto("leases", "release", "u1", held).stdout == "released 4 credits: u1 has 10 available\n"
    assert "it was done before" in ducto("leases", "release", "u1", held).stdout
    assert ducto("leases", "list", "u1").stdout == "u1 has no open leases\n"
    assert ducto("leases", "list", "u1", "--json").stdout == "[]\n"


@pytest.mark.usefixtures("held")
def test_release_unknown_lease(ducto: Ducto) -> None:
    """A lease that never was is an error."""
    result = ducto("leases", "release", "u1", "no-such-lease")
    assert result.exit_code == 1
    assert "has no lease 'no-such-lease'" in result.stderr
