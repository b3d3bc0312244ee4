"""The contract between the middleware and an API."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from msgspec import Struct
from starlette.types import Scope

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.answers import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.sse import ServerSentEvent


class MeteredRequest(Struct, frozen=True):
    """What a request asks for. A recogniser that must know more of a request keeps it in a subclass.

    Attributes:
        estimate: the most that it may use; what it costs is held.
        counted_input_tokens: what its prompt is charged where the answer does not report it.
        streams: whether it asks for its answer in pieces.
        answers: how many answers it asks for, each with at most a share of the estimate's `output_tokens`.
        output_limit: the limit on the tokens of one answer that it sets itself; None where it sets none.
        may_reason_hidden: whether the model may charge for reasoning that the answer does not show.
    """

    estimate: UsageMetrics
    counted_input_tokens: int = 0
    streams: bool = False
    answers: int = 1
    output_limit: int | None = None
    may_reason_hidden: bool = False


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

    hides_events = False
    """Whether `hidden` is to be asked for every event that is not skipped, since some are not meant for the client."""

    @abstractmethod
    def document(self, body: bytes) -> None:
        """Take a whole body, which may be no JSON, or cut off."""

    @abstractmethod
    def event(self, event: ServerSentEvent) -> None:
        """Take one event of a stream. Its data may be no JSON."""

    def skipped(self, events: bytes) -> None:  # noqa: B027
        """Take whole events, as they were sent, that report nothing. Text that they deliver may have to be counted."""

    def hidden(self, event: ServerSentEvent) -> bool:
        """Tell, after `event` took it, whether an event is kept from the client, who did not ask for it."""
        return False

    @property
    def delivered_tokens(self) -> int:
        """Output tokens that were delivered so far, as counted; what holds grow with while a stream runs."""
        return 0

    def ending(self) -> bytes | None:
        """Return what ends the stream here, as the API ends one whose limit on tokens was reached.

        It is sent after a whole event. None: the stream can only be cut.
        """
        return None

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

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body that the application gets in place of the request's; by default, the same.

        Args:
            body: the request's.
            request: what was read from it.
            output_limit: the tokens of one answer that the account can pay, where that is less than what the request
                asked for; None leaves its limit alone.
        """
        return body

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the API's own shape, so that its clients raise the right error."""
        return refusal.as_openai()
