"""`python -m benchmarks`, end to end, with next to nothing to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks in a process of their own, which starts and stops servers of its own."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def figures_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [figure for comparison in document["comparisons"] for figure in comparison["figures"]]


def test_a_whole_run(tmp_path: Path) -> None:
    """Every family gives its figures: ratios to a limit of the same round, with the samples that they come from."""
    file = tmp_path / "results" / "run.json"
    done = run("--scale", "0.005", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    families = {comparison["family"] for comparison in document["comparisons"]}
    assert families == {"pricing", "throughput", "latency", "ledger", "middleware"}
    for comparison in document["comparisons"]:
        for figure in comparison["figures"]:
            samples = zip(
                comparison["samples"][figure["contender"]], comparison["samples"][figure["limit"]], strict=True
            )
            assert figure["ratios"] == [pytest.approx(sample / limit, abs=1e-4) for sample, limit in samples]
            assert len(figure["ratios"]) == 1
    assert len(done.stdout.splitlines()) > len(figures_of(document))
    assert document["server"]["appendfsync"] == "everysec"
    assert document["command"].startswith("python -m benchmarks --scale 0.005")


def test_a_server_of_ones_own(valkey_url: str, tmp_path: Path) -> None:
    """On a server that was there before, nothing is left behind, and its URL is not written down."""
    file = tmp_path / "run.json"
    done = run("throughput", "--redis-url", valkey_url, "--scale", "0.005", "--repeat", "1", "--json", str(file))
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
        (["throughput", "--redis-url", "http://127.0.0.1"], "benchmarks: "),
    ],
)
def test_a_run_that_cannot_be_made(arguments: list[str], message: str) -> None:
    """A wrong argument ends with a message and no traceback."""
    done = run(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
