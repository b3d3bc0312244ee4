"""The contract of a peer."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from benchmarks.setting import Setting
from ducto_redis.benchmark.harness import BenchmarkError


class Peer(Struct, frozen=True):
    """Another way to charge.

    Attributes:
        name: what it is called in tables.
        rate: charges per second, given the setting, the accounts and how many charges.
        is_async: whether it runs on an event loop.
        lacks: what it does not do.
    """

    name: str
    rate: Callable[[Setting, Sequence[str], int], float]
    is_async: bool
    lacks: str


CHARGE = 5_680_000
"""Micro-credits that each peer charges: the price of the usage that ducto-redis is given."""


def check(name: str, charged: int, expected: int) -> None:
    """Raise BenchmarkError unless a peer made as many charges as it was asked for."""
    if charged != expected:
        raise BenchmarkError(f"{name} made {charged} charges instead of {expected}")
