"""A run: families, one after the other, on one setting."""

import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from ducto_redis.benchmark.accounts import accounts, growth
from ducto_redis.benchmark.harness import Family, Outcome, run
from ducto_redis.benchmark.latency import latency
from ducto_redis.benchmark.memory import memory
from ducto_redis.benchmark.pricing import pricing
from ducto_redis.benchmark.setting import Setting
from ducto_redis.benchmark.throughput import throughput

S = TypeVar("S", bound=Setting)

FAMILIES: dict[str, Family[Setting]] = {
    "pricing": pricing,
    "throughput": throughput,
    "latency": latency,
    "accounts": accounts,
    "growth": growth,
    "memory": memory,
}
"""What can run on any server."""

SEED = 20260101
ROUNDS = 5
QUICK_ROUNDS = 1
QUICK_SCALE = 0.1


def outcomes_of(families: Mapping[str, Family[S]], names: Sequence[str], setting: S, rounds: int) -> list[Outcome]:
    """Measure the named families."""
    order = random.Random(setting.seed)
    outcomes = []
    for name in names:
        for comparison in families[name](setting):
            progress(f"{name}: {comparison.work}")
            outcomes.append(run(comparison, family=name, rounds=rounds, order=order))
    progress("")
    return outcomes


def progress(text: str) -> None:
    """Say on a terminal what is being done; an empty text wipes it away."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextmanager
def tidy_when_terminated() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: what it has written is deleted."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
