"""`ducto analytics`, over a ledger file."""

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from ducto_redis import CreditManager
from ducto_redis.cli.exporting import csv_cell
from ducto_redis.ledger import Ledger
from tests.cli.conftest import Ducto
from tests.ledger.entries import Account, Journal, cause_of

NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)


@pytest.fixture(autouse=True)
def ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a ledger with a few charges, of two days ago and of an hour ago."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("DUCTO_LEDGER_URL", url)
    journal = Journal()
    journal.move_to(milliseconds_of(NOW - timedelta(days=2)))
    customer, formula = Account(journal, "u1"), Account(journal, "=cmd|' /C calc'!A0")
    raw = [customer.add(50_000_000, credits_type="purchase")]
    raw.append(
        customer.deduct(1_234_567, cause=cause_of({"model": "gpt", "input_tokens": 12, "measures": {"pages": 0.5}}))
    )
    journal.move_to(milliseconds_of(NOW - timedelta(hours=1)))
    raw += [customer.deduct(3_000_000, member="ann"), formula.add(9), formula.deduct(5)]
    with Ledger.from_url(url) as ledger:
        ledger.migrate()
        ledger.write("ducto", 0, raw)


def milliseconds_of(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def rows_of(ducto: Ducto, *arguments: str) -> list[dict[str, str]]:
    result = ducto("analytics", *arguments, "--format", "csv")
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_who_spent_what(ducto: Ducto) -> None:
    """A table with bars for people."""
    lines = ducto("analytics", "spend").stdout.splitlines()
    assert lines[0].split() == ["account", "charges", "charged", "allowance", "refunded", "net", "shortfall"]
    assert lines[1].split()[:3] == ["u1", "2", "4.234567"]
    assert lines[1].count("█") + lines[1].count("#") == 24
    assert lines[2].count("█") + lines[2].count("#") == 1


def test_csv_is_exact_and_calculates_nothing(ducto: Ducto) -> None:
    """All six places, and no cell that a spreadsheet would take for a formula."""
    first, second = rows_of(ducto, "spend")
    assert (first["account"], first["charged"]) == ("u1", "4.234567")
    assert second["account"] == "'=cmd|' /C calc'!A0"
    assert second["charged"] == "0.000005"
    for text in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1"):  # noqa: RUF001
        assert csv_cell(text) == f"'{text}"
    assert csv_cell(Decimal("-1.000000")) == "-1.000000"
    assert (csv_cell(None), csv_cell(-5), csv_cell("u-1")) == ("", "-5", "u-1")


def test_json_is_exact(ducto: Ducto) -> None:
    """Credits are decimal strings."""
    found = json.loads(ducto("analytics", "top", "--limit", "1", "--format", "json").stdout)
    assert found == [
        {
            "account": "u1",
            "charges": 2,
            "charged": "4.234567",
            "allowance": "0.000000",
            "refunded": "0.000000",
            "net": "4.234567",
            "shortfall": "0.000000",
        }
    ]
    stats = json.loads(ducto("analytics", "stats", "--format", "json").stdout)
    assert (stats["charged"], stats["added"]) == ("4.234572", {"": "0.000009", "purchase": "50.000000"})


def test_a_time(ducto: Ducto) -> None:
    """So long ago, or a date, read in the zone that was named."""
    assert [row["charged"] for row in rows_of(ducto, "spend", "--since", "1d")] == ["3.000000", "0.000005"]
    assert [row["charged"] for row in rows_of(ducto, "spend", "--until", "1d")] == ["1.234567"]
    day = (NOW - timedelta(days=2)).astimezone(UTC)
    rows = rows_of(ducto, "daily", "--until", f"{day + timedelta(days=1):%Y-%m-%d}", "--account", "u1")
    assert rows == [{**rows[0], "day": f"{day:%Y-%m-%d}", "charged": "1.234567"}]
    assert len(rows_of(ducto, "daily", "--time-zone", "Asia/Kolkata")) == 2
    assert ducto("analytics", "daily", "--time-zone", "Mars").exit_code == 1
    assert "--since" in ducto("analytics", "spend", "--since", "yesterday").stderr


def test_models_members_and_usage(ducto: Ducto) -> None:
    """What has no name is an empty cell."""
    assert {row["model"]: row["charged"] for row in rows_of(ducto, "models")} == {"gpt": "1.234567", "": "3.000005"}
    assert [row["member"] for row in rows_of(ducto, "members", "u1")] == ["ann", ""]
    assert rows_of(ducto, "usage", "input_tokens") == [{"model": "gpt", "input_tokens": "12"}]
    assert rows_of(ducto, "usage", "pages", "--by", "account") == [{"account": "u1", "pages": "0.500000"}]
    assert ducto("analytics", "usage", "pages", "--by", "planet").exit_code == 2


def test_what_is_unknown_is_refused(ducto: Ducto) -> None:
    """With what there is, in one line: an empty table would look like an answer."""
    for arguments, said in (
        (("usage", "input_token"), "did you mean 'input_tokens'"),
        (("members", "=cmd|' /C calc'!A0"), "an account without members"),
        (("members", "beta"), "nothing ever happened"),
        (("transactions", "u1", "--operation", "deducts"), "did you mean 'deduct'"),
        (("transactions", "u1", "--cursor", "x"), "cursor"),
        (("spend", "--since", "yesterday"), "--since"),
        (("daily", "--time-zone", "Berlin"), "did you mean 'Europe/Berlin'"),
    ):
        result = ducto("analytics", *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_engine_knows_more_than_the_ledger(ducto: Ducto, engine: str) -> None:
    """A team that spent nothing yet, and a measure of the document that nobody used yet."""
    with CreditManager.from_url(engine, namespace=os.environ["DUCTO_NAMESPACE"]) as manager:
        manager.publish_pricing({"models": {"m": 1}, "measures": ["gpu_seconds"]})
        manager.create_team("acme", owner="ann")
    for arguments in (("members", "acme"), ("usage", "gpu_seconds")):
        assert rows_of(ducto, *arguments) == []
    assert "did you mean 'gpu_seconds'" in ducto("analytics", "usage", "gpu_second").stderr
    assert "no team 'beta'" in ducto("analytics", "members", "beta").stderr


def test_transactions_by_pages(ducto: Ducto) -> None:
    """Where there is more, stderr says how to go on; JSON has the cursor."""
    result = ducto("analytics", "transactions", "u1", "--limit", "2", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["operation"] for row in rows] == ["deduct", "deduct"]
    assert [row["balance_change"] for row in rows] == ["-3.000000", "-1.234567"]
    cursor = result.stderr.split()[-1]
    page = json.loads(ducto("analytics", "transactions", "u1", "--cursor", cursor, "--format", "json").stdout)
    assert [it["operation"] for it in page["transactions"]] == ["add_credits"]
    assert page["cursor"] is None
    only = rows_of(ducto, "transactions", "u1", "--operation", "add_credits", "--type", "purchase")
    assert [row["amount"] for row in only] == ["50.000000"]
    assert "add_credits" in ducto("analytics", "transactions", "u1").stdout


def test_anomalies(ducto: Ducto) -> None:
    """None is said for people, and is nothing for programs."""
    assert ducto("analytics", "anomalies").stdout == "nothing unusual\n"
    assert ducto("analytics", "anomalies", "--format", "json").stdout.split() == ["[]"]
    assert ducto("analytics", "anomalies", "--threshold", "0").exit_code == 1


def test_without_a_ledger(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.delenv("DUCTO_LEDGER_URL")
    result = ducto("analytics", "spend")
    assert (result.exit_code, "DUCTO_LEDGER_URL" in result.stderr) == (1, True)
