"""The environment: addresses of the engine and the ledger.

URLs hold passwords, so they are never taken as arguments, which every user of a machine can read.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from ducto_redis.display import counted
from ducto_redis.engine.keys import DEFAULT_PARTITIONS
from ducto_redis.errors import ConfigError
from ducto_redis.manager import CreditManager
from ducto_redis.manager.ledger_access import ledger_for
from ducto_redis.run_sync import run_sync
from ducto_redis.store import JournalledStore
from ducto_redis.store.contract import NamespaceState
from ducto_redis.store.urls import store_from_url

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger

REDIS_URL = "DUCTO_REDIS_URL"
LEDGER_URL = "DUCTO_LEDGER_URL"
NAMESPACE = "DUCTO_NAMESPACE"
PARTITIONS = "DUCTO_PARTITIONS"


def redis_url() -> str:
    """Return the engine's URL. Raises ConfigError where another process cannot use it."""
    url = os.environ.get(REDIS_URL, "")
    if not url:
        raise ConfigError(
            f"{REDIS_URL} is not set; say where the engine is: export {REDIS_URL}=redis://localhost:6379/0"
        )
    if url.startswith("memory:"):
        raise ConfigError(f"{REDIS_URL} is memory://, which lives inside one process; the command line needs a server")
    return url


def has_redis_url() -> bool:
    """Tell whether the environment names an engine."""
    return bool(os.environ.get(REDIS_URL))


def ledger_url() -> str | None:
    """Return the ledger's URL, or None."""
    return os.environ.get(LEDGER_URL) or None


def namespace() -> str:
    """Return the namespace's name."""
    return os.environ.get(NAMESPACE) or "ducto"


def partitions() -> int:
    """Return the number of partitions of the namespace. Raises ConfigError."""
    text = os.environ.get(PARTITIONS) or str(DEFAULT_PARTITIONS)
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ConfigError(f"{PARTITIONS} is a number of partitions, not {text!r:.40}")
    return int(text)


@contextmanager
def open_store() -> Iterator[JournalledStore]:
    """Open the blocking store. Nothing is created in it."""
    store = store_from_url(redis_url(), namespace=namespace(), partitions=partitions(), blocking=True)
    try:
        yield store
    finally:
        run_sync(store.close())


@contextmanager
def open_manager(*, create: bool = False) -> Iterator[CreditManager]:
    """Open a manager on the namespace.

    Args:
        create: whether to create the namespace where there is none. Without it, a mistyped URL or name is an error
            instead of an empty namespace.

    Raises:
        ConfigError: if the environment is wrong, or there is no such namespace.
        StoreError
    """
    manager = CreditManager.from_url(redis_url(), ledger_url(), namespace=namespace(), partitions=partitions())
    try:
        missing = run_sync(manager.store.read_namespace()) is NamespaceState.MISSING
        if missing and not create:
            raise ConfigError(
                f"there is no namespace {namespace()!r} there: check {REDIS_URL} and {NAMESPACE}. An application, "
                "`ducto credits add` or `ducto pricing set` creates it"
            )
        manager.open()
        if missing and manager.core.ledger is not None:  # without one, the manager itself warns of it
            typer.echo(f"created the namespace {namespace()!r} with {counted(partitions(), 'partition')}", err=True)
        yield manager
    finally:
        manager.close()


@contextmanager
def open_ledger() -> Iterator["Ledger"]:
    """Open the ledger; that of an `embedded://` engine where DUCTO_LEDGER_URL is not set. Raises ConfigError."""
    ledger = find_ledger()
    if ledger is None:
        raise ConfigError(
            f"{LEDGER_URL} is not set; say where the ledger is: export {LEDGER_URL}=postgresql://user@localhost/ducto,"
            f" or {LEDGER_URL}=sqlite:////var/lib/ducto/ledger.db"
        )
    try:
        yield ledger
    finally:
        ledger.close()


def find_ledger() -> "Ledger | None":
    """Return the ledger that the environment names, or None."""
    return ledger_for(os.environ.get(REDIS_URL, ""), ledger_url())
