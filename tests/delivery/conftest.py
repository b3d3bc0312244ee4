"""Fixtures of consumers, for the workers that deliver events."""

from tests.journal.conftest import engine, ledger, store, valkey_store

__all__ = ["engine", "ledger", "store", "valkey_store"]
