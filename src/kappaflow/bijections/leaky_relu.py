"""The leaky ReLU, the nonlinearity of invertible networks."""

import math

import torch
from torch import Tensor

from kappaflow._checks import batch, finite_float, positive_float
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.linearization import ElementwiseLinearization, Linearization
from kappaflow.registry import register


@register("LeakyReLU")
class LeakyReLU(Bijection):
    r"""z = x where x is not negative, and negative_slope times x where it is.

    With some smoothing t the corner is rounded: of the two lines z becomes a branch of the
    hyperbola :math:`z = \frac{1 + s}{2} x + \frac{1 - s}{2} \sqrt{x^2 + t^2}`, s the negative
    slope, whose slopes lie between s and 1 and whose inverse is in closed form.

    Args:
        negative_slope: s, above 0.
        smoothing: t, 0 or more, in units of x; 0 is the leaky ReLU itself.

    Raises:
        ArgumentError: An argument is out of its range.

    Note:
        Likelihoods of networks with a corner are trained badly. Their log_det counts the negative
        numbers, so that its derivative is zero between jumps, and no gradient knows of the
        jumps, by which the mean over data changes as points pass the corner.

    Source:
        The rounded form: Barron 2021, Squareplus, for s = 0.

    Example:
        >>> LeakyReLU(0.5)(torch.tensor([[-2.0, 3.0]]))
        (tensor([[-1.,  3.]]), tensor([-0.6931]))
    """

    def __init__(self, negative_slope: float = 0.2, *, smoothing: float = 0.0) -> None:
        super().__init__()
        self.negative_slope = positive_float("negative_slope", negative_slope)
        self.smoothing = finite_float("smoothing", smoothing)
        if self.smoothing < 0:
            raise ArgumentError(f"'smoothing' should be at least 0, got {smoothing}.")
        self._mean = (1 + self.negative_slope) / 2  # of the two slopes
        self._half = (1 - self.negative_slope) / 2  # their difference

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch("x", x)
        if self.smoothing:
            z = (self._mean * x + self._half * self._rounded(x)).to(x.dtype)
        else:
            z = torch.where(x < 0, x * self.negative_slope, x)
        return z, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wide = batch("z", z).to(log_det_dtype(z.dtype))
        if self.smoothing:
            slope = self.negative_slope
            root = (wide.square() + slope * self.smoothing**2).sqrt()
            x = (self._mean * wide - self._half * root) / slope
        else:
            x = torch.where(wide < 0, wide / self.negative_slope, wide)
        return x.to(z.dtype), -self._log_det(x)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        slopes = self._slopes(x)
        return ElementwiseLinearization(value, log_det, slopes, 1 / slopes)

    def _rounded(self, x: Tensor) -> Tensor:
        """Returns |x| with a rounded corner."""
        return (x.to(log_det_dtype(x.dtype)).square() + self.smoothing**2).sqrt()

    def _slopes(self, x: Tensor) -> Tensor:
        if self.smoothing:
            return self._mean + self._half * x / self._rounded(x)
        slopes = torch.ones_like(x, dtype=log_det_dtype(x.dtype))
        return slopes.masked_fill(x < 0, self.negative_slope)

    def _log_det(self, x: Tensor) -> Tensor:
        if self.smoothing:
            return self._slopes(x).log().flatten(1).sum(1)
        count = (x < 0).flatten(1).sum(1).to(log_det_dtype(x.dtype))
        return count * math.log(self.negative_slope)

    def extra_repr(self) -> str:
        rounded = f", smoothing={self.smoothing:g}" if self.smoothing else ""
        return f"negative_slope={self.negative_slope:g}{rounded}"
