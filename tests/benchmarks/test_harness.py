"""Contenders in rounds, and the figures that come of them."""

import random
from collections.abc import Mapping, Sequence

import pytest

from ducto_redis.benchmark.harness import Comparison, Contender, Figure, Outcome, Target, run
from ducto_redis.benchmark.report import rows


def outcome(figures: Sequence[Figure], samples: Mapping[str, Sequence[float]]) -> Outcome:
    return Outcome("family", "work", "µs", figures, samples)


def test_every_contender_is_measured_once_a_round() -> None:
    """In every round each contender is measured once, and the order is not the same in all rounds."""
    measured: list[str] = []

    def contender(name: str) -> Contender:
        return Contender(name, lambda: float(measured.append(name) or 1))

    names = ["a", "b", "c"]
    comparison = Comparison("work", "/s", [contender(name) for name in names], [Figure("a", "b")])
    measured_outcome = run(comparison, family="family", rounds=4, order=random.Random(1))
    rounds = [measured[first : first + 3] for first in range(0, 12, 3)]
    assert all(sorted(names_of_round) == names for names_of_round in rounds)
    assert len({tuple(names_of_round) for names_of_round in rounds}) > 1
    assert {name: len(samples) for name, samples in measured_outcome.samples.items()} == dict.fromkeys(names, 4)


def test_a_ratio_compares_samples_of_the_same_round() -> None:
    """A machine that is half as fast in one round changes the samples of that round, and no ratio."""
    figure = Figure("half", "whole")
    halves = outcome([figure], {"half": [50.0, 25.0, 100.0], "whole": [100.0, 50.0, 200.0]})
    assert halves.values(figure) == [0.5, 0.5, 0.5]
    assert halves.value(figure) == 0.5
    assert halves.typical("whole") == 100.0


def test_a_difference_and_a_figure_that_stands_alone() -> None:
    """What a contender takes beyond its limit is a difference of the same round; without a limit it is the samples."""
    beyond, alone = Figure("metered", "bare", kind="difference"), Figure("metered")
    overhead = Figure("metered", "bare", kind="overhead")
    both = outcome([beyond, alone, overhead], {"metered": [5.0, 9.0, 6.0], "bare": [2.0, 3.0, 1.0]})
    assert both.values(beyond) == [3.0, 6.0, 5.0]
    assert both.values(overhead) == [1.5, 2.0, 5.0]
    assert (overhead.is_ratio, beyond.is_ratio) == (True, False)
    assert both.value(alone) == 6.0


@pytest.mark.parametrize(
    ("target", "value", "met", "shown"),
    [
        (Target(at_least=0.8), 0.8, True, "≥ 0.80"),
        (Target(at_least=0.8), 0.79, False, "≥ 0.80"),
        (Target(at_most=1.5), 1.5, True, "≤ 1.50"),
        (Target(at_most=1.5), 1.51, False, "≤ 1.50"),
        (Target(0.9, 1.1), 1.0, True, "0.90 to 1.10"),
        (Target(0.9, 1.1), 1.2, False, "0.90 to 1.10"),
        (Target(0.9, 1.1), 0.8, False, "0.90 to 1.10"),
    ],
)
def test_a_target_is_met_or_not(target: Target, value: float, met: bool, shown: str) -> None:
    """The bounds themselves meet a target, and the table says both."""
    figure = Figure("contender", "limit", target=target)
    (row,) = rows([outcome([figure], {"contender": [value], "limit": [1.0]})])
    assert (row.target, row.verdict) == (shown, "met" if met else "not met")
    assert row.figure == f"{value:.2f}"


def test_a_figure_without_target_says_nothing_of_it() -> None:
    """No target: neither met nor missed."""
    (row,) = rows([outcome([Figure("contender")], {"contender": [4.0]})])
    assert (row.measured, row.figure, row.target, row.verdict) == ("4.00 µs", "4.00 µs", "", "")
