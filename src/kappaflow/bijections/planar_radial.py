"""Planar and radial maps."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kappaflow._checks import batch, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_traced, is_transformed
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.registry import register

SHIFT = math.log(math.e - 1)


def positive(raw: Tensor) -> Tensor:
    """Returns softplus(raw + SHIFT), which is positive, and 1 at 0."""
    return softplus(raw + SHIFT)


def log_slope(excess: Tensor, slope: Tensor) -> Tensor:
    """Returns log(slope) for slope = 1 + excess, from the more accurate of the two."""
    return torch.where(excess > -0.5, excess.clamp(min=-0.5).log1p(), slope.log())


class RankOneLinearization(Linearization):
    """Linearization of a map with Jacobian J = a 1 + l r^T; J^-1 is by Sherman and Morrison.

    `scale` is a, (B, 1), and `left` and `right` are l and r, (B, n) or (n,). `scale_along` is the
    eigenvalue a + r.l of l, (B, 1), which the caller can compute without cancellation.
    """

    def __init__(
        self,
        value: Tensor,
        log_det: Tensor,
        *,
        scale: Tensor,
        left: Tensor,
        right: Tensor,
        scale_along: Tensor,
    ) -> None:
        self.value, self.log_det = value, log_det
        self._scale, self._left, self._right = scale, left, right
        self._scale_along = scale_along

    def jv(self, v: Tensor) -> Tensor:
        return self._times(v, self._left, self._right)

    def vjp(self, u: Tensor) -> Tensor:
        return self._times(u, self._right, self._left)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._solve(w, self._left, self._right)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._solve(y, self._right, self._left)

    def _times(self, v: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return (self._scale * v + left * _dot(right, v)).to(v.dtype)

    def _solve(self, v: Tensor, left: Tensor, right: Tensor) -> Tensor:
        along = left * (_dot(right, v) / self._scale_along)
        return ((v - along) / self._scale).to(v.dtype)


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1, keepdim=True)


MOST_STEPS = 100  # limit on Newton steps; at most 50 are needed to reach the precision of a dtype


@register("Planar")
class Planar(Bijection):
    r"""The planar map z = x + v tanh(w.x + b), with v computed from u so that w.v > -1.

    With :math:`v = u + (m(w \cdot u) - w \cdot u)\, w / |w|^2` the product is
    :math:`w \cdot v = m(w \cdot u)`, where m is a shifted softplus above -1 with m(0) = 0. So v
    stays bounded and approaches u as w goes to zero. The source has m(0) = -1 + log 2, with which
    v is unbounded. The log_det is :math:`\log(1 + (1 - \tanh^2(w \cdot x + b))\, w \cdot v)`.

    The inverse finds s = w.x + b, the only root of s + (w.v) tanh(s) = w.z + b, by Newton's
    method. It starts at the end of a bracket from which no step overshoots the root.

    Args:
        features: Number n of features.
        seed: Seed of the random initial direction w; torch's global generator by default.

    Attributes:
        u: The vector u, (n,). It starts at zero, so that the map is the identity.
        w: The direction w, (n,). It starts with length 1; if it were zero as well, no parameter
            would have a gradient.
        b: The scalar b, (), which starts at zero.

    Note:
        Derivatives through the inverse are correct up to the third order, because two Newton steps
        at the root are part of the graph.

    Source:
        Rezende, Mohamed 2015, Variational inference with normalizing flows, section 4.1 and
        appendix A.1; the direction here is data to latent.

    Example:
        >>> layer = Planar(2)
        >>> with torch.no_grad():
        ...     _ = layer.w.copy_(torch.tensor([1.0, 0.0]))
        ...     _ = layer.u.copy_(torch.tensor([0.0, 2.0]))
        >>> z, log_det = layer(torch.tensor([[0.5, 1.0]]))
        >>> z.detach(), layer.inverse(z)[0].detach()
        (tensor([[0.5000, 1.9242]]), tensor([[0.5000, 1.0000]]))
    """

    def __init__(self, features: int, *, seed: int | None = None) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.u = nn.Parameter(torch.zeros(features))
        self.w = nn.Parameter(_direction(features, seed))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_wider, v, w, b, slope = self._numbers("x", x)
        bend = torch.tanh((x_wider * w).sum(1) + b)
        return (x_wider + bend[:, None] * v).to(x.dtype), _log_slope_at(bend, slope)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_wider, v, w, b, slope = self._numbers("z", z)
        bend = torch.tanh(_root((z_wider * w).sum(1) + b, slope))
        return (z_wider - bend[:, None] * v).to(z.dtype), -_log_slope_at(bend, slope)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        x_wider, v, w, b, slope = self._numbers("x", x)
        bend = torch.tanh((x_wider * w).sum(1, keepdim=True) + b)
        along = _slope_at(bend, slope)
        return RankOneLinearization(
            (x_wider + bend * v).to(x.dtype),
            _log_slope_at(bend, slope).squeeze(1),
            scale=torch.ones_like(bend),
            left=(1 - bend.square()) * v,
            right=w,
            scale_along=along,
        )

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns x, v, w, b and 1 + w.v, all in the dtype of the computation."""
        batch(name, x, (self.features,))
        dtype = torch.promote_types(log_det_dtype(x.dtype), self.w.dtype)
        u, w, b = self.u.to(dtype), self.w.to(dtype), self.b.to(dtype)
        product, square = (w * u).sum(), w.square().sum()
        slope = positive(product)
        v = u + (slope - 1 - product) * w / torch.where(square > 0, square, 1)
        return x.to(dtype), v, w, b, slope

    def extra_repr(self) -> str:
        return f"features={self.features}"


def _direction(features: int, seed: int | None) -> Tensor:
    """Returns a random vector of length 1."""
    generator = None
    if seed is not None:
        generator = torch.Generator().manual_seed(natural_int("seed", seed))
    vector = torch.randn(features, generator=generator, dtype=torch.float64)
    return (vector / vector.norm()).to(torch.get_default_dtype())


def _slope_at(bend: Tensor, slope: Tensor) -> Tensor:
    """Returns 1 + (1 - tanh^2) w.v, given tanh and 1 + w.v > 0, as a sum of nonnegative terms."""
    squared = bend.square()
    return squared + (1 - squared) * slope


def _log_slope_at(bend: Tensor, slope: Tensor) -> Tensor:
    """Returns the logarithm of `_slope_at`."""
    return log_slope((1 - bend.square()) * (slope - 1), _slope_at(bend, slope))


def _root(target: Tensor, slope: Tensor) -> Tensor:
    """Returns s with h(s) = s + (slope - 1) tanh(s) = target, (B,), with its derivatives."""
    s = _found(target.detach(), slope.detach())
    for _ in range(2):
        bend = torch.tanh(s)
        s = s - (s + (slope - 1) * bend - target) / _slope_at(bend, slope)
    return s


@torch.no_grad()
def _found(target: Tensor, slope: Tensor) -> Tensor:
    """Returns the root s to the precision of the dtype."""
    # h is odd, so the search uses |target|. For s >= 0, h is concave if its slope at zero is above
    # 1, and Newton's steps rise to the root from the lower end of a bracket. Otherwise h is
    # convex, and the steps fall from the upper end. No step overshoots the root.
    if is_traced(target):
        raise ArgumentError("the inverse of Planar is a search, which a program cannot record.")
    size, rounding = target.abs(), 4 * torch.finfo(target.dtype).eps
    upper = torch.minimum(size + 1 - slope, size / slope)
    s = torch.where(slope > 1, (size + 1 - slope).clamp(min=0), upper)
    for _ in range(MOST_STEPS):
        bend = torch.tanh(s)
        excess = s + (slope - 1) * bend - size
        # Transforms of torch.func cannot branch on values, so they take all steps.
        if not is_transformed() and bool((excess.abs() <= rounding * (s + size)).all()):
            break
        s = s - excess / _slope_at(bend, slope)
    return s.copysign(target)


@register("Radial")
class Radial(Bijection):
    r"""The radial map z = x + beta (x - x_0) / (alpha + r), where r = |x - x_0|.

    alpha is above 0 and beta above -alpha. With h = 1 / (alpha + r) and n features, the log_det is
    :math:`(n - 1) \log(1 + \beta h) + \log(1 + \alpha \beta h^2)`. The inverse has a closed form,
    because :math:`|z - x_0| = r (1 + \beta h)` is a quadratic equation for r.

    Args:
        features: Number n of features.
        seed: Seed of the initial center, drawn from N(0, I); torch's global generator by default.

    Attributes:
        center: The center x_0, (n,).
        raw_alpha: A scalar, (), from which a softplus computes alpha. It starts at zero, where
            alpha is 1.
        raw_ratio: A scalar, (), from which a softplus computes 1 + beta / alpha. It starts at
            zero, where the ratio is 1 and the map is the identity.

    Source:
        Rezende, Mohamed 2015, Variational inference with normalizing flows, section 4.1 and
        appendix A.2; the direction here is data to latent.

    Example:
        >>> layer = Radial(1)
        >>> with torch.no_grad():
        ...     _ = layer.center.zero_(), layer.raw_ratio.fill_(2.0)
        >>> z = layer(torch.tensor([[-1.0], [1.0]]))[0]
        >>> layer.inverse(z)[0].detach()
        tensor([[-1.],
                [ 1.]])
    """

    def __init__(self, features: int, *, seed: int | None = None) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(natural_int("seed", seed))
        self.center = nn.Parameter(torch.randn(features, generator=generator))
        self.raw_alpha = nn.Parameter(torch.zeros(()))
        self.raw_ratio = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_wider, away, alpha, ratio = self._numbers("x", x)
        at = _Slopes(_length(away), alpha, ratio)
        return (x_wider + at.push[:, None] * away).to(x.dtype), self._log_det(at)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_wider, away, alpha, ratio = self._numbers("z", z)
        at = _Slopes(_radius(_length(away), alpha, ratio), alpha, ratio)
        x = z_wider - (at.push / at.across)[:, None] * away
        return x.to(z.dtype), -self._log_det(at)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        x_wider, away, alpha, ratio = self._numbers("x", x)
        length = _length(away)
        at = _Slopes(length, alpha, ratio)
        outwards = away / torch.where(length > 0, length, 1)[:, None]
        return RankOneLinearization(
            (x_wider + at.push[:, None] * away).to(x.dtype),
            self._log_det(at),
            scale=at.across[:, None],
            left=(at.along - at.across)[:, None] * outwards,
            right=outwards,
            scale_along=at.along[:, None],
        )

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns x, x - x_0, alpha and 1 + beta / alpha in the dtype of the computation."""
        batch(name, x, (self.features,))
        dtype = torch.promote_types(log_det_dtype(x.dtype), self.center.dtype)
        x_wider = x.to(dtype)
        alpha, ratio = positive(self.raw_alpha.to(dtype)), positive(self.raw_ratio.to(dtype))
        return x_wider, x_wider - self.center.to(dtype), alpha, ratio

    def _log_det(self, at: "_Slopes") -> Tensor:
        across = log_slope(at.push, at.across)
        return (self.features - 1) * across + log_slope(at.near * at.push, at.along)

    def extra_repr(self) -> str:
        return f"features={self.features}"


def _length(away: Tensor) -> Tensor:
    """Returns the length of each row; its derivative is zero for a row of length zero."""
    square = away.square().sum(1)
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)


class _Slopes:
    """Slopes of a radial map at distances r from its center, (B,), without cancellation.

    `near` is alpha h and `push` is beta h. `across` is the slope 1 + beta h perpendicular to the
    direction of the center, and `along` the slope 1 + alpha beta h^2 in that direction.
    """

    def __init__(self, length: Tensor, alpha: Tensor, ratio: Tensor) -> None:
        far = length / (alpha + length)
        self.near = alpha / (alpha + length)
        self.push = self.near * (ratio - 1)
        self.across = far + self.near * ratio
        self.along = far * (1 + self.near) + self.near.square() * ratio


def _radius(length: Tensor, alpha: Tensor, ratio: Tensor) -> Tensor:
    """Returns the nonnegative root r of r (r + alpha ratio) / (r + alpha) = length."""
    p = alpha * ratio - length
    # The sign of p selects the form of the root without cancellation.
    q = p.abs() + (p.square() + 4 * alpha * length).sqrt()
    return torch.where(p > 0, 2 * alpha * length / q, q / 2)
