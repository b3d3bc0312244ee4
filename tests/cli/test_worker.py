"""`ducto worker`, as a process."""

import json
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto, StartDucto

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.usefixtures("engine")

PATIENCE_SECONDS = 30


@pytest.fixture
def ledger_url(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("DUCTO_LEDGER_URL", url)
    return url


def url_of(worker: "subprocess.Popen[str]") -> str:
    """Where a worker that has just started serves its health; its further log is read, so that it never blocks."""
    assert worker.stderr is not None
    seen = []
    for line in worker.stderr:
        seen.append(line)
        if found := re.search(r"(http://\S+)/readyz", line):
            threading.Thread(target=worker.stderr.read, daemon=True).start()
            return found[1]
    raise AssertionError("".join(seen))


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def readiness(url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{url}/readyz")[1])
    return found


def test_writes_serves_and_stops(
    engine: str, namespace: str, ledger_url: str, start_ducto: StartDucto, ducto: Ducto
) -> None:
    """A worker migrates, writes what is journalled, answers on its three paths, and ends with 0 on SIGTERM."""
    worker = start_ducto("worker", "--migrate", "--health-port", "0")
    url = url_of(worker)
    with CreditManager.from_url(engine, ledger_url, namespace=namespace) as manager:
        manager.add_credits("u1", 10)
        manager.wait_for_ledger(timeout_seconds=PATIENCE_SECONDS)
    assert get(f"{url}/healthz") == (200, '{"running":true}')
    status, said = get(f"{url}/readyz")
    assert status == 200
    assert json.loads(said)["entries_written"] == 1
    status, said = get(f"{url}/metrics")
    assert status == 200
    assert "ducto_worker_entries_written_total 1\n" in said
    assert get(f"{url}/")[0] == 404
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_SECONDS) == 0
    verified = json.loads(ducto("ledger", "verify", "--json").stdout)
    assert (verified["entries"], verified["engine"]["lag"]) == (1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda it: it.name)
def test_stopped_under_load(
    number: signal.Signals,
    engine: str,
    namespace: str,
    ledger_url: str,
    start_ducto: StartDucto,
    ducto: Ducto,
) -> None:
    """A worker that is stopped, or killed, in the middle loses nothing, and the next one writes nothing twice."""
    entries = 1500
    options = ("--migrate", "--health-port", "0", "--batch", "20", "--claim-seconds", "1")
    worker = start_ducto("worker", *options)
    url_of(worker)
    ledger = Ledger.from_url(ledger_url)
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        for number_of_credits in range(1, entries + 1):
            manager.add_credits(f"u{number_of_credits % 7}", number_of_credits)
            if number_of_credits == entries // 2:
                worker.send_signal(number)
    status = worker.wait(PATIENCE_SECONDS)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    start_ducto("worker", *options)
    with CreditManager.from_url(engine, ledger_url, namespace=namespace) as manager:
        manager.wait_for_ledger(timeout_seconds=PATIENCE_SECONDS)
    report = ledger.verify(namespace, store=store_from_url(engine, namespace=namespace, blocking=True))
    ledger.close()
    assert report.ok
    assert (report.accounts, report.entries, report.behind) == (7, entries, 0)
    assert report.balance == sum(range(1, entries + 1)) * 10**6


@pytest.mark.usefixtures("ledger_url")
def test_refuses_a_ledger_that_was_not_migrated(ducto: Ducto) -> None:
    """Without tables a worker does not start, and says what to do."""
    result = ducto("worker")
    assert result.exit_code == 1
    assert "run `ducto ledger migrate`" in result.stderr


def test_refuses_without_a_ledger(ducto: Ducto) -> None:
    """Without DUCTO_LEDGER_URL a worker says that it needs one."""
    result = ducto("worker")
    assert result.exit_code == 1
    assert result.stderr.startswith("ducto: DUCTO_LEDGER_URL is not set")


@pytest.mark.usefixtures("ledger_url")
def test_refuses_a_port_in_use(ducto: Ducto) -> None:
    """A health port that somebody else has is one line, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = ducto("worker", "--migrate", "--quiet", "--health-port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "Address already in use" in result.stderr
    assert "--health-port" in result.stderr


def test_refuses_when_redis_was_emptied(engine: str, namespace: str, ledger_url: str, ducto: Ducto) -> None:
    """A ledger that knows the namespace beside a Redis that does not: the worker makes no fresh one."""
    ducto("ledger", "migrate")
    ledger = Ledger.from_url(ledger_url)
    with CreditManager.from_url(engine, namespace=f"{namespace}-other") as manager:
        manager.add_credits("u1", 1)
        store = manager.store
        partition = store.namespace.partition_of("u1")
        ((entry_id, fields),) = store.redis().xrange(store.namespace.journal(partition))
    ledger.write(namespace, partition, [(entry_id.decode(), fields[b"entry"])])
    ledger.close()
    result = ducto("worker", "--quiet")
    assert result.exit_code == 1
    assert "was emptied" in result.stderr
