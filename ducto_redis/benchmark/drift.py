"""The slope of what is measured again and again."""

from collections.abc import Sequence
from math import nan, sqrt
from statistics import fmean

from msgspec import Struct


class Drift(Struct, frozen=True):
    """A straight line through measurements, by least squares.

    Attributes:
        mean: of what was measured.
        per_hour: the line's slope.
        standard_error: of the slope; nan for fewer than three measurements. A slope within two of it is noise.
        unit: of what was measured.
    """

    mean: float
    per_hour: float
    standard_error: float
    unit: str

    def __str__(self) -> str:
        return (
            f"{self.per_hour:+,.2f} {self.unit}, standard error {self.standard_error:,.2f}"
            f" (mean {self.mean:,.2f} {self.unit})"
        )


def drift_of(hours: Sequence[float], values: Sequence[float], unit: str) -> Drift:
    """Return the drift of values that were measured at these hours."""
    if len(hours) < 2:
        return Drift(fmean(values) if values else nan, nan, nan, unit)
    middle, mean = fmean(hours), fmean(values)
    spread = sum((hour - middle) ** 2 for hour in hours)
    slope = sum((hour - middle) * (value - mean) for hour, value in zip(hours, values, strict=True)) / spread
    if len(hours) < 3:
        return Drift(mean, slope, nan, unit)
    residuals = sum((value - mean - slope * (hour - middle)) ** 2 for hour, value in zip(hours, values, strict=True))
    return Drift(mean, slope, sqrt(residuals / (len(hours) - 2) / spread), unit)
