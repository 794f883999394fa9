"""The shape parameters of a layer of splines, which Python code and the native backend read."""

import math
from dataclasses import dataclass

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.errors import ArgumentError

LEAST = {"min_bin": 0.01, "min_slope": 0.001}  # smallest values that float32 resolves well


@dataclass(frozen=True)
class SplineShape:
    r"""The shape parameters that all splines of a layer share.

    Args:
        bins: Number of bins K.
        bound: The bound B in units of x; all knots are in [-B, B] on both axes.
        min_bin: Smallest width and height of a bin, relative to the width 2 B / K of equal bins.
        min_slope: Smallest slope at a knot; the largest is its reciprocal.

    Raises:
        ArgumentError: An argument is out of its range.

    Example:
        >>> SplineShape(8).parameters
        23
    """

    bins: int = 8
    bound: float = 5.0
    min_bin: float = 0.4
    min_slope: float = 0.2

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
    def slope_bound(self) -> float:
        """The largest absolute logarithm of a slope at a knot."""
        return -math.log(self.min_slope)

    @property
    def slopes(self) -> tuple[float, float]:
        r"""The range of all slopes, for any parameters of the splines.

        Within a bin, :math:`\min(d_0, d_1, s^2 / d_0, s^2 / d_1) \le dy/dx` and
        :math:`dy/dx \le \max(d_0, d_1, 2 s)`. The mean slope s of a bin is at most the ratio of
        the widest to the narrowest bin. The upper end is attained, and the lower end up to a
        factor of 2.
        """
        steepest = (self.bins - (self.bins - 1) * self.min_bin) / self.min_bin
        lowest = min(self.min_slope, self.min_slope / steepest**2)
        return lowest, max(1 / self.min_slope, 2 * steepest)
