"""Webhooks: events that are sent to a URL as signed JSON."""

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from ducto_redis.errors import ConfigError, CreditError, GiveUpError
from ducto_redis.events.signature import Secrets, keys_of, sign_webhook
from ducto_redis.events.types import CreditEvent

logger = logging.getLogger(__name__)

SECRET_VARIABLE = "DUCTO_WEBHOOK_SECRET"  # a name, not a secret

_GONE = 410
_FAILURES_UNTIL_DOWN = 8
_TRIED_AGAIN_SECONDS = 30.0


class WebhookError(CreditError):
    """An endpoint that did not accept an event."""

    code = "webhook_failed"


class Webhook:
    """A handler that sends events to a URL, signed: `handlers.on("credits.low_balance", Webhook(url))`.

    A 2xx response is success. 410 ends the webhook: this process sends nothing more to it. Any other response, a
    redirect included, and a missing one are failures: the worker sends the event again, after a growing delay, and
    gives it up after its `max_attempts`. An endpoint that has failed eight times in a row is down: it gets one attempt
    every 30 seconds, and the events in between become dead letters at once, so that neither the journal nor other
    handlers wait for it.

    Args:
        url: https:// or http://, without a user and password.
        secret: a function that returns the secret, or several while they are replaced; called for each message. By
            default the environment variable DUCTO_WEBHOOK_SECRET, several separated by spaces. It is never shown or
            logged.
        timeout_seconds: the limit of an attempt, from connecting to the first line of the response.

    Raises:
        ConfigError: if the URL or the secret cannot be used.
    """

    def __init__(self, url: str, *, secret: Callable[[], Secrets] | None = None, timeout_seconds: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("a webhook's URL begins with https:// or http:// and names a host")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("a webhook's URL must not hold a user and password: the signature proves the sender")
        if timeout_seconds <= 0:
            raise ConfigError("timeout_seconds must be above 0")
        self.name = f"{parts.scheme}://{parts.netloc}{parts.path}"
        """The URL without its query, for messages."""
        self._is_https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = secret or secret_of_environment
        self._timeout_seconds = timeout_seconds
        self._context = ssl.create_default_context() if self._is_https else None
        self._gone = False
        self._failures = 0
        self._tried = 0.0
        keys_of(self._secret())

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    def __call__(self, event: CreditEvent) -> None:
        """Send an event.

        Raises:
            WebhookError: if the endpoint did not accept it; it may be sent again.
            GiveUpError: if the endpoint is down, and its next attempt is not due.
            ConfigError: if the secret is malformed.
        """
        if self._gone:
            return
        if self._is_down and time.monotonic() < self._tried + _TRIED_AGAIN_SECONDS:
            raise GiveUpError(f"webhook {self.name} is down")
        body = event.to_json()
        headers = sign_webhook(self._secret(), event.event_id, int(time.time()), body)
        headers["content-type"] = "application/json"
        headers["user-agent"] = "ducto-redis"
        was_down, self._tried = self._is_down, time.monotonic()
        failure = self._send(headers, body)
        if failure is None:
            self._failures = 0
            return
        self._failures += 1
        if was_down:
            raise GiveUpError(f"webhook {self.name} is still down: {failure}")
        if self._is_down:
            logger.error("webhook %s is down, further events become dead letters: %s", self.name, failure)
        raise WebhookError(f"webhook {self.name} {failure}")

    @property
    def _is_down(self) -> bool:
        return self._failures >= _FAILURES_UNTIL_DOWN

    def _send(self, headers: dict[str, str], body: bytes) -> str | None:
        """Send once, and return the failure, or None."""
        begun = time.monotonic()
        try:
            status = self._post(headers, body)
        except (OSError, HTTPException) as error:
            if time.monotonic() - begun >= self._timeout_seconds:
                return f"did not answer within {self._timeout_seconds:g} seconds"
            return f"could not be reached: {type(error).__name__}: {error}"
        if 200 <= status < 300:
            return None
        if status == _GONE:
            self._gone = True
            logger.error("webhook %s answered 410 Gone: nothing more is sent to it by this process", self.name)
            return None
        return f"answered {status}"

    def _post(self, headers: dict[str, str], body: bytes) -> int:
        connection = self._connect()
        # The connection's own timeout is for each packet: an endpoint that sends a byte at a time would never reach it.
        late = threading.Timer(self._timeout_seconds, _shut, (connection,))
        late.daemon = True
        late.start()
        try:
            connection.request("POST", self._target, body=body, headers=headers)
            return connection.getresponse().status
        finally:
            late.cancel()
            connection.close()

    def _connect(self) -> HTTPConnection:
        if self._is_https:
            return HTTPSConnection(self._host, self._port, timeout=self._timeout_seconds, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)


def secret_of_environment() -> list[str]:
    """Return the secrets in the environment variable DUCTO_WEBHOOK_SECRET. Raises ConfigError if it is not set."""
    secrets = os.environ.get(SECRET_VARIABLE, "").split()
    if not secrets:
        raise ConfigError(
            f"{SECRET_VARIABLE} is not set: it holds the secret that signs webhooks; `ducto events secret` makes one"
        )
    return secrets


def _shut(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            # The plain socket's method: another thread may be reading through TLS.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
