"""Fixtures for tests of the command line: commands run in this process, and as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from typer.testing import CliRunner, Result

from ducto_redis.cli.application import app

Ducto = Callable[..., Result]
StartDucto = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the engine of whoever runs it; help is not wrapped or coloured."""
    for name in [name for name in os.environ if name.startswith("DUCTO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def ducto() -> Ducto:
    """Runs a command in this process: `ducto("balance", "u1")`. What is no failure of ours is raised."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, prog_name="ducto")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def engine(valkey_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names a real Valkey, and a namespace of this test's own. Returns the URL."""
    monkeypatch.setenv("DUCTO_REDIS_URL", valkey_url)
    monkeypatch.setenv("DUCTO_NAMESPACE", namespace)
    return valkey_url


@pytest.fixture
def start_ducto() -> Iterator[StartDucto]:
    """Starts a command as a process of its own: `start_ducto("worker")`. It is killed when the test ends."""
    with ExitStack() as stack:

        def start(*arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-m", "ducto_redis", *arguments],
                env={**os.environ, "COLUMNS": "80", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start
