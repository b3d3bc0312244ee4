"""The slope of a line through measurements."""

from math import isnan

import pytest

from ducto_redis.benchmark.drift import drift_of


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    """Points on a line give the line's slope per hour, with a standard error of 0."""
    drift = drift_of([0.0, 0.5, 1.0, 2.0], [3.0, 4.0, 5.0, 7.0], "MiB")
    assert drift.per_hour == pytest.approx(2.0)
    assert drift.standard_error == pytest.approx(0.0)
    assert drift.mean == pytest.approx(4.75)


def test_noise_around_a_level_is_within_two_standard_errors() -> None:
    """Values that only jump up and down have a slope that their standard error explains."""
    drift = drift_of([0, 1, 2, 3, 4, 5], [10, 12, 10, 12, 10, 12], "µs")
    assert abs(drift.per_hour) < 2 * drift.standard_error


def test_too_few_points_have_no_slope() -> None:
    """One measurement has no slope, two no error."""
    assert isnan(drift_of([1.0], [2.0], "µs").per_hour)
    two = drift_of([0.0, 1.0], [2.0, 3.0], "µs")
    assert two.per_hour == pytest.approx(1.0)
    assert isnan(two.standard_error)
