"""Radial maps: points move towards a centre, or away from it."""

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, natural_int, positive_int
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.rank_one import RankOneLinearization
from kappaflow.bijections.slopes import log_slope, positive
from kappaflow.linearization import Linearization
from kappaflow.registry import register


@register("Radial")
class Radial(Bijection):
    r"""z = x + beta (x - x_0) / (alpha + r), with r = |x - x_0|, alpha > 0 and beta > -alpha.

    With h = 1 / (alpha + r) and n features the log_det is
    :math:`(n - 1) \log(1 + \beta h) + \log(1 + \alpha \beta h^2)`. The inverse is in closed form:
    :math:`|z - x_0| = r (1 + \beta h)` is a quadratic equation for r.

    Args:
        features: Number of features, n.
        seed: Draws the centre at the start, from N(0, I); torch's global generator if left out.

    Attributes:
        center: x_0, (n,).
        raw_alpha: (), zero at the start, where alpha is 1.
        raw_ratio: (), zero at the start, where 1 + beta / alpha is 1: the map is then the
            identity. Both raw numbers pass a softplus.

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
        wide, away, alpha, ratio = self._numbers("x", x)
        at = _Slopes(_length(away), alpha, ratio)
        return (wide + at.push[:, None] * away).to(x.dtype), self._log_det(at)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wide, away, alpha, ratio = self._numbers("z", z)
        at = _Slopes(_radius(_length(away), alpha, ratio), alpha, ratio)
        x = wide - (at.push / at.across)[:, None] * away
        return x.to(z.dtype), -self._log_det(at)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        wide, away, alpha, ratio = self._numbers("x", x)
        length = _length(away)
        at = _Slopes(length, alpha, ratio)
        outwards = away / torch.where(length > 0, length, 1)[:, None]
        return RankOneLinearization(
            (wide + at.push[:, None] * away).to(x.dtype),
            self._log_det(at),
            scale=at.across[:, None],
            left=(at.along - at.across)[:, None] * outwards,
            right=outwards,
            scale_along=at.along[:, None],
        )

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns x, x - x_0, alpha and 1 + beta / alpha in the type to compute in."""
        batch(name, x, (self.features,))
        dtype = torch.promote_types(log_det_dtype(x.dtype), self.center.dtype)
        wide = x.to(dtype)
        alpha, ratio = positive(self.raw_alpha.to(dtype)), positive(self.raw_ratio.to(dtype))
        return wide, wide - self.center.to(dtype), alpha, ratio

    def _log_det(self, at: "_Slopes") -> Tensor:
        across = log_slope(at.push, at.across)
        return (self.features - 1) * across + log_slope(at.near * at.push, at.along)

    def extra_repr(self) -> str:
        return f"features={self.features}"


def _length(away: Tensor) -> Tensor:
    """Returns the length of each row, whose derivatives are zero where it is zero."""
    square = away.square().sum(1)
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)


class _Slopes:
    """What a radial map does at distances r from its centre, (B,); no slope is a difference.

    Attributes:
        near: alpha h.
        push: beta h.
        across: 1 + beta h, the slope in directions across that to the centre.
        along: 1 + alpha beta h^2, the slope along it.
    """

    def __init__(self, length: Tensor, alpha: Tensor, ratio: Tensor) -> None:
        far = length / (alpha + length)
        self.near = alpha / (alpha + length)
        self.push = self.near * (ratio - 1)
        self.across = far + self.near * ratio
        self.along = far * (1 + self.near) + self.near.square() * ratio


def _radius(length: Tensor, alpha: Tensor, ratio: Tensor) -> Tensor:
    """Returns r with r (r + alpha ratio) / (r + alpha) = length: the root that is not negative."""
    p = alpha * ratio - length
    # With the sign of p nothing cancels in one of the two forms of the root.
    q = p.abs() + (p.square() + 4 * alpha * length).sqrt()
    return torch.where(p > 0, 2 * alpha * length / q, q / 2)
