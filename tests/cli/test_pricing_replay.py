"""`ducto pricing replay`."""

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ducto_redis.cli.times import parse_time
from ducto_redis.errors import ConfigError
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "new.yaml"
    path.write_text('models: {a: "input_tokens * 3"}')
    return str(path)


@pytest.fixture
def charged(engine: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charges of two accounts, all of them in a ledger that the environment names."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("DUCTO_LEDGER_URL", url)
    ledger = Ledger.from_url(url)
    ledger.migrate()
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.publish_pricing({"models": {"a": "input_tokens * 2", "b": "1"}})
        for account in ("u1", "u2"):
            manager.add_credits(account, 100)
            manager.deduct(account, UsageMetrics(model="a", input_tokens=5 if account == "u1" else 1))
        manager.deduct("u1", UsageMetrics(model="b"))
        manager.deduct("u1", "0.5")
    LedgerWorker(store_from_url(engine, namespace=namespace, blocking=True), ledger).run_until_idle()
    ledger.close()


@pytest.mark.usefixtures("charged")
def test_for_people(ducto: Ducto, file: str) -> None:
    """What it cost and would have cost stands by model and account; what could not be replayed is said."""
    shown = ducto("pricing", "replay", file).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "cost then 13 credits (13 charged)" in lines
    assert "would cost 18 credits" in lines
    assert "difference +6 (+50.00 %)" in lines
    assert "a 2 12 18 +6 +50.00" in lines
    assert "b 1 1 0 0 1" in lines
    assert "u1 2 11 15 +5 +50.00 1" in lines
    assert any(line.startswith("no price: 1 charge, 1 credits then") and "'b'" in line for line in lines)
    assert "not replayed: 1 charge of 0.5 credits that the application named itself" in lines


@pytest.mark.usefixtures("charged")
def test_for_programs(ducto: Ducto, file: str) -> None:
    """--json and --csv hold exact decimals, and every row."""
    result = json.loads(ducto("pricing", "replay", file, "--since", "1h", "--json").stdout)
    assert (result["document"], result["total"]["replayed"]) == (file, "18.000000")
    rows = list(csv.DictReader(io.StringIO(ducto("pricing", "replay", file, "--csv").stdout)))
    assert [(row["group"], row["name"], row["difference"]) for row in rows] == [
        ("total", "", "6.000000"),
        ("model", "a", "6.000000"),
        ("model", "b", "0.000000"),
        ("account", "u1", "5.000000"),
        ("account", "u2", "1.000000"),
    ]
    assert ducto("pricing", "replay", file, "--json", "--csv").exit_code == 1


def test_csv_calculates_nothing(ducto: Ducto, engine: str, file: str, charged: None, namespace: str) -> None:
    """Whoever names an account or a model does not get a formula into the spreadsheet of who reads it."""
    url = os.environ["DUCTO_LEDGER_URL"]
    with CreditManager.from_url(engine, namespace=namespace) as manager, Ledger.from_url(url) as ledger:
        manager.publish_pricing({"models": {"_default": 1}})
        manager.add_credits("=1+1", 5)
        manager.deduct("=1+1", UsageMetrics(model="@SUM(A1)", input_tokens=1))
        LedgerWorker(store_from_url(engine, namespace=namespace, blocking=True), ledger).run_until_idle()
    rows = list(csv.DictReader(io.StringIO(ducto("pricing", "replay", file, "--csv").stdout)))
    assert {"'=1+1", "'@SUM(A1)"} <= {row["name"] for row in rows}
    assert [row["difference"] for row in rows if row["name"] == "b"] == ["0.000000"]


@pytest.mark.usefixtures("charged")
def test_a_published_version_can_be_replayed(ducto: Ducto) -> None:
    """A version's number in place of a file replays that version: by the one it was charged under, nothing changes."""
    result = json.loads(ducto("pricing", "replay", "1", "--json").stdout)
    assert (result["total"]["difference"], result["total"]["charges"]) == ("0.000000", 3)
    assert ducto("pricing", "replay", "1", "--until", "1d").exit_code == 0
    assert ducto("pricing", "replay", "1", "--since", "soon").exit_code == 1


@pytest.mark.usefixtures("engine")
def test_without_a_ledger(ducto: Ducto, file: str) -> None:
    """Without a ledger it is an error of one line."""
    ducto("credits", "add", "u1", "1")
    result = ducto("pricing", "replay", file)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("4w", NOW - timedelta(weeks=4)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:00+01:00", datetime(2026, 1, 31, 7, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    """A time is so long ago, or a date in UTC, or a date and time with its own zone."""
    assert parse_time(text, "--since", NOW) == time


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 d", "2026-02-30", "999999w", "7 days"])
def test_what_is_no_time(text: str) -> None:
    """Anything else is refused, with the option's name and examples."""
    with pytest.raises(ConfigError, match=r"--since .* 7d"):
        parse_time(text, "--since", NOW)
