"""Delivering webhooks: what is sent, what counts as delivered, and an endpoint that is down."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ducto_redis import CreditManager
from ducto_redis.delivery import EventWorker, Webhook
from ducto_redis.delivery.webhook import WebhookError
from ducto_redis.errors import ConfigError, GiveUpError
from ducto_redis.events.handlers import Handlers
from ducto_redis.events.signature import new_webhook_secret, verify_webhook
from ducto_redis.events.telling import event_of
from ducto_redis.events.types import Released

SECRET = new_webhook_secret()
EVENT = event_of(Released(lease_id="l1", amount=1), "u1", "3-1-1700000000123-4")


class Endpoint:
    """A server that takes messages and answers as it is told to.

    Attributes:
        answers: statuses, in order; the last one stays.
        received: path, headers and body of each message.
    """

    def __init__(self) -> None:
        self.answers = [200]
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.received.append((self.path, dict(self.headers), body))
                status = endpoint.answers.pop(0) if len(endpoint.answers) > 1 else endpoint.answers[0]
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", f"http://127.0.0.1:{endpoint.port}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hooks?tenant=a"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def webhook(endpoint: Endpoint) -> Webhook:
    return Webhook(endpoint.url, secret=lambda: SECRET, timeout_seconds=5)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock by which an endpoint that is down is tried again."""
    offset = [0.0]
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + offset[0])

    def move(by: float) -> None:
        offset[0] += by

    return move


def test_what_is_sent_verifies(endpoint: Endpoint, webhook: Webhook) -> None:
    """A receiver that knows the secret gets the event, signed just now, at the URL with its query."""
    webhook(EVENT)
    ((path, headers, body),) = endpoint.received
    assert path == "/hooks?tenant=a"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == EVENT.event_id
    assert verify_webhook(SECRET, headers, body) == EVENT


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success_is_2xx(endpoint: Endpoint, webhook: Webhook, status: int) -> None:
    """Any answer of 2xx says that the event was taken."""
    endpoint.answers = [status]
    webhook(EVENT)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 404, 408, 429, 500, 503])
def test_all_else_is_sent_again(endpoint: Endpoint, webhook: Webhook, status: int) -> None:
    """Any other answer is a failure that is tried again; a redirect is not followed."""
    endpoint.answers = [status]
    with pytest.raises(WebhookError, match=rf"webhook http://127\.0\.0\.1:\d+/hooks answered {status}"):
        webhook(EVENT)
    assert len(endpoint.received) == 1


def test_410_ends_it(endpoint: Endpoint, webhook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that is gone for good is left alone, and one line of the log says so."""
    endpoint.answers = [410]
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            webhook(EVENT)
    assert len(endpoint.received) == 1
    assert len([record for record in caplog.records if "410 Gone" in record.message]) == 1


def test_an_endpoint_that_cannot_be_reached(webhook: Webhook) -> None:
    """Nobody there is a failure like any other, told without the query."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = Webhook(f"http://127.0.0.1:{free.getsockname()[1]}/?key=s3cret", secret=lambda: SECRET)
    with pytest.raises(WebhookError, match="could not be reached: ConnectionRefusedError") as caught:
        nowhere(EVENT)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(nowhere)


@pytest.mark.parametrize("drips", [False, True])
def test_an_endpoint_that_does_not_answer_in_time(drips: bool) -> None:
    """An endpoint that keeps silent, or sends an endless answer a byte at a time, is given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                while not stop.wait(0.02):
                    if drips:
                        try:
                            connection.sendall(b"H")
                        except OSError:
                            return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            webhook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}", secret=lambda: SECRET, timeout_seconds=0.3)
            with pytest.raises(WebhookError, match=r"did not answer within 0\.3 seconds"):
                webhook(EVENT)
        finally:
            stop.set()
            thread.join()


def test_an_endpoint_that_is_down_is_left_in_peace(
    endpoint: Endpoint, webhook: Webhook, seconds: Callable[[float], None]
) -> None:
    """After eight failures in a row it gets one attempt in 30 seconds; events in between are given up at once."""
    endpoint.answers = [503]
    for _ in range(8):
        with pytest.raises(WebhookError):
            webhook(EVENT)
    for _ in range(3):
        with pytest.raises(GiveUpError, match="is down"):
            webhook(EVENT)
    assert len(endpoint.received) == 8
    seconds(30)
    for _ in range(3):
        with pytest.raises(GiveUpError):
            webhook(EVENT)
    assert len(endpoint.received) == 9
    seconds(30)
    endpoint.answers = [200]
    webhook(EVENT)
    endpoint.answers = [503]
    with pytest.raises(WebhookError):
        webhook(EVENT)


def test_a_worker_retries_and_gives_up(endpoint: Endpoint, webhook: Webhook) -> None:
    """In a worker, a failure is sent again under the same id; what an endpoint that is down missed can be retried."""
    handlers = Handlers()
    handlers.on("credits.added", webhook)
    with CreditManager.from_url("memory://") as manager:
        worker = EventWorker(manager.store, handlers, backoff_seconds=0.001)
        endpoint.answers = [500, 503, 200]
        manager.add_credits("u1", 1)
        worker.run_until_idle()
        assert [headers["webhook-id"] for _, headers, _ in endpoint.received] == [
            endpoint.received[0][1]["webhook-id"]
        ] * 3
        endpoint.received.clear()
        endpoint.answers = [503]
        for number in range(50):
            manager.add_credits(f"u{number}", 1)
        worker.run_until_idle()
        assert len(endpoint.received) == 8
        assert worker.count_dead_letters() == 50
        assert worker.lag() == 0
        endpoint.received.clear()
        endpoint.answers = [200]
        mended = Handlers()
        mended.on("credits.added", Webhook(endpoint.url, secret=lambda: SECRET))
        report = EventWorker(manager.store, mended).retry_dead_letters()
        assert (report.succeeded, report.failed) == (50, 0)
        accounts = {verify_webhook(SECRET, headers, body).account for _, headers, body in endpoint.received}
        assert accounts == {f"u{number}" for number in range(50)}


def test_the_secret_comes_from_the_environment(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a function the environment says the secret, at each message, so that it can be replaced."""
    old, new = new_webhook_secret(), new_webhook_secret()
    monkeypatch.setenv("DUCTO_WEBHOOK_SECRET", old)
    webhook = Webhook(endpoint.url)
    webhook(EVENT)
    monkeypatch.setenv("DUCTO_WEBHOOK_SECRET", f"{new} {old}")
    webhook(EVENT)
    (_, first, body), (_, second, _) = endpoint.received
    assert verify_webhook(old, first, body) == verify_webhook(new, second, body) == EVENT


def test_a_secret_is_never_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither logs nor errors nor the object's text hold the secret."""
    endpoint.answers = [503]
    webhook = Webhook(endpoint.url, secret=lambda: SECRET)
    handlers = Handlers()
    handlers.on("credits.added", webhook)
    with CreditManager.from_url("memory://") as manager, caplog.at_level(logging.DEBUG):
        manager.add_credits("u1", 1)
        worker = EventWorker(manager.store, handlers, backoff_seconds=0.001)
        worker.run_until_idle()
        (letter,) = worker.dead_letters()
    assert "answered 503" in letter.reason
    for text in (caplog.text, letter.reason, repr(webhook), str(vars(webhook))):
        assert SECRET.removeprefix("whsec_") not in text
    monkeypatch.delenv("DUCTO_WEBHOOK_SECRET", raising=False)
    with pytest.raises(ConfigError, match="DUCTO_WEBHOOK_SECRET is not set"):
        Webhook(endpoint.url)
    with pytest.raises(ConfigError) as caught:
        Webhook(endpoint.url, secret=lambda: "hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com", "begins with https://"),
        ("example.com/hook", "begins with https://"),
        ("https:///hook", "names a host"),
        ("https://user:pw@example.com", "must not hold a user and password"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    """A URL that is none, or that holds a password, is refused before anything is sent."""
    with pytest.raises(ConfigError, match=message) as caught:
        Webhook(url, secret=lambda: SECRET)
    assert "pw" not in str(caught.value)
