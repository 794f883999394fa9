r"""Monotone rational-quadratic splines, entry by entry: both directions and their derivatives.

Between two knots :math:`(x_0, y_0)` and :math:`(x_1, y_1)` the curve is a quotient of quadratics
with given slopes :math:`d_0, d_1` at its ends. With :math:`u = (x - x_0) / (x_1 - x_0)`, v = 1 - u
and the mean slope :math:`s = (y_1 - y_0) / (x_1 - x_0)`,

.. math::
    y = y_0 + (y_1 - y_0) \frac{N}{N + M}, \quad N = u (s u + d_0 v), \; M = v (s v + d_1 u), \quad
    \frac{dy}{dx} = s^2 \, \frac{d_1 u^2 + 2 s u v + d_0 v^2}{(N + M)^2}.

All of it is sums, products and quotients of positive numbers, in both directions. Outside of the
bound the curve is the identity, which it joins with slope 1.

Source:
    Gregory, Delbourgo 1982; as layers of flows Durkan, Bekasov, Murray, Papamakarios 2019, Neural
    spline flows. The discriminant as a sum of squares, the mirrored root and the bounds on slopes
    are ours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.bijections.scaled import bounded
from kappaflow.errors import ArgumentError

LEAST = {"min_bin": 0.01, "min_slope": 0.001}  # float32 resolves knots and slopes well above


@dataclass(frozen=True)
class SplineShape:
    r"""What the splines of a layer have in common.

    Args:
        bins: Number of bins K.
        bound: B: knots lie in [-B, B] on both axes, in units of x.
        min_bin: Least width and height of a bin, as a share of 2 B / K, what equal bins have.
        min_slope: Least slope at a knot; the largest is its reciprocal.

    Raises:
        ArgumentError: An argument is out of its range, or the bins do not fit.

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
        """Numbers that make a spline: K widths, K heights, and the slopes at K - 1 knots."""
        return 3 * self.bins - 1

    @property
    def slope_bound(self) -> float:
        """The largest absolute logarithm of a slope at a knot."""
        return -math.log(self.min_slope)

    @property
    def slopes(self) -> tuple[float, float]:
        r"""The range in which all slopes lie, whatever the numbers.

        Within a bin :math:`\min(d_0, d_1, s^2 / d_0, s^2 / d_1) \le dy/dx` and
        :math:`dy/dx \le \max(d_0, d_1, 2 s)`, and the mean slope s of a bin is at most the widest
        over the narrowest bin. The upper end is reached, the lower one up to a factor of 2.
        """
        steepest = (self.bins - (self.bins - 1) * self.min_bin) / self.min_bin
        lowest = min(self.min_slope, self.min_slope / steepest**2)
        return lowest, max(1 / self.min_slope, 2 * steepest)


def splined(x: Tensor, raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Returns y of x, and the logarithms of the slopes there.

    Args:
        x: (B, C, ...), float32 or wider.
        raw: (B, K + K + K - 1, C, ...), any finite numbers: of widths, of heights, of slopes at
            the inner knots. Zeros make the identity, up to rounding.
        shape: Of the splines.

    Returns:
        y, and log dy/dx, both shaped as x.

    Example:
        >>> shape = SplineShape(2, bound=1.0)
        >>> y, log_slope = splined(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 5, 2), shape)
        >>> y, log_slope
        (tensor([[0.5000, 3.0000]]), tensor([[0., 0.]]))
    """
    pieces = Pieces(x, raw, shape)
    return pieces.y, pieces.log_slope


def unsplined(y: Tensor, raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Returns x of y, and the logarithms of the slopes dx/dy there; arguments as of `splined`."""
    pieces = Pieces(y, raw, shape, is_output=True)
    return pieces.x, -pieces.log_slope


class Pieces:
    """The pieces of the splines on which points lie, and where on them.

    Args:
        points: (B, C, ...).
        raw: (B, 3 K - 1, C, ...).
        shape: Of the splines.
        is_output: Whether the points are y.

    Attributes:
        x: Before the splines.
        u: Where on the piece, from 0 to 1.
        v: 1 - u, without its rounding.
        inside: Whether a point lies within the bound; the numbers of others are those at 0.
        index: The number of its bin, (B, 1, C, ...).
    """

    def __init__(
        self, points: Tensor, raw: Tensor, shape: SplineShape, *, is_output: bool = False
    ) -> None:
        self.shape, self._points = shape, points
        self.inside = points.abs() < shape.bound
        self.safe = torch.where(self.inside, points, 0)  # gradients of others stay finite
        self.exponentials, self.totals, knots = spline_knots(raw, shape)
        along = knots[:, int(is_output), 1:-1]
        self.index = (self.safe.unsqueeze(1) >= along).sum(1, keepdim=True)
        ends = torch.cat((self.index, self.index + 1), 1)
        places = ends.unsqueeze(1).expand(-1, 2, *ends.shape[1:])
        (x0, x1), (self.y0, y1) = (axis.unbind(1) for axis in knots.gather(2, places).unbind(1))
        self.width, self.height = x1 - x0, y1 - self.y0
        self.s = self.height / self.width
        level = torch.zeros_like(raw[:, :1])  # slope 1 at both ends
        slopes = torch.cat((level, raw[:, 2 * shape.bins :], level), 1)
        self.ends, self.raw_ends = ends, slopes.gather(1, ends)
        self.d = bounded(self.raw_ends, shape.slope_bound).exp()
        self.d0, self.d1 = self.d.unbind(1)
        if is_output:
            self.x = torch.where(self.inside, self._solved(x0, x1, y1), points)
        else:
            self.x = points
            self.u, self.v = (self.safe - x0) / self.width, (x1 - self.safe) / self.width
        self.uv = self.u * self.v
        self.n = self.s * self.u.square() + self.d0 * self.uv
        self.m = self.s * self.v.square() + self.d1 * self.uv
        self.sum = self.n + self.m
        self.q = self.d1 * self.u.square() + 2 * self.s * self.uv + self.d0 * self.v.square()

    @property
    def y(self) -> Tensor:
        """Behind the splines."""
        return torch.where(self.inside, self.y0 + self.height * (self.n / self.sum), self._points)

    @property
    def slope(self) -> Tensor:
        """Slopes dy/dx."""
        return torch.where(self.inside, self.q * (self.s / self.sum).square(), 1)

    @property
    def log_slope(self) -> Tensor:
        """Their logarithms."""
        return self.slope.log()

    def _solved(self, x0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
        r"""Returns x of y, and sets u and v.

        With :math:`\eta = (y - y_0) / (y_1 - y_0)` and :math:`\zeta = 1 - \eta` the coefficients
        of :math:`a u^2 + b u + c = 0` are :math:`c = -s \eta`, :math:`b = p + 2 s \eta` and
        a = s - b, where :math:`p = d_0 \zeta - d_1 \eta`; so that the discriminant
        :math:`b^2 - 4 a c = p^2 + 4 s^2 \eta \zeta` is no less than zero, term by term, and the
        root :math:`2 c / (-b - \sqrt{b^2 - 4 a c})` is one of positive terms where p is positive.
        Where it is negative, that holds for the mirrored piece, whose root is v.
        """
        eta, zeta = (self.safe - self.y0) / self.height, (y1 - self.safe) / self.height
        p = self.d0 * zeta - self.d1 * eta
        mirrored = p < 0
        root = (p.square() + 4 * self.s.square() * eta * zeta).sqrt()
        c = 2 * self.s * torch.where(mirrored, zeta, eta)
        rest = torch.where(mirrored, -p, p) + root
        near, far = c / (c + rest), rest / (c + rest)
        self.u, self.v = torch.where(mirrored, far, near), torch.where(mirrored, near, far)
        return torch.where(mirrored, x1 - self.width * near, x0 + self.width * near)


def spline_knots(raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the exponentials of a softmax, their totals, and the knots (B, 2, K + 1, C, ...)."""
    bins = shape.bins
    shares = raw[:, : 2 * bins].unflatten(1, (2, bins))
    exponentials = (shares - shares.detach().amax(2, keepdim=True)).exp()
    sums = exponentials.cumsum(2)
    totals = sums[:, :, -1:]
    counted = torch.arange(1, bins, dtype=raw.dtype, device=raw.device)
    least = counted.mul_(2 * shape.bound * shape.min_bin / bins).sub_(shape.bound)
    least = least.view(-1, *(1,) * (raw.dim() - 2))
    inner = sums[:, :, :-1] * (2 * shape.bound * (1 - shape.min_bin) / totals) + least
    end = torch.full_like(totals, shape.bound)
    return exponentials, totals, torch.cat((-end, inner, end), 2)
