"""Planar maps: points move along one direction, by where they lie along another."""

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.rank_one import RankOneLinearization
from kappaflow.bijections.slopes import log_slope, positive
from kappaflow.linearization import Linearization
from kappaflow.registry import register

MOST_STEPS = 100  # of the search; right ones need at most 50 as far as a type can tell its numbers


@register("Planar")
class Planar(Bijection):
    r"""z = x + v tanh(w.x + b), with v made of u so that w.v > -1.

    With :math:`v = u + (m(w \cdot u) - w \cdot u)\, w / |w|^2` the product is
    :math:`w \cdot v = m(w \cdot u)`, where m is a softplus that is above -1 and zero at zero.
    So v stays bounded where w goes to zero, and is u there; with m(0) = -1 + log 2, as in the
    source, it does not. The log_det is :math:`\log(1 + (1 - \tanh^2(w \cdot x + b))\, w \cdot v)`.

    The inverse finds s = w.x + b, the one root of s + (w.v) tanh(s) = w.z + b, by Newton's method
    from that end of a bracket from which no step passes the root.

    Args:
        features: Number of features, n.
        seed: Draws w at the start, a random direction; torch's global generator if left out.

    Attributes:
        u: (n,), zeros at the start: the map is then the identity.
        w: (n,), of length 1 at the start: were it zero as well, no parameter would have a
            gradient.
        b: (), zero at the start.

    Note:
        Derivatives through the inverse are right to the third order: two steps of Newton's method
        are taken at the root with a graph.

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
        wide, v, w, b, slope = self._numbers("x", x)
        bend = torch.tanh((wide * w).sum(1) + b)
        return (wide + bend[:, None] * v).to(x.dtype), _log_slope_at(bend, slope)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wide, v, w, b, slope = self._numbers("z", z)
        bend = torch.tanh(_root((wide * w).sum(1) + b, slope))
        return (wide - bend[:, None] * v).to(z.dtype), -_log_slope_at(bend, slope)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        wide, v, w, b, slope = self._numbers("x", x)
        bend = torch.tanh((wide * w).sum(1, keepdim=True) + b)
        along = _slope_at(bend, slope)
        return RankOneLinearization(
            (wide + bend * v).to(x.dtype),
            _log_slope_at(bend, slope).squeeze(1),
            scale=torch.ones_like(bend),
            left=(1 - bend.square()) * v,
            right=w,
            scale_along=along,
        )

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns x, v, w, b and 1 + w.v, all in the type to compute in."""
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
    """Returns 1 + (1 - tanh^2) w.v of a slope 1 + w.v > 0, as a sum of what is not negative."""
    squared = bend.square()
    return squared + (1 - squared) * slope


def _log_slope_at(bend: Tensor, slope: Tensor) -> Tensor:
    """Returns the logarithm of that slope."""
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
    """Returns the root, as far as the type can tell.

    h is odd, so that targets >= 0 will do. There it is concave where the slope at zero is above 1,
    and Newton's steps go up to the root from the lower end of a bracket; else it is convex, and
    they come down from the upper end. No step passes the root, so the bracket always shrinks.
    """
    size, rounding = target.abs(), 4 * torch.finfo(target.dtype).eps
    upper = torch.minimum(size + 1 - slope, size / slope)
    s = torch.where(slope > 1, (size + 1 - slope).clamp(min=0), upper)
    for _ in range(MOST_STEPS):
        bend = torch.tanh(s)
        excess = s + (slope - 1) * bend - size
        # A transform of torch.func cannot ask, and takes all steps.
        if not is_transformed() and bool((excess.abs() <= rounding * (s + size)).all()):
            break
        s = s - excess / _slope_at(bend, slope)
    return s.copysign(target)
