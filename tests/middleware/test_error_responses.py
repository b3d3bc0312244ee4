"""Every error becomes the answer that the table says."""

from copy import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from starlette.exceptions import HTTPException

from ducto_redis import errors
from ducto_redis.middleware import BadRequestError
from ducto_redis.middleware.error_responses import refusal_for

SHORT = errors.InsufficientCreditsError("u", needed=Decimal(2), available=Decimal(1), held=Decimal(0))


def capped(window_end: datetime | None = None) -> errors.CapReachedError:
    """The refusal of a spend cap."""
    return errors.CapReachedError(
        "secret-team",
        cap_id="own-day",
        scope="member/secret-bob",
        window="day",
        limit=Decimal(20),
        used=Decimal("12.5"),
        held=Decimal(3),
        needed=Decimal(5),
        window_end=window_end,
    )


@pytest.mark.parametrize(
    ("error", "status", "code", "should_retry", "retry_after"),
    [
        (SHORT, 402, "insufficient_credits", 0, None),
        (capped(), 429, "spend_cap_reached", 0, None),
        (errors.ConcurrencyLimitError("u", "chat", limit=2, running=2), 429, "concurrency_limit", 1, 2),
        (errors.FeatureNotEntitledError("u", "agentic", plan="free"), 403, "feature_not_entitled", 0, None),
        (errors.AccountFrozenError("u", "ann: chargeback"), 403, "account_frozen", 0, None),
        (errors.MemberNotFoundError("u", "bob"), 403, "member_not_found", 0, None),
        (errors.TeamNotFoundError("u"), 403, "team_not_found", 0, None),
        (errors.UnpricedModelError("m"), 400, "model_not_priced", 0, None),
        (errors.IdempotencyConflictError("u", "k"), 409, "idempotency_conflict", 0, None),
        (errors.IdempotencyConflictError("u", "k", running=True), 409, "idempotency_conflict", 1, 1),
        (errors.LeaseClosedError("u", "l", "settled"), 409, "lease_closed", 0, None),
        (errors.NoAccountError(), 401, "no_account", 0, None),
        (errors.PricingNotLoadedError(), 503, "pricing_not_loaded", 1, 1),
        (errors.StoreUnavailableError("x"), 503, "store_unavailable", 1, 1),
        (errors.RecoveryNeededError("x"), 503, "recovery_needed", 1, 1),
        (errors.InvalidUsageError("x"), 400, "invalid_usage", 0, None),
        (errors.ExpressionError("x"), 500, "expression_error", 0, None),
        (errors.ConfigError("x"), 500, "config_error", 0, None),
        (BadRequestError("x", code="invalid_json"), 400, "invalid_json", 0, None),
        (HTTPException(418), 418, "request_refused", None, None),
    ],
)  # fmt: skip
def test_table(error: Exception, status: int, code: str, should_retry: int | None, retry_after: int | None) -> None:
    """Status, code, x-should-retry (none: the client decides) and Retry-After of every error."""
    refusal = refusal_for(error)  # type: ignore[arg-type]
    got = (refusal.status, refusal.code, refusal.should_retry, refusal.retry_after)
    assert got == (status, code, None if should_retry is None else bool(should_retry), retry_after)


def test_payment_required_says_what_is_missing() -> None:
    """402 names needed, available, held, the floor and the next expiry as strings, and no account."""
    refusal = refusal_for(
        errors.InsufficientCreditsError(
            "secret-team",
            needed=Decimal("12.340000"),
            available=Decimal("-0.500000"),
            held=Decimal("3.000000"),
            floor=Decimal(-2),
            next_expiry=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        )
    )
    error = refusal.as_openai()["error"]
    assert "secret-team" not in error.pop("message")
    assert error == {
        "type": "billing_error",
        "code": "insufficient_credits",
        "param": None,
        "limit_name": "overdraft_floor",
        "needed": "12.34",
        "available": "-0.5",
        "held": "3",
        "floor": "-2",
        "next_expiry": "2026-01-02T03:04:05.678000Z",
    }


def test_a_cap_never_asks_to_sleep_over_a_minute() -> None:
    """Retry-After of a cap is left out over 60 seconds: some clients would sleep all of it."""
    now = datetime.now(UTC)
    soon = refusal_for(capped(now + timedelta(seconds=30)))
    late = refusal_for(capped(now + timedelta(hours=30)))
    assert soon.retry_after is not None
    assert 1 <= soon.retry_after <= 60
    assert late.retry_after is None
    assert late.details["window_end"].endswith("Z")


def test_limits_say_what_they_are() -> None:
    """A cap and a limit of concurrency name their numbers as strings, and nobody."""
    error = refusal_for(capped()).as_openai()["error"]
    assert "secret" not in str(error)
    names = ("limit_name", "scope", "window", "limit", "used", "held", "available", "needed")
    assert {key: error[key] for key in names} == {
        "limit_name": "own-day",
        "scope": "member",
        "window": "day",
        "limit": "20",
        "used": "12.5",
        "held": "3",
        "available": "4.5",
        "needed": "5",
    }
    too_many = refusal_for(errors.ConcurrencyLimitError("secret-team", "chat", limit=2, running=3))
    assert "secret" not in str(too_many)
    assert too_many.details == {"limit_name": "max_concurrent", "operation_type": "chat", "limit": "2", "running": "3"}


@pytest.mark.parametrize(
    ("floor", "name"), [(Decimal(0), "balance"), (Decimal(5), "min_balance"), (Decimal(-5), "overdraft_floor")]
)
def test_what_binds_has_a_name(floor: Decimal, name: str) -> None:
    """A refusal for want of credits says which floor it is that binds, and what is left of an allowance."""
    error = errors.InsufficientCreditsError(
        "u", needed=Decimal(9), available=Decimal(1), held=Decimal(0), floor=floor, allowance=Decimal(2)
    )
    refusal = refusal_for(error)
    assert (refusal.details["limit_name"], refusal.details["allowance"]) == (name, "2")
    assert "2 of the plan's allowance" in refusal.message


@pytest.mark.parametrize("error", [SHORT, capped()])
def test_the_largest_limit_that_would_pass(error: errors.InsufficientCreditsError | errors.CapReachedError) -> None:
    """What was worked out is told to programs and people; what was not is not there."""
    known = copy(error)
    known.max_output_tokens = 128
    refusal = refusal_for(known)
    assert refusal.details["max_tokens"] == "128"
    assert "max_tokens of at most 128" in refusal.message
    known.max_output_tokens = 0
    assert refusal_for(known).details["max_tokens"] == "0"
    assert "max_tokens" not in refusal_for(error).details


LATER = refusal_for(errors.ConcurrencyLimitError("u", "chat", limit=2, running=2))


def test_shapes() -> None:
    """The same refusal in the shape of each API, with the same details."""
    refusal = refusal_for(SHORT)
    said = {"code": "insufficient_credits", **refusal.details}
    assert refusal.as_openai()["error"] == {
        "message": refusal.message, "type": "billing_error", "param": None, **said
    }  # fmt: skip
    assert refusal.as_anthropic() == {
        "type": "error",
        "error": {"type": "billing_error", "message": refusal.message, **said},
    }
    google = refusal.as_google()["error"]
    assert (google["code"], google["status"], google["message"]) == (402, "FAILED_PRECONDITION", refusal.message)
    assert [(detail["reason"], detail["metadata"]) for detail in google["details"]] == [
        ("INSUFFICIENT_CREDITS", refusal.details)
    ]
    assert LATER.as_google()["error"]["details"][1]["retryDelay"] == "2s"
    assert refusal.as_message() == {"message": refusal.message, **said}
    assert refusal.as_ollama() == {"error": refusal.message, **said}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (SHORT, 402, "ServiceQuotaExceededException"),
        (capped(), 400, "ServiceQuotaExceededException"),
        (errors.ConcurrencyLimitError("u", "chat", limit=2, running=2), 429, "ThrottlingException"),
        (errors.AccountFrozenError("u", "x"), 403, "AccessDeniedException"),
        (errors.PricingNotLoadedError(), 503, "ServiceUnavailableException"),
        (errors.ConfigError("x"), 500, "InternalServerException"),
        (BadRequestError("x"), 400, "ValidationException"),
    ],
)
def test_bedrock_tells_errors_by_a_header(error: Exception, status: int, kind: str) -> None:
    """Only what may succeed later is throttling, which the clients of AWS try again."""
    refusal = refusal_for(error).for_bedrock()  # type: ignore[arg-type]
    assert (refusal.status, refusal.headers["x-amzn-errortype"]) == (status, kind)
