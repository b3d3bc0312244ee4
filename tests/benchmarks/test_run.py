"""`python -m benchmarks`, end to end, with next to nothing to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from benchmarks.__main__ import main

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks in a process of their own, which starts and stops servers of its own."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


TARGETS = {
    ("throughput", "deduct", "AsyncCreditManager", 0.8, None),
    ("throughput", "reserve + settle", "AsyncCreditManager", 0.75, None),
    ("throughput", "deduct", "bare script", 0.14, None),
    ("throughput", "deduct", "CreditManager", 0.4, None),
    ("throughput", "reserve + settle", "CreditManager", 0.4, None),
    ("latency", "deduct", "AsyncCreditManager", None, 1.5),
    ("accounts", "deduct", "one hot account", 0.9, 1.1),
    ("growth", "deduct", "accounts", None, 1.15),
    ("pricing", "price", "total_micro", None, 2),
    ("memory", "memory in Redis", "idle account", None, 200),
    ("memory", "memory in Redis", "live lease", None, 250),
    ("memory", "memory in Redis", "journal entry", None, 150),
    ("memory", "memory in Redis", "idempotency record", None, 170),
    ("ledger", "ledger on SQLite", "LedgerWorker", 30_000, None),
    ("ledger", "ledger on SQLite", "LedgerWorker", 1, None),
    ("ledger", "ledger on PostgreSQL", "LedgerWorker", 30_000, None),
    ("ledger", "ledger on PostgreSQL", "LedgerWorker", 1, None),
    ("middleware", "chat, JSON, uvicorn", "metered", 0.65, None),
    ("middleware", "a streamed chunk", "metered", None, 3),
}
"""What every run is measured by: family, what the work begins with, what the contender holds, at least, at most."""


def test_a_whole_run(tmp_path: Path) -> None:
    """Every family gives its figures, of the samples that they come from; every target stands beside its figure."""
    file = tmp_path / "results" / "run.json"
    done = run("--scale", "0.005", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    shown = [(comparison, figure) for comparison in document["comparisons"] for figure in comparison["figures"]]
    for comparison, figure in shown:
        samples = comparison["samples"][figure["contender"]]
        limits = comparison["samples"].get(figure["limit"], samples)
        beyond = samples[0] - limits[0]
        kinds = {
            "value": samples[0],
            "ratio": samples[0] / limits[0],
            "difference": beyond,
            "overhead": beyond / limits[0],
        }
        assert figure["values"] == [pytest.approx(kinds[figure["kind"]], abs=1e-4)]
    families = {comparison["family"] for comparison in document["comparisons"]}
    assert families == {"pricing", "throughput", "latency", "accounts", "growth", "memory", "ledger", "middleware"}
    for family, work, contender, at_least, at_most in TARGETS:
        assert any(
            comparison["family"] == family
            and comparison["work"].startswith(work)
            and contender in figure["contender"]
            and figure.get("target") == {"at_least": at_least, "at_most": at_most}
            for comparison, figure in shown
        ), (family, work, contender)
    with_target = [figure for _, figure in shown if "target" in figure]
    lines = done.stdout.splitlines()
    assert sum(line.rstrip().endswith(" met") for line in lines[:-1]) == len(with_target)
    assert lines[-1] == f"{sum(figure['met'] for figure in with_target)} of {len(with_target)} targets met"
    assert document["server"]["appendfsync"] == "everysec"
    assert document["command"].startswith("python -m benchmarks --scale 0.005")


def test_a_server_of_ones_own(valkey_url: str, tmp_path: Path) -> None:
    """On a server that was there before, nothing is left behind, and its URL is not written down."""
    file = tmp_path / "run.json"
    done = run("latency", "--redis-url", valkey_url, "--scale", "0.005", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    with redis.Redis.from_url(valkey_url) as client:
        assert list(client.scan_iter(match="bench-*")) == []
    assert valkey_url not in file.read_text()
    assert "--redis-url ..." in json.loads(file.read_text())["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "one of pricing, throughput"),
        (["--repeat", "0"], "a number from 1"),
        (["throughput", "--redis-url", "http://127.0.0.1"], "benchmarks: one server"),
        (["pricing", "--write-docs"], "--write-docs takes a whole run"),
        (["soak", "pricing"], "soak runs alone"),
    ],
)
def test_a_run_that_cannot_be_made(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument ends with a message, and starts no server."""
    try:
        status: object = main(arguments)
    except SystemExit as error:  # argparse ends so
        status = error.code
    assert status
    assert message in capsys.readouterr().err
