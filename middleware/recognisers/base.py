"""The contract between the middleware and an API."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from starlette.types import Scope

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.answers import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.sse import ServerSentEvent


class MeteredRequest(NamedTuple):
    """What a request asks for.

    Attributes:
        estimate: the most that it may use; what it costs is held.
        counted_input_tokens: what its prompt is charged where the answer does not report it.
    """

    estimate: UsageMetrics
    counted_input_tokens: int = 0


class Charge(NamedTuple):
    """What an answer used. The flags go into the journal entry and say how far to trust the numbers:

    - `usage_counted`: the answer did not report its usage, so it was counted
    - `usage_invalid`: it reported something that is no usage
    - `interrupted`: it did not come to its end
    - `answer_unread`: a part of it could not be read
    """

    usage: UsageMetrics
    flags: tuple[str, ...] = ()


class AnswerReader(ABC):
    """Reads one answer while it passes, and never holds it up.

    Either `document` is called once, or `event` for each server-sent event (`skipped` for those that report nothing,
    where `report_fields` are named); then `charge` once.
    """

    report_fields: tuple[bytes, ...] = ()
    """Names of JSON fields. Events in which each of them is missing or null go to `skipped`, not parsed, instead of to
    `event`. None named: every event is parsed."""

    unread_bytes = 0
    """Bytes of the answer that could not be read: of an unknown Content-Encoding, or too large to keep."""

    @abstractmethod
    def document(self, body: bytes) -> None:
        """Take a whole body, which may be no JSON, or cut off."""

    @abstractmethod
    def event(self, event: ServerSentEvent) -> None:
        """Take one event of a stream. Its data may be no JSON."""

    def skipped(self, events: bytes) -> None:  # noqa: B027
        """Take whole events, as they were sent, that report nothing. Text that they deliver may have to be counted."""

    @abstractmethod
    def charge(self, *, complete: bool) -> Charge | None:
        """Return what to charge, or None for nothing, as where the answer turned out to be an error.

        `complete` is False where the answer did not come to its end: what was delivered is charged.
        """


class Recogniser(ABC):
    """Knows one API. It keeps nothing about a request: one object serves them all."""

    operation_type = "default"
    """What the API's work is called in leases and in the ledger, where the payer does not say."""

    methods = frozenset({"POST"})
    """The methods that cost something."""

    path_end = ""
    """The end of the paths that belong to the API, such as "/chat/completions". Empty: only by `routes`."""

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return bool(self.path_end) and path.rstrip("/").endswith(self.path_end)

    @abstractmethod
    def read_request(self, body: bytes, scope: Scope, estimates: Estimates) -> MeteredRequest:
        """Return what a request with this body asks for. Raises BadRequestError."""

    @abstractmethod
    def read_answer(self, request: MeteredRequest, estimates: Estimates) -> AnswerReader:
        """Return the reader for the answer to this request."""

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the API's own shape, so that its clients raise the right error."""
        return refusal.as_openai()
