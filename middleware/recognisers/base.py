"""The contract between the middleware and an API."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from msgspec import Struct

from ducto_redis.deprecation import warn_renamed
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.earlier_contract import adapt_recogniser, overridden_read_response
from ducto_redis.middleware.sse import ServerSentEvent


class MeteredRequest(Struct, frozen=True):
    """A request as its recogniser read it. A recogniser that must know more of a request keeps it in a subclass.

    Attributes:
        estimate: the most that it may use; its price is held.
        counted_input_tokens: the tokens of its prompt that are charged where the response reports none.
        streams: True where it asks for a stream.
        answers: the number of alternative answers (choices) that it asks for; they share the estimate's
            `output_tokens`. 0 where the API has no limit on those.
        output_limit: its own limit on the tokens of one answer; None where it sets none.
        may_reason_hidden: True where the model may charge for reasoning that the response does not show.
        continues: the id of earlier work whose outcome it asks for; empty where it starts work.
        holds_worst_case: True where the whole estimate is held whatever the settings say, because the work may go on
            after the response, or because its stream does not show its usage.
    """

    estimate: UsageMetrics
    counted_input_tokens: int = 0
    streams: bool = False
    answers: int = 1
    output_limit: int | None = None
    may_reason_hidden: bool = False
    continues: str = ""
    holds_worst_case: bool = False


class Charge(NamedTuple):
    """The usage of a response. The flags go into the journal entry and say how far to trust the numbers:

    - `usage_counted`: the response reported no usage, so it was counted
    - `usage_invalid`: its report made no sense
    - `interrupted`: it was cut off
    - `answer_unread`: a part of it could not be read

    Work that goes on after its response is not charged yet: `later` is its id, which must be unique among all work that
    is metered, and `usage` its prompt, as counted.
    """

    usage: UsageMetrics
    flags: tuple[str, ...] = ()
    later: str = ""


class ResponseReader(ABC):
    """A reader of one response while it passes. It never delays the response.

    `begin` is called first. Then either `document` is called once, or `event` for each server-sent event (`skipped` for
    those that report nothing, where `report_fields` are named); then `charge` once.
    """

    report_fields: tuple[bytes, ...] = ()
    """Names of JSON fields. Events in which each of them is missing or null go to `skipped`, not parsed, instead of to
    `event`. None named: every event is parsed."""

    unread_bytes = 0
    """Bytes of the response that could not be read: of an unknown Content-Encoding, or too large to keep."""

    hides_events = False
    """True where `hidden` decides for every event that is not skipped, as some are not meant for the client."""

    lines_are_stream = False
    """True where a JSON response of several lines is a stream. (One of `application/x-ndjson` is in any case.)"""

    array_is_stream = False
    """True where a JSON response that is an array is a stream, whose events are the elements."""

    names_work = False
    """True where `work_id` is read as the response begins, for its work may go on without it."""

    @property
    def work_id(self) -> str | None:
        """The id of the work under way, once the response has named it. See `Charge.later`."""
        return None

    def begin(self, status: int, headers: Headers) -> None:  # noqa: B027
        """Take the status, below 300, and the headers of the response, before any of its body."""

    @abstractmethod
    def document(self, body: bytes) -> None:
        """Take a whole body. It may be cut off, or not be JSON."""

    @abstractmethod
    def event(self, event: ServerSentEvent) -> None:
        """Take one event of a stream. Its data may not be JSON."""

    def skipped(self, events: bytes) -> None:  # noqa: B027
        """Take whole events, as they were sent, that report nothing. Their text may have to be counted."""

    def hidden(self, event: ServerSentEvent) -> bool:
        """Tell, after `event` took it, whether to hide an event from the client, who did not ask for it."""
        return False

    @property
    def delivered_tokens(self) -> int:
        """Output tokens that were delivered so far, as they are charged without a report."""
        return 0

    @property
    def tokens_to_cover(self) -> int:
        """Output tokens that a growing hold must cover by now. Rather too many than too few."""
        return self.delivered_tokens

    @property
    def knows_usage(self) -> bool:
        """True once the response has reported all its usage, so that a cut from here on leaves nothing to guess.

        Read only where the model may reason unseen: the delivered text does not tell the usage then.
        """
        return True

    def ending(self) -> bytes | None:
        """Return the bytes that end the stream here, as the API ends one at its limit on tokens.

        They are sent after a whole event. None: the stream can only be cut.
        """
        return None

    @abstractmethod
    def charge(self, *, complete: bool) -> Charge | None:
        """Return the charge, or None for nothing, as for a response that turned out to be an error.

        `complete` is False where the response did not come to its end: the delivered part is charged.
        """


class Recogniser(ABC):
    """The knowledge of one API. It keeps nothing about a request: one object serves them all."""

    operation_type = "default"
    """The name of the API's work in leases and in the ledger, unless the payer names it."""

    methods = frozenset({"POST"})
    """The methods that cost something."""

    free = False
    """True where its requests cost nothing: they pass untouched, and only `matches` is called."""

    path_end = ""
    """The end of the paths that belong to the API, such as "/chat/completions". Empty: only by `routes`."""

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return bool(self.path_end) and path.rstrip("/").endswith(self.path_end)

    def continued(self, method: str, path: str) -> str | None:
        """Return the id of the work that a request asks about, whose outcome an earlier response left open.

        Such a request holds nothing. Where its response shows the work finished, that is charged.
        """
        return None

    @abstractmethod
    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the most that a request may use, and how it is to be metered. Raises BadRequestError."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept a recogniser written for the contract of the last release."""
        super().__init_subclass__(**options)
        adapt_recogniser(cls, Recogniser)

    @abstractmethod
    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return the reader for the response to this request."""

    def read_answer(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return the reader for the response to this request. Deprecated: call `read_response`."""
        warn_renamed("read_answer", "read_response")
        found: ResponseReader = overridden_read_response(self)(self, request, estimates)
        return found

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        """Return the body that the application gets in place of the request's; by default, the same.

        Args:
            body: the request's.
            request: the same, as `read_request` returned it.
            output_limit: the tokens of one response that the account can pay, where that is less than what the request
                asked for; None leaves its limit alone.
        """
        return body

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the API's own shape, so that its clients raise the right error."""
        return refusal.as_openai()

    def refused(self, refusal: Refusal) -> Refusal:
        """Return a refusal with the status and headers by which the API's clients tell errors; by default, the same."""
        return refusal
