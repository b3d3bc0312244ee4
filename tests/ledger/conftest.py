"""Fixtures for the ledger's tests."""

from collections.abc import Iterator

import pytest

from ducto_redis.ledger import Ledger
from tests.ledger.entries import Account, Journal


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A migrated ledger; the test runs on SQLite and on PostgreSQL."""
    ledger = Ledger.from_url(ledger_url)
    ledger.migrate()
    yield ledger
    ledger.close()


@pytest.fixture
def memory_ledger() -> Iterator[Ledger]:
    """A migrated ledger in memory."""
    ledger = Ledger.from_url("sqlite://")
    ledger.migrate()
    yield ledger
    ledger.close()


@pytest.fixture
def journal() -> Journal:
    """A journal to write entries to."""
    return Journal()


@pytest.fixture
def account(journal: Journal) -> Account:
    """An account in it."""
    return Account(journal, "u1")
