"""`ducto pricing import` and `ducto pricing coverage`."""

import json
from pathlib import Path

import pytest

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import PricingDocument
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto


def test_import_to_stdout(ducto: Ducto) -> None:
    """What is printed is a document that can be published as it is, and holds the models that were asked for."""
    printed = ducto("pricing", "import", "--markup", "1.3", "--models", "gpt-4o,o3*").stdout
    models = PricingDocument.from_yaml(printed).models
    assert "325 " in models["gpt-4o"]
    assert {name[:2] for name in models} == {"gp", "o3"}


def test_import_to_a_file(ducto: Ducto, tmp_path: Path) -> None:
    """A file is written once: one that is there already is never overwritten."""
    file = tmp_path / "prices.yaml"
    arguments = ("pricing", "import", "--models", "gpt-4o-mini*", "--output", str(file))
    told = ducto(*arguments)
    assert told.stdout.startswith(f"wrote {file}: ")
    assert ducto("pricing", "validate", str(file)).stderr == ""
    file.write_text("mine")
    again = ducto(*arguments)
    assert again.exit_code == 1
    assert again.stderr == f"ducto: {file} is there already: name a new file\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--markup", "30%"), "--markup takes a number such as 1.3, not '30%'"),
        (("--credits-per-dollar", "0"), "credits_per_dollar must be above 0, not 0"),
        (("--models", "gtp-*"), "is called gtp-*"),
        (("--providers", "opnai"), "the list has no provider 'opnai'; did you mean 'openai'?"),
    ],
)
def test_wrong_imports(ducto: Ducto, arguments: tuple[str, ...], message: str) -> None:
    """What is wrong is one line."""
    result = ducto("pricing", "import", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def used(engine: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charges for three models, under a document that then lost the price of one."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("DUCTO_LEDGER_URL", url)
    ledger = Ledger.from_url(url)
    ledger.migrate()
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.publish_pricing({"models": {"gpt-4o": "2", "mine": "3", "o3": "1"}})
        manager.add_credits("u1", 100)
        for model in ("gpt-4o", "gpt-4o", "o3", "mine"):
            manager.deduct("u1", UsageMetrics(model=model))
        manager.publish_pricing({"models": {"gpt-4o": "2"}})
    LedgerWorker(store_from_url(engine, namespace=namespace, blocking=True), ledger).run_until_idle()
    ledger.close()


@pytest.mark.usefixtures("used")
def test_coverage(ducto: Ducto, tmp_path: Path) -> None:
    """Models without a price come first, and are exit status 1; what the price of all others covers is told apart."""
    told = ducto("pricing", "coverage")
    assert told.exit_code == 1
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert {"o3 1 1 no price openai", "mine 1 3 no price", "gpt-4o 2 4 gpt-4o openai"} <= set(lines)
    assert lines[3].startswith("gpt-4o")
    assert "version 2 (active): 3 models in the ledger, 2 without a price, 0 priced by _default" in lines
    assert lines[-1] == "list prices: ducto pricing import --models 'o3'"
    file = tmp_path / "all.yaml"
    file.write_text('models: {gpt-4o: "2", _default: "1"}')
    covered = ducto("pricing", "coverage", str(file), "--json")
    assert covered.exit_code == 0
    result = json.loads(covered.stdout)
    assert result["unpriced"] == 0
    assert {row["model"]: row["by_default"] for row in result["models"]} == {"gpt-4o": False, "mine": True, "o3": True}


@pytest.mark.usefixtures("used")
def test_coverage_of_a_time_without_charges(ducto: Ducto) -> None:
    """Where nothing was charged, that is said."""
    assert ducto("pricing", "coverage", "--since", "2999-01-01").stdout == "no model was charged in that time\n"
