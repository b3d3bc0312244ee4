"""`ducto bench`."""

import json
import signal
import time
from collections.abc import Callable

import pytest
import redis

from tests.cli.conftest import Ducto, StartDucto
from tests.servers import Server


def keys_of(url: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return list(client.scan_iter("bench-*"))


def test_figures_beside_their_limits(ducto: Ducto, engine: str) -> None:
    """A family gives its figures, with targets, and leaves nothing behind."""
    result = ducto("bench", "latency", "--quick", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    figures = [figure for comparison in said["comparisons"] for figure in comparison["figures"]]
    assert all(figure["value"] > 0 for figure in figures)
    assert [figure["met"] for figure in figures if "target" in figure]
    assert said["rounds"] == 1
    assert engine not in result.stdout
    assert keys_of(engine) == []


def test_the_server_can_be_an_argument(ducto: Ducto, valkey_url: str) -> None:
    """--redis-url names the server, and the table says which targets are met."""
    result = ducto("bench", "pricing", "--quick", "--redis-url", valkey_url)
    assert result.exit_code == 0, result.output
    assert "price, two terms" in result.stdout
    assert "targets met" in result.stdout


def test_a_soak_proves_the_ledger(ducto: Ducto, engine: str) -> None:
    """A soak of seconds reports memory and latency, and that ledger and engine agree."""
    result = ducto("bench", "--soak", "0.05", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["verified"]["ok"]
    assert said["verified"]["compared"] >= 1000
    assert said["errors"] == {}
    assert set(said["drift_per_hour"]) == {"client memory", "worker memory", "server memory", "p50", "p99"}
    assert keys_of(engine) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_leaves_no_keys(
    start_ducto: StartDucto, start_valkey: Callable[..., Server], number: signal.Signals
) -> None:
    """What has been written is deleted when the run is interrupted."""
    url = start_valkey().url
    process = start_ducto("bench", "throughput", env={"DUCTO_REDIS_URL": url})
    give_up = time.monotonic() + 30
    while not keys_of(url):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(30)
    assert process.returncode == 130
    assert keys_of(url) == []


def test_a_server_that_can_evict_is_refused(ducto: Ducto, start_valkey: Callable[..., Server]) -> None:
    """Where keys can vanish, nothing is measured."""
    server = start_valkey(maxmemory_policy="allkeys-lru", maxmemory="100mb")
    result = ducto("bench", "pricing", "--redis-url", server.url)
    assert result.exit_code == 1
    assert result.stderr.startswith("ducto: maxmemory-policy is allkeys-lru")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redis-url", "redis://127.0.0.1:1/0"], "the server cannot be reached"),
        (["--redis-url", "redis://:hunter2@127.0.0.1:1/0"], "DUCTO_REDIS_URL"),
        (["--redis-url", "redis://127.0.0.1:1/0?password=hunter2"], "DUCTO_REDIS_URL"),
        (["--redis-url", "memory://"], "one server is measured"),
        (["nonsense"], "there is no 'nonsense'; there are pricing, throughput"),
        ([], "DUCTO_REDIS_URL is not set"),
    ],
)
def test_a_run_that_cannot_be_made(ducto: Ducto, arguments: list[str], message: str) -> None:
    """A wrong server or family is told in one line, which repeats no password."""
    result = ducto("bench", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "hunter2" not in result.output
    assert len(result.stderr.splitlines()) == 1


def test_a_soak_takes_no_family(ducto: Ducto, engine: str) -> None:
    """The soak's load is its own."""
    result = ducto("bench", "pricing", "--soak", "1")
    assert result.exit_code == 1
    assert "no family" in result.stderr
