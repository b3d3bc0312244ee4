"""`ducto events`: follow events, run handlers and webhooks, look at what was given up."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ducto_redis import CreditEvent, CreditManager
from ducto_redis.errors import InsufficientCreditsError
from ducto_redis.events.signature import keys_of, verify_webhook
from ducto_redis.journal.group import Group
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto, StartDucto
from tests.delivery.test_webhook import Endpoint

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.usefixtures("engine")

PATIENCE_SECONDS = 30

MODULE = """
import os
from ducto_redis.events.handlers import Handlers

handlers = Handlers()

@handlers.on("credits.low_balance")
def low(event):
    write(event)

def every(event):
    write(event)

def broken(event):
    raise ValueError("no such customer")

def write(event):
    with open(os.environ["TOLD"], "ab") as file:
        file.write(event.to_json() + b"\\n")

nothing = 5
"""


@pytest.fixture
def manager(engine: str, namespace: str) -> Iterator[CreditManager]:
    with CreditManager.from_url(engine, namespace=namespace, low_balance_thresholds=[5]) as manager:
        manager.open()
        yield manager


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the handlers of a module `billing` in the current folder write to."""
    (tmp_path / "billing.py").write_text(MODULE)
    path = tmp_path / "told"
    monkeypatch.setenv("TOLD", str(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    # Modules that are imported in this process are this test's.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "billing", raising=False)
    return path


def events_in(path: Path) -> list[CreditEvent]:
    return [CreditEvent.from_json(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_tail_prints_what_the_journal_holds(ducto: Ducto, manager: CreditManager) -> None:
    """With --since the events that are there are printed, a line each, with credits as people write them."""
    manager.add_credits("u1", 10)
    manager.deduct("u1", "5.5", operation_type="chat")
    manager.add_credits("u2", 1)
    lines = ducto("events", "tail", "--since", "1h", "--no-follow").stdout.splitlines()
    assert len(lines) == 4
    low = next(line for line in lines if "low_balance" in line)
    assert low.split()[2:] == ["credits.low_balance", "u1", "level=5", "balance_after=4.5"]


def test_tail_filters(ducto: Ducto, manager: CreditManager) -> None:
    """--account, --type and --count choose; --json prints what a webhook would send."""
    manager.add_credits("u1", 10)
    manager.deduct("u1", 6)
    manager.add_credits("u2", 1)

    def tail(*options: str) -> list[CreditEvent]:
        printed = ducto("events", "tail", "--since", "5m", "--no-follow", "--json", *options).stdout
        return [CreditEvent.from_json(line) for line in printed.splitlines()]

    assert [event.account for event in tail("--account", "u2")] == ["u2"]
    assert [event.data.level for event in tail("--type", "credits.low_balance")] == [5]
    assert len(tail("--type", "credits.*")) == 4
    assert len(tail("--count", "2")) == 2
    since = ducto("events", "tail", "--since", "2999-01-01", "--no-follow")
    assert (since.exit_code, since.stdout) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--type", "credits.sold"), "there is no event 'credits.sold'; there are credits.added"),
        (("--since", "yesterday"), "--since is so long ago"),
    ],
)
def test_tail_refuses_what_it_does_not_know(
    ducto: Ducto, manager: CreditManager, options: tuple[str, ...], message: str
) -> None:
    """A type or a time that is none is an error, instead of a tail that stays empty."""
    result = ducto("events", "tail", "--no-follow", *options)
    assert result.exit_code == 1
    assert message in result.stderr


def test_tail_of_no_namespace_is_an_error(ducto: Ducto) -> None:
    """A mistyped namespace does not look like one in which nothing happens."""
    result = ducto("events", "tail", "--no-follow")
    assert result.exit_code == 1
    assert "there is no namespace" in result.stderr


def test_tail_follows_live(start_ducto: StartDucto, manager: CreditManager) -> None:
    """What happens while it runs is printed, refusals too; it ends after --count, or with Ctrl-C."""
    following = start_ducto("events", "tail", "--json", "--type", "credits.deduct_failed", "--count", "1")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while following.poll() is None:
        assert time.monotonic() < deadline
        # Another manager each time: one that has found nobody listening would not ask again for five seconds.
        with CreditManager(manager.store.blocking_twin()) as other, pytest.raises(InsufficientCreditsError):  # type: ignore[attr-defined]
            other.deduct("u2", 1)
        time.sleep(0.1)
    assert following.stdout is not None
    (refused,) = [CreditEvent.from_json(line) for line in following.stdout]
    assert (refused.account, refused.data.needed) == ("u2", 1)

    manager.add_credits("u1", 1)
    endless = start_ducto("events", "tail", "--since", "1h", "--account", "u1")
    assert endless.stdout is not None
    assert "credits.added" in endless.stdout.readline()
    endless.send_signal(signal.SIGINT)
    endless.stdout.read()
    assert endless.wait(PATIENCE_SECONDS) == 130


def run_until(
    start_ducto: StartDucto, arguments: tuple[str, ...], is_done: Callable[[], bool]
) -> "subprocess.Popen[str]":
    worker = start_ducto("events", "worker", "--claim-seconds", "0.5", *arguments)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done():
        if worker.poll() is not None or time.monotonic() > deadline:
            worker.kill()
            raise AssertionError(worker.communicate()[1])
        time.sleep(0.05)
    return worker


def test_a_worker_calls_the_handlers_of_a_module(start_ducto: StartDucto, manager: CreditManager, told: Path) -> None:
    """A registry gets what it asked for, a function gets everything; SIGTERM ends it after what it does."""
    manager.add_credits("u1", 10)
    manager.deduct("u1", 6)
    worker = run_until(
        start_ducto,
        ("--handlers", "billing:handlers", "--handlers", "billing:every"),
        lambda: len(events_in(told)) == 4,
    )
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=PATIENCE_SECONDS)
    assert worker.returncode == 0
    assert "stopped" in log
    assert sorted(event.type.value for event in events_in(told)) == [
        "credits.added",
        "credits.deducted",
        "credits.low_balance",
        "credits.low_balance",
    ]


def test_a_worker_that_is_killed_is_replaced(start_ducto: StartDucto, manager: CreditManager, told: Path) -> None:
    """kill -9 in the middle: the next worker takes over what is left, and nothing is missing."""
    for number in range(200):
        manager.add_credits(f"u{number}", 1)
    victim = run_until(start_ducto, ("--handlers", "billing:every"), lambda: len(events_in(told)) > 10)
    victim.kill()
    victim.wait(PATIENCE_SECONDS)
    next_one = run_until(
        start_ducto,
        ("--handlers", "billing:every"),
        lambda: {event.account for event in events_in(told)} == {f"u{number}" for number in range(200)},
    )
    next_one.kill()


def test_a_worker_sends_webhooks(
    start_ducto: StartDucto, ducto: Ducto, manager: CreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL gets the types that were asked for, signed with the secret of the environment, which no log shows."""
    secret = ducto("events", "secret").stdout.strip()
    assert len(keys_of(secret)) == 1
    monkeypatch.setenv("DUCTO_WEBHOOK_SECRET", secret)
    endpoint = Endpoint()
    try:
        manager.add_credits("u1", 10)
        manager.deduct("u1", 6)
        worker = run_until(start_ducto, ("--webhook", endpoint.url), lambda: len(endpoint.received) == 1)
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=PATIENCE_SECONDS)
    finally:
        endpoint.close()
    ((_, headers, body),) = endpoint.received
    assert verify_webhook(secret, headers, body).type == "credits.low_balance"
    assert secret.removeprefix("whsec_") not in log


def test_what_was_given_up_is_listed_and_retried(ducto: Ducto, manager: CreditManager, told: Path) -> None:
    """Dead letters are shown with their reasons, handed over again, and gone once they succeed."""
    from ducto_redis.delivery import EventWorker
    from ducto_redis.events.handlers import Handlers

    manager.add_credits("u1", 10)
    broken = Handlers()
    broken.on("*", lambda event: int("no number") and None)
    EventWorker(manager.store, broken, max_attempts=1).run_until_idle()

    listed = ducto("events", "dead-letters").stdout
    assert "ValueError: invalid literal" in listed
    assert "credits.added" in listed
    (letter,) = json.loads(ducto("events", "dead-letters", "--json").stdout)
    assert (letter["account"], letter["attempts"], letter["event_types"]) == ("u1", 1, ["credits.added"])

    failed = ducto("events", "retry", "--handlers", "billing:broken")
    assert (failed.exit_code, failed.stdout) == (1, "0 dead letters done and removed, 1 failed again\n")
    done = ducto("events", "retry", "--handlers", "billing:every")
    assert (done.exit_code, done.stdout) == (0, "1 dead letter done and removed, 0 failed again\n")
    assert [event.account for event in events_in(told)] == ["u1"]
    assert ducto("events", "dead-letters").stdout == "group handlers has no dead letters\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say which handlers to call"),
        (("--handlers", "billing"), "--handlers is module:name"),
        (("--handlers", "no_such_module:x"), "No module named 'no_such_module'"),
        (("--handlers", "billing:gone"), "has no attribute 'gone'"),
        (("--handlers", "billing:nothing"), "a handler is a function"),
        (("--webhook", "https://example.com"), "DUCTO_WEBHOOK_SECRET is not set"),
        (("--handlers", "billing:every", "--group", "ledger"), "the ledger's own"),
    ],
)
def test_a_worker_that_cannot_work_says_why(
    ducto: Ducto, manager: CreditManager, told: Path, options: tuple[str, ...], message: str
) -> None:
    """What is wrong with the options is one line, before anything is consumed."""
    result = ducto("events", "worker", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_group_that_there_is_not(ducto: Ducto, manager: CreditManager, namespace: str, engine: str) -> None:
    """A mistyped group would look as if nothing had been given up."""
    Group(store_from_url(engine, namespace=namespace, blocking=True), "webhooks").register()
    for arguments in (("dead-letters",), ("retry", "--handlers", "json:loads")):
        refused = ducto("events", *arguments, "--group", "webhook")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == (
            "ducto: no consumer group 'webhook' is registered; there are 'ledger', 'webhooks'; did you mean"
            " 'webhooks'?\n"
        )
        assert ducto("events", *arguments, "--group", "webhooks").exit_code == 0
