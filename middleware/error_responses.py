"""Errors as HTTP answers: the one table that says what a client is told, and whether to try again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.types import Send

from ducto_redis.display import format_credits
from ducto_redis.errors import (
    AccountFrozenError,
    AlreadyChargedError,
    CapReachedError,
    ConcurrencyLimitError,
    CreditError,
    FeatureNotEntitledError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidUsageError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    NoAccountError,
    PricingNotLoadedError,
    RefundError,
    StoreError,
    TeamNotFoundError,
    UnpricedModelError,
)

# OpenAI's client gives up on a longer Retry-After, Anthropic's sleeps all of it.
_LONGEST_RETRY_AFTER = 60

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    429: "rate_limit_error",
}
_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_BEDROCK_TYPES = {
    401: "AccessDeniedException",
    402: "ServiceQuotaExceededException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_GOOGLE_TYPE = "type.googleapis.com/google.rpc."


class BadRequestError(Exception):
    """The request can't be metered: it is answered with 400.

    Args:
        message: what is wrong with it, for the client's developer.
        code: the same, for programs.
        param: the field that is wrong.
    """

    def __init__(self, message: str, *, code: str = "invalid_request", param: str | None = None) -> None:
        self.code = code
        self.param = param
        super().__init__(message)


class Refusal(NamedTuple):
    """An answer that is given in place of the application's.

    Attributes:
        status: the HTTP status.
        code: the error, for programs.
        message: the error, for people. It names no account.
        should_retry: whether the same request may succeed if it is sent again; None: the client decides by the status.
        retry_after: seconds after which it may, or None.
        details: what else a program can act on, as strings.
        param: the field of the request that is wrong.
        headers: further headers.
    """

    status: int
    code: str
    message: str
    should_retry: bool | None = False
    retry_after: int | None = None
    details: Mapping[str, str] = {}
    param: str | None = None
    headers: Mapping[str, str] = {}

    def as_openai(self) -> dict[str, Any]:
        """Return the body in the shape of OpenAI's errors."""
        kind = _OPENAI_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code, **self.details}
        }

    def as_anthropic(self) -> dict[str, Any]:
        """Return the body in the shape of Anthropic's errors."""
        kind = _ANTHROPIC_TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": self.message, "code": self.code, **self.details},
        }

    def as_google(self) -> dict[str, Any]:
        """Return the body in the shape of Google's errors."""
        status = _GOOGLE_STATUSES.get(self.status, "INTERNAL" if self.status >= 500 else "FAILED_PRECONDITION")
        about: list[dict[str, Any]] = [
            {
                "@type": f"{_GOOGLE_TYPE}ErrorInfo",
                "reason": self.code.upper(),
                "domain": "ducto-redis",
                "metadata": dict(self.details),
            }
        ]
        if self.retry_after is not None:
            about.append({"@type": f"{_GOOGLE_TYPE}RetryInfo", "retryDelay": f"{self.retry_after}s"})
        return {"error": {"code": self.status, "message": self.message, "status": status, "details": about}}

    def for_bedrock(self) -> "Refusal":
        """Return the refusal with the status and the header by which clients of AWS tell errors apart.

        They try again what is throttled, whatever else the answer says: so a refusal that will stay one is sent as a
        quota that is exceeded.
        """
        status = self.status
        kind = _BEDROCK_TYPES.get(status, "InternalServerException" if status >= 500 else "ValidationException")
        if status == 429 and not self.should_retry:
            status, kind = 400, "ServiceQuotaExceededException"
        return self._replace(status=status, headers={**self.headers, "x-amzn-errortype": kind})

    def as_message(self) -> dict[str, Any]:
        """Return the body in the shape of Bedrock's and Cohere's errors."""
        return {"message": self.message, "code": self.code, **self.details}

    def as_ollama(self) -> dict[str, Any]:
        """Return the body in the shape of Ollama's errors."""
        return {"error": self.message, "code": self.code, **self.details}

    def response_headers(self) -> dict[str, str]:
        """Return the headers of the answer, beside those of its content."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers

    def encoded(self, body: Mapping[str, Any]) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the content of the answer, with `body` as the API shapes it."""
        content = msgspec.json.encode(body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        headers += [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.response_headers().items()
        ]
        return headers, content

    async def send(self, send: Send, body: Mapping[str, Any]) -> None:
        """Send it, with `body` as the API shapes it."""
        headers, content = self.encoded(body)
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})


def refusal_for(error: CreditError | BadRequestError | HTTPException) -> Refusal:
    """Return the answer that an error becomes."""
    if isinstance(error, BadRequestError):
        return Refusal(400, error.code, str(error), param=error.param)
    if isinstance(error, HTTPException):
        detail: object = error.detail  # FastAPI's may be any JSON
        message = detail if isinstance(detail, str) else msgspec.json.encode(detail, enc_hook=str).decode()
        return Refusal(error.status_code, "request_refused", message, None, headers=error.headers or {})
    code = error.code
    match error:
        case InsufficientCreditsError():
            return _insufficient(error)
        case CapReachedError():
            return _cap_reached(error)
        case ConcurrencyLimitError():
            return _too_many(error)
        case FeatureNotEntitledError():
            return Refusal(403, code, "the account's plan does not include this")
        case AccountFrozenError():
            return Refusal(403, code, "the account is frozen")
        case MemberNotFoundError() | TeamNotFoundError():
            return Refusal(403, code, "whoever asks is no member of the account that pays")
        case UnpricedModelError():
            named = "a request that names no model" if error.model is None else f"the {error.what} {error.model!r}"
            return Refusal(
                400, code, f"there is no price for {named}", param="model" if error.what == "model" else None
            )
        case AlreadyChargedError():
            details = {"transaction_id": error.transaction_id}
            return Refusal(409, code, "the request with this key was answered and charged already", details=details)
        case IdempotencyConflictError(running=True):
            return Refusal(409, code, "a request with the same key is still running", True, 1)
        case IdempotencyConflictError():
            return Refusal(409, code, "the key was used for another request")
        case LeaseClosedError() | LeaseExpiredError() | LeaseNotFoundError():
            return Refusal(409, code, "the hold for this work is no longer open")
        case RefundError():
            return Refusal(409, code, str(error))
        case NoAccountError():
            return Refusal(401, code, "there is no account to charge for this request")
        case InvalidAmountError() | InvalidUsageError():
            return Refusal(400, code, "this request's size can't be priced: it is out of range")
        case PricingNotLoadedError() | StoreError():
            return Refusal(503, code, "credits can't be checked right now", True, 1)
        case _:
            return Refusal(500, code, "this request can't be charged, because of an error on the server")


def _insufficient(error: InsufficientCreditsError) -> Refusal:
    details = {
        "limit_name": _limit_name(error),
        "needed": format_credits(error.needed),
        "available": format_credits(error.available),
        "held": format_credits(error.held),
    }
    message = (
        f"this request may cost up to {details['needed']} credits, and {details['available']} are available"
        f" ({details['held']} are held by requests that are running)"
    )
    if error.allowance:
        details["allowance"] = format_credits(error.allowance)
        message += f", beside {details['allowance']} of the plan's allowance"
    if error.floor:
        details["floor"] = format_credits(error.floor)
        message += f"; the balance may not fall below {details['floor']}"
    if error.next_expiry is not None:
        details["next_expiry"] = _timestamp(error.next_expiry)
    if error.allowance_ends is not None:
        details["allowance_ends"] = _timestamp(error.allowance_ends)
        message += f"; the plan's next allowance comes at {details['allowance_ends']}"
    return Refusal(402, error.code, message + _lower(error.max_output_tokens, details), details=details)


def _limit_name(error: InsufficientCreditsError) -> str:
    if error.parent is not None:
        return "budget"
    return "overdraft_floor" if error.floor < 0 else "min_balance" if error.floor else "balance"


def _cap_reached(error: CapReachedError) -> Refusal:
    kind, _, name = error.scope.partition("/")
    details = {
        "limit_name": error.cap_id,
        "scope": error.scope if kind == "model" else kind,
        "window": error.window,
        "limit": format_credits(error.limit),
        "used": format_credits(error.used),
        "held": format_credits(error.held),
        "available": format_credits(max(Decimal(0), error.limit - error.used - error.held)),
        "needed": format_credits(error.needed),
    }
    of = f" of {name}" if kind == "model" else ""
    message = (
        f"this request may cost up to {details['needed']} credits, and a spend cap{of} allows {details['limit']} per"
        f" {details['window']}: {details['used']} are spent and {details['held']} held by requests that are running"
    ) + _lower(error.max_output_tokens, details)
    if error.window_end is None:
        return Refusal(429, error.code, message, details=details)
    details["window_end"] = _timestamp(error.window_end)
    wait = max(1, round((error.window_end - datetime.now(UTC)).total_seconds()))
    return Refusal(
        429,
        error.code,
        f"{message}; the window ends at {details['window_end']}",
        retry_after=wait if wait <= _LONGEST_RETRY_AFTER else None,
        details=details,
    )


def _too_many(error: ConcurrencyLimitError) -> Refusal:
    details = {
        "limit_name": "max_concurrent",
        "operation_type": error.operation_type,
        "limit": str(error.limit),
        "running": str(error.running),
    }
    message = f"{details['running']} requests of this kind are running, and the account may have {details['limit']}"
    return Refusal(429, error.code, message, True, 2, details)


def _lower(max_output_tokens: int | None, details: dict[str, str]) -> str:
    """Note the largest limit on output that would pass. Returns what the message says about it."""
    if max_output_tokens is None:
        return ""
    details["max_tokens"] = str(max_output_tokens)
    if not max_output_tokens:
        return "; even without any output it costs more than that"
    return f"; with max_tokens of at most {max_output_tokens} it would pass"


def _timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
