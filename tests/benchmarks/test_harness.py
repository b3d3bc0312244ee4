"""Contenders in rounds, and the ratios that come of them."""

import random

from benchmarks.harness import Comparison, Contender, Figure, run


def test_every_contender_is_measured_once_a_round() -> None:
    """In every round each contender is measured once, and the order is not the same in all rounds."""
    measured: list[str] = []

    def contender(name: str) -> Contender:
        return Contender(name, lambda: float(measured.append(name) or 1))

    names = ["a", "b", "c"]
    comparison = Comparison("work", "/s", [contender(name) for name in names], [Figure("a", "b")])
    outcome = run(comparison, family="family", rounds=10, order=random.Random(1))
    rounds = [measured[first : first + 3] for first in range(0, 30, 3)]
    assert all(sorted(names_of_round) == names for names_of_round in rounds)
    assert len({tuple(names_of_round) for names_of_round in rounds}) > 1
    assert {name: len(samples) for name, samples in outcome.samples.items()} == dict.fromkeys(names, 10)


def test_a_ratio_compares_samples_of_the_same_round() -> None:
    """A machine that is half as fast in one round changes the samples of that round, and no ratio."""
    speeds = [100.0, 50.0, 200.0]
    half, whole = iter([speed / 2 for speed in speeds]), iter(speeds)
    figure = Figure("half", "whole")
    comparison = Comparison(
        "work", "/s", [Contender("half", lambda: next(half)), Contender("whole", lambda: next(whole))], [figure]
    )
    outcome = run(comparison, family="family", rounds=3, order=random.Random(1))
    assert outcome.ratios(figure) == [0.5, 0.5, 0.5]
    assert outcome.typical("whole") == 100.0
