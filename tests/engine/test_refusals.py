"""Refusals: every word that a script says is an error, with its details."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ducto_redis import errors
from ducto_redis.engine.refusals import MoreIsDue, failure
from ducto_redis.engine.scripts import read_sources

# What consumers of the journal answer themselves, and do not turn into errors here.
OF_THE_JOURNAL = {
    "acknowledge",
    "claim_partition",
    "dead_letter",
    "forget_group",
    "join_workers",
    "journal_lag",
    "read_entries",
    "register_group",
    "release_partition",
}
ERRORS = {
    "insufficient": (errors.InsufficientCreditsError, ["5", "9", "6", "-2", "1500", "4", "2500"]),
    "budget": (errors.InsufficientCreditsError, ["run", "5", "3", "7", "1500"]),
    "conflict": (errors.IdempotencyConflictError, []),
    "closed": (errors.LeaseClosedError, ["settled"]),
    "not_found": (errors.LeaseNotFoundError, []),
    "expired": (errors.LeaseExpiredError, []),
    "parent_closed": (errors.LeaseClosedError, ["run", "settled"]),
    "parent_not_found": (errors.LeaseNotFoundError, ["run"]),
    "parent_expired": (errors.LeaseExpiredError, ["run"]),
    "too_deep": (errors.ConfigError, ["16"]),
    "recovery_needed": (errors.RecoveryNeededError, []),
    "over_limit": (errors.InvalidAmountError, []),
    "journal_full": (errors.JournalFullError, ["100"]),
    "none": (errors.PricingNotLoadedError, []),
    "stale": (errors.StalePricing, ["4"]),
    "reprice": (errors.RepriceLease, ["3", "pro"]),
    "terms": (errors.TermsNeeded, ["pro", "1000", "", "2000", "day@UTC\x1fhour@UTC"]),
    "cap": (errors.CapReachedError, ["12", "account", "day", "9", "5", "1", "2000", "4"]),
    "concurrency": (errors.ConcurrencyLimitError, ["chat", "2", "2"]),
    "frozen": (errors.AccountFrozenError, ["ann: why"]),
    "not_member": (errors.MemberNotFoundError, ["ann"]),
    "not_team": (errors.TeamNotFoundError, []),
    "is_team": (errors.ConfigError, ["Team"]),
    "last_owner": (errors.ConfigError, ["ann"]),
    "no_cap": (errors.CapNotFoundError, ["account", "12", "3\x1f4"]),
    "plan_cap": (errors.ConfigError, ["plan-day"]),
    "too_many_caps": (errors.InvalidAmountError, ["16"]),
    "too_many_grants": (errors.InvalidAmountError, ["256"]),
    "past": (errors.ConfigError, ["2000"]),
    "refund_exceeds": (errors.RefundError, ["5", "2"]),
    "again": (MoreIsDue, []),
    "due": (MoreIsDue, []),
}


SCRIPTS = sorted(name for name in read_sources() if not name.startswith("lib/") and name not in OF_THE_JOURNAL)


def refused(word: str, details: list[str], *, lease_id: str = "l1", operation_key: str = "k1") -> Exception:
    parts = [part.encode() for part in (word, *details)]
    return failure(parts, account="u1", operation_key=operation_key, lease_id=lease_id)


def words_of(name: str, text: str) -> set[str]:
    """The words of a header's errors: the first of each part between semicolons."""
    found = re.search(r"^-- Errors[^:]*: (.*(?:\n--   .*)*)", text, re.MULTILINE)
    listed = found[1].replace("\n--", " ") if found else ""
    return {part.strip().strip("{").split()[0].strip(",}") for part in listed.split(";") if part.strip()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_word_of_every_header_is_an_error(name: str) -> None:
    """What a script's header lists among its errors is mapped to one."""
    assert words_of(name, read_sources()[name]) <= set(ERRORS)


def test_headers_are_read() -> None:
    """The reading of headers finds what is there."""
    assert words_of("reserve", read_sources()["reserve"]) == {
        "recovery_needed", "conflict", "closed", "parent_closed", "parent_not_found", "parent_expired", "too_deep",
        "reprice", "stale", "terms", "frozen", "not_member", "concurrency", "again", "cap", "budget", "insufficient",
        "over_limit", "journal_full",
    }  # fmt: skip


@pytest.mark.parametrize("word", ERRORS)
def test_word(word: str) -> None:
    """Each word is its own error."""
    kind, details = ERRORS[word]
    assert type(refused(word, details)) is kind


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_returned_word_is_in_the_header(name: str) -> None:
    """A script returns no word that the header does not list."""
    text = read_sources()[name]
    returned = set(re.findall(r"(?:return|and|or) \{?'([a-z_]+)(?:\\t)?'", text)) - {"ok", "replayed"}
    assert returned <= words_of(name, text)


def test_insufficient() -> None:
    """What was needed, what there was, and until when to wait."""
    error = refused("insufficient", ["5", "9", "6", "-2", "1500", "4", "2500"])
    assert isinstance(error, errors.InsufficientCreditsError)
    assert (error.needed, error.available, error.held, error.floor) == tuple(
        Decimal(micro).scaleb(-6) for micro in (5, 3, 6, -2)
    )
    assert error.next_expiry == datetime.fromtimestamp(1.5, UTC)
    assert (error.allowance, error.allowance_ends) == (Decimal("0.000004"), datetime.fromtimestamp(2.5, UTC))
    nothing_held = refused("insufficient", ["5", "3", "0", "0", "", "0", ""])
    assert isinstance(nothing_held, errors.InsufficientCreditsError)
    assert (nothing_held.next_expiry, nothing_held.allowance_ends) == (None, None)


def test_budget() -> None:
    """The lease whose hold is too small is named, with what it has left and what those inside of it hold."""
    error = refused("budget", ["run", "5", "3", "7", "1500"])
    assert isinstance(error, errors.InsufficientCreditsError)
    assert error.parent == "run"
    assert (error.needed, error.available, error.held) == tuple(Decimal(micro).scaleb(-6) for micro in (5, 3, 7))
    assert error.next_expiry == datetime.fromtimestamp(1.5, UTC)
    assert "inside lease 'run' of account 'u1'" in str(error)


@pytest.mark.parametrize("word", ["parent_closed", "parent_not_found", "parent_expired"])
def test_parent_that_cannot_give(word: str) -> None:
    """The lease that is named is the parent, not the one that was to be opened."""
    error = refused(word, ERRORS[word][1], lease_id="call")
    assert isinstance(error, errors.LeaseClosedError | errors.LeaseNotFoundError | errors.LeaseExpiredError)
    assert error.lease_id == "run"


def test_terms() -> None:
    """The manager is told which plan, as of when, and which windows."""
    error = refused("terms", ["pro", "1000", "Europe/Berlin", "2000", "day@UTC\x1fhour@UTC"])
    assert isinstance(error, errors.TermsNeeded)
    assert (error.plan, error.assigned_ms, error.time_zone, error.now_ms) == ("pro", 1000, "Europe/Berlin", 2000)
    assert error.windows == ("day@UTC", "hour@UTC")


def test_cap() -> None:
    """The refusal names the cap, its limit, what is used and held, and when the window ends."""
    error = refused("cap", ["12", "member/ann", "day", "9", "5", "1", "2000", "4"])
    assert isinstance(error, errors.CapReachedError)
    assert (error.cap_id, error.scope, error.window) == ("12", "member/ann", "day")
    assert (error.limit, error.used, error.held, error.needed) == tuple(
        Decimal(micro).scaleb(-6) for micro in (9, 5, 1, 4)
    )
    assert error.window_end == datetime.fromtimestamp(2, UTC)


def test_conflict_names_the_caller_s_key() -> None:
    """The key in the error is the one that the caller gave."""
    error = refused("conflict", [], operation_key="key/x")
    assert isinstance(error, errors.IdempotencyConflictError)
    assert (error.account, error.key) == ("u1", "key/x")


def test_not_found_without_a_lease_is_a_version() -> None:
    """Where no lease was meant, it is the version of the pricing document that does not exist."""
    error = refused("not_found", ["7"], lease_id="")
    assert isinstance(error, errors.PricingVersionNotFoundError)
    assert isinstance(error, errors.ConfigError)
    assert "there are versions 1 to 7" in str(error)


def test_unknown_word() -> None:
    """A word of another version of the scripts is an error of the engine, not a success."""
    assert type(refused("gibberish", [])) is errors.StoreError
