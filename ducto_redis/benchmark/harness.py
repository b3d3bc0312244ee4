"""Contenders measured in turn, and figures: one contender as a ratio to another, its limit.

The machine is never quiet, and never twice the same. So nothing is compared that was not measured in the same round,
and a figure is the median of its rounds' ratios.
"""

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Literal, TypeAlias, TypeVar

from msgspec import Struct

Unit: TypeAlias = Literal["/s", "µs", "bytes"]
"""What a sample counts: things done per second, where more is better, or what one takes, where less is."""


class BenchmarkError(Exception):
    """A contender did not do the work that it was measured for, or the run cannot be made as it was asked for."""


class Contender(Struct, frozen=True):
    """A way to do the work. `measure` does it once, in a fresh state, and returns one sample."""

    name: str
    measure: Callable[[], float]


class Target(Struct, frozen=True):
    """Bounds of a figure: at least, at most, or between."""

    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Tell whether a figure is within the bounds."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Figure(Struct, frozen=True):
    """A number read from a comparison.

    Attributes:
        contender: whose samples.
        limit: the contender that they are compared with; None for a figure that stands alone, in the comparison's unit.
        kind: the ratio to the limit; what the contender takes beyond it, in the comparison's unit; or `overhead`, what
            it takes beyond it, as a ratio to it.
        target: what it should be.
    """

    contender: str
    limit: str | None = None
    kind: Literal["ratio", "difference", "overhead"] = "ratio"
    target: Target | None = None

    @property
    def is_ratio(self) -> bool:
        """True where it has no unit."""
        return self.limit is not None and self.kind != "difference"


class Comparison(Struct, frozen=True):
    """Contenders that do the same work, and what is read from them."""

    work: str
    unit: Unit
    contenders: Sequence[Contender]
    figures: Sequence[Figure]


S = TypeVar("S")

Family: TypeAlias = Callable[[S], Iterator[Comparison]]
"""Makes comparisons that belong together, of a setting. They are made, and measured, one after the other."""


class Outcome(Struct, frozen=True):
    """The samples of a comparison, by contender and in the order of the rounds."""

    family: str
    work: str
    unit: Unit
    figures: Sequence[Figure]
    samples: Mapping[str, Sequence[float]]

    def typical(self, contender: str) -> float:
        """Return the median of a contender's samples."""
        return median(self.samples[contender])

    def values(self, figure: Figure) -> list[float]:
        """Return the figure of each round."""
        samples = self.samples[figure.contender]
        if figure.limit is None:
            return list(samples)
        pairs = zip(samples, self.samples[figure.limit], strict=True)
        match figure.kind:
            case "ratio":
                return [sample / limit for sample, limit in pairs]
            case "difference":
                return [sample - limit for sample, limit in pairs]
            case "overhead":
                return [(sample - limit) / limit for sample, limit in pairs]

    def value(self, figure: Figure) -> float:
        """Return the median of the rounds' figures."""
        return median(self.values(figure))

    def is_met(self, figure: Figure) -> bool | None:
        """Tell whether the figure meets its target; None where it has none."""
        return None if figure.target is None else figure.target.is_met(self.value(figure))


def run(comparison: Comparison, *, family: str, rounds: int, order: random.Random) -> Outcome:
    """Measure every contender once a round, each round in an order of its own, so that noise hits all alike."""
    samples: dict[str, list[float]] = {contender.name: [] for contender in comparison.contenders}
    for _ in range(rounds):
        for contender in order.sample(comparison.contenders, len(comparison.contenders)):
            gc.collect()  # nobody pays for another's garbage
            samples[contender.name].append(contender.measure())
    return Outcome(family, comparison.work, comparison.unit, comparison.figures, samples)
