"""Names that a ledger is asked for, and does not know."""

import pytest

from ducto_redis.errors import ConfigError, TeamNotFoundError
from ducto_redis.ledger import Ledger
from tests.ledger.entries import Account, Journal, cause_of

NAMESPACE = "n"


def test_a_measure_that_there_is_not(ledger: Ledger, account: Account) -> None:
    """The error lists the fields of a usage, and what was ever counted or is declared; those are no errors."""
    raw = [account.add(10)]
    for name in ("pages", "gpu_seconds"):
        raw.append(account.deduct(1, cause=cause_of({"model": "m", "measures": {name: 2}})))
    ledger.write(NAMESPACE, 0, raw)
    analytics = ledger.analytics(NAMESPACE)
    with pytest.raises(ConfigError, match=r"no measure 'pges'.*input_tokens.*'gpu_seconds', 'pages'.*mean 'pages'"):
        analytics.usage("pges")
    with pytest.raises(ConfigError, match="mean 'input_tokens'"):
        ledger.analytics("another").usage("input_token")
    assert [it.quantity for it in analytics.usage("pages")] == [2]
    for measure in ("pages", "output_tokens", "chapters"):
        assert analytics.usage(measure, account="nobody", declared=["chapters"]) == []


def test_fields_without_a_column(ledger: Ledger, account: Account) -> None:
    """What few requests have is counted by its name: pictures, seconds, caches of an hour; and nothing is no error."""
    usage = {"model": "m", "images": 3, "cache_write_1h_tokens": 40, "measures": {"pages": "1.5"}}
    ledger.write(NAMESPACE, 0, [account.add(10), account.deduct(1, cause=cause_of(usage)), account.deduct(1)])
    analytics = ledger.analytics(NAMESPACE)
    assert [it.quantity for it in analytics.usage("images")] == [3]
    assert [it.quantity for it in analytics.usage("cache_write_1h_tokens")] == [40]
    assert analytics.usage("video_seconds") == []
    assert ledger.verify(NAMESPACE).ok


def test_a_team_that_there_is_not(ledger: Ledger, journal: Journal) -> None:
    """It says whether there is an account at all."""
    user = Account(journal, "u1")
    ledger.write(NAMESPACE, 0, [user.add(5), user.deduct(1)])
    analytics = ledger.analytics(NAMESPACE)
    for account, exists in (("u1", True), ("u2", False)):
        with pytest.raises(TeamNotFoundError) as refused:
            analytics.check_team(account)
        assert refused.value.exists is exists
