"""Loads that tests start, and that are closed after them."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.failover.load import LOADS, Load

StartLoad = Callable[..., Load]


@pytest.fixture
def start_load(namespace: str) -> Iterator[StartLoad]:
    """Makes callers of a namespace of their own: `start_load("async", url, timeout_seconds=10)`."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, url: str, *, timeout_seconds: float = 10.0) -> Load:
            load = LOADS[kind](url, namespace, timeout_seconds=timeout_seconds)
            stack.callback(load.close)
            return load

        yield start
