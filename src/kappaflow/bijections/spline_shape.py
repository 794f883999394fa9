"""The shape parameters of a layer of splines, which Python code and the native backend read."""

import math
from dataclasses import dataclass

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.errors import ArgumentError

LEAST = {"min_bin": 0.01, "min_slope": 0.001}  # smallest values that float32 resolves well


@dataclass(frozen=True)
class SplineShape:
    """The shape parameters that all splines of a layer share."""

    bins: int = 8
    bound: float = 5.0  # B: all knots are in [-B, B] on both axes
    min_bin: float = 0.4  # smallest width and height of a bin, relative to 2 B / bins
    min_slope: float = 0.2  # smallest slope at a knot; the largest is its reciprocal

    def __post_init__(self) -> None:
        if positive_int("bins", self.bins) == 1:
            raise ArgumentError("'bins' should be at least 2, got 1: one bin is the identity.")
        positive_float("bound", self.bound)
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not least <= finite_float(name, value) < 1:
                raise ArgumentError(
                    f"'{name}' should be at least {least} and below 1, got {value}."
                )

    @property
    def parameters(self) -> int:
        """Number of parameters of a spline: K widths, K heights, and slopes at K - 1 knots."""
        return 3 * self.bins - 1

    @property
    def text(self) -> str:
        """The values of all parameters, for the `repr` of a layer."""
        return ", ".join(f"{name}={value:g}" for name, value in vars(self).items())

    @property
    def slope_bound(self) -> float:
        """The largest absolute logarithm of a slope at a knot."""
        return -math.log(self.min_slope)

    @property
    def slopes(self) -> tuple[float, float]:
        """The range of all slopes, for any parameters of the splines."""
        # Within a bin, min(d0, d1, s^2 / d0, s^2 / d1) <= dy/dx <= max(d0, d1, 2 s). The mean
        # slope s is at most the ratio of the widest to the narrowest bin.
        steepest = (self.bins - (self.bins - 1) * self.min_bin) / self.min_bin
        lowest = min(self.min_slope, self.min_slope / steepest**2)
        return lowest, max(1 / self.min_slope, 2 * steepest)
