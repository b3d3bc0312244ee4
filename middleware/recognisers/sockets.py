"""The contract between the middleware and an API that is spoken over a WebSocket."""

from abc import ABC, abstractmethod
from typing import Any

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.middleware.recognisers.earlier_contract import adapt_socket_recogniser


class SessionReader(ABC):
    """A reader of one session while its messages pass. It never delays them."""

    @abstractmethod
    def next_estimate(self) -> UsageMetrics:
        """Return the most that may be used until the next charge; what it costs is held."""

    @abstractmethod
    def sent(self, message: str | bytes) -> Charge | None:
        """Take a message to the client; return what it says is to be charged, each thing once."""

    @abstractmethod
    def received(self, message: str | bytes) -> None:
        """Take a message of the client's."""

    @property
    def between_work(self) -> bool:
        """True while no work is under way that the hold is for; a charge is then made at once."""
        return True

    @abstractmethod
    def unfinished(self) -> Charge | None:
        """Return the usage that was seen and not charged when the session ended."""


class SocketRecogniser(ABC):
    """The knowledge of one API over WebSockets. It keeps nothing about a session: one object serves them all."""

    operation_type = "default"
    """The name of the API's work in leases and in the ledger, unless the payer names it."""

    path_end = ""
    """The end of the paths that belong to the API, such as "/realtime"."""

    def matches(self, path: str) -> bool:
        """Tell whether a connection to this path belongs to the API."""
        return bool(self.path_end) and path.rstrip("/").endswith(self.path_end)

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept a recogniser written for the contract of the last release."""
        super().__init_subclass__(**options)
        adapt_socket_recogniser(cls, SocketRecogniser)

    @abstractmethod
    def read_session(self, request: ApiRequest, estimates: Estimates) -> SessionReader:
        """Return the reader for a session that begins with this handshake. Raises BadRequestError."""

    @abstractmethod
    def error_event(self, refusal: Refusal) -> str | None:
        """Return the message that tells a client why its session ends, in the API's shape; None where it has none."""

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return the body of the HTTP response to a handshake that is refused."""
        return refusal.as_openai()
