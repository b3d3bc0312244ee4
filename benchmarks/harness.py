"""Contenders measured in turn, and figures: one contender as a ratio to another, its limit.

The machine is never quiet, and never twice the same. So nothing is compared that was not measured in the same round,
and a figure is the median of its rounds' ratios.
"""

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from benchmarks.setting import Setting

Unit: TypeAlias = Literal["/s", "µs"]
"""What a sample counts: things done per second, where more is better, or microseconds for one, where less is."""


class BenchmarkError(Exception):
    """A contender did not do the work that it was measured for, or the run cannot be made as it was asked for."""


class Contender(Struct, frozen=True):
    """A way to do the work. `measure` does it once, in a fresh state, and returns one sample."""

    name: str
    measure: Callable[[], float]


class Figure(Struct, frozen=True):
    """A contender as a ratio to its limit, which is a contender as well."""

    contender: str
    limit: str


class Comparison(Struct, frozen=True):
    """Contenders that do the same work, and what is read from them."""

    work: str
    unit: Unit
    contenders: Sequence[Contender]
    figures: Sequence[Figure]


Family: TypeAlias = Callable[["Setting"], Iterator[Comparison]]
"""Comparisons that belong together. They are made, and measured, one after the other."""


class Outcome(Struct, frozen=True):
    """The samples of a comparison, by contender and in the order of the rounds."""

    family: str
    work: str
    unit: Unit
    figures: Sequence[Figure]
    samples: Mapping[str, Sequence[float]]

    def typical(self, contender: str) -> float:
        """The median of a contender's samples."""
        return median(self.samples[contender])

    def ratios(self, figure: Figure) -> list[float]:
        """The figure in each round."""
        pairs = zip(self.samples[figure.contender], self.samples[figure.limit], strict=True)
        return [sample / limit for sample, limit in pairs]


def run(comparison: Comparison, *, family: str, rounds: int, order: random.Random) -> Outcome:
    """Measure every contender once a round, each round in an order of its own, so that noise hits all alike."""
    samples: dict[str, list[float]] = {contender.name: [] for contender in comparison.contenders}
    for _ in range(rounds):
        for contender in order.sample(comparison.contenders, len(comparison.contenders)):
            gc.collect()  # nobody pays for another's garbage
            samples[contender.name].append(contender.measure())
    return Outcome(family, comparison.work, comparison.unit, comparison.figures, samples)
