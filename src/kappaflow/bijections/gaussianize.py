r"""`Gaussianize` makes each column approximately standard normal by a smooth monotone curve.

The curve is a rational-quadratic spline with logarithmic tails, which `column_curve` fits. Knots
are few where rows are smooth, and close to each other in lines, next to edges and around gaps. Far
beyond all rows, at e^40 scales, each tail is a straight line, so that far latents have
finite points.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kappaflow._checks import feature_batch, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_traced
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.column_curve import fit_curve, with_gaps
from kappaflow.bijections.log_scales import bounded
from kappaflow.linearization import ElementwiseLinearization, Linearization
from kappaflow.nets.inputs import StandardizeInputs, flag_text
from kappaflow.registry import register

LINE = 40.0  # logarithm from which on a tail is a straight line
CHANGE_BOUND = 2.0  # of the logarithms by which training changes slopes


@register("Gaussianize")
class Gaussianize(Bijection):
    """Makes each feature approximately standard normal by a curve that is fitted to training rows.

    It is the identity until `kappaflow.fit` fits it. Couplings after it need not learn heavy tails
    or modes of single features. Training then multiplies the slopes at the knots by numbers
    that start at 1 and stay between 1/7.4 and 7.4. So a line keeps its share of the rows while the
    layers after it change.

    Args:
        features: Number of features D.
        bins: Largest number of bins of each spline. A curve uses as many as its rows determine.
        padding: Number of padding features, which come last and stay unchanged.
        keep_gaps: Do not narrow the gaps between modes, for couplings after it, which would have
            to jump from one mode to the next.
        trained: Whether training changes the slopes.

    Source:
        Marginal Gaussianization: Chen, Gopinath 2000. The splines are those of Gregory and
        Delbourgo 1982; the tails and the fit are ours.

    Example:
        >>> x = torch.linspace(-3, 3, 999)[:, None].exp()
        >>> curve = Gaussianize(1)
        >>> curve.fit(x)
        >>> z = curve(x)[0]
        >>> abs(z.mean()).item() < 0.05, abs(z.std() - 1).item() < 0.05
        (True, True)
    """

    def __init__(
        self,
        features: int,
        *,
        bins: int = 64,
        padding: int = 0,
        keep_gaps: bool = False,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.bins = positive_int("bins", bins)
        self.padding = natural_int("padding", padding)
        self.keep_gaps = bool(keep_gaps)
        line = torch.tensor([[2 * bin / bins - 1 for bin in range(bins + 1)]]).expand(features, -1)
        self.knots: Tensor
        self.scores: Tensor
        self.slopes: Tensor
        self.tails: Tensor
        self.fitted: Tensor
        self.register_buffer("knots", line.clone())
        self.register_buffer("scores", line.clone())
        self.register_buffer("slopes", torch.ones(features, bins + 1))
        self.register_buffer("tails", torch.full((features, 2), math.inf))
        self.register_buffer("fitted", torch.tensor(False))
        changes = torch.zeros(features - padding, bins + 1)
        self.changes: Tensor
        if trained:
            self.changes = nn.Parameter(changes)
        else:
            self.register_buffer("changes", changes)

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits the curves to rows x, (N, features), with optional `weights`, (N,)."""
        rows = feature_batch("x", x, self.features).double().cpu().numpy()
        counts = np.ones(len(rows)) if weights is None else weights.double().cpu().numpy()
        for i in range(self.features - self.padding):
            values, index = np.unique(rows[:, i], return_inverse=True)
            mass = np.bincount(index, counts).astype(np.float64)
            fit = fit_curve(values, mass, self.bins)
            *curve, scales = with_gaps(fit) if self.keep_gaps else fit
            self.tails[i] = torch.from_numpy(scales).to(self.tails)
            for buffer, array in zip((self.knots, self.scores, self.slopes), curve, strict=True):
                buffer[i] = self._filled(torch.from_numpy(array)).to(buffer)
        self.fitted.fill_(True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore
        """Loads curves of older files too, which have fewer bins and were not trained."""
        for name in (f"{prefix}knots", f"{prefix}scores", f"{prefix}slopes"):
            if name in state_dict:
                state_dict[name] = self._filled(state_dict[name])
        state_dict.setdefault(f"{prefix}changes", torch.zeros_like(self.changes))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _filled(self, curve: Tensor) -> Tensor:
        """Returns numbers at knots, (..., K + 1), for all bins; unused ones have no width."""
        # No value is in such a bin, since it is neither the first nor the last one.
        unused = max(0, self.bins + 1 - curve.shape[-1])
        return torch.cat([curve[..., :1], *[curve[..., 1:2]] * unused, curve[..., 1:]], -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self._mapped(feature_batch("x", x, self.features))
        return z.to(x.dtype), log_slope.to(log_det_dtype(x.dtype)).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        feature_batch("z", z, self.features)
        scores, heights, slopes = self._curve()
        x0, x1, z0, height, d0, d1 = self._bins(z, scores, scores, heights, slopes)
        z1 = z0 + height
        inside = z.clamp(z0, z1)
        s = height / (x1 - x0)
        eta, zeta = (inside - z0) / height, (z1 - inside) / height
        p = d0 * zeta - d1 * eta
        mirrored = p < 0
        root = (p.square() + 4 * s.square() * eta * zeta).sqrt()
        c = 2 * s * torch.where(mirrored, zeta, eta)
        fraction = c / (c + torch.where(mirrored, -p, p) + root)
        width = x1 - x0
        x = torch.where(mirrored, x1 - width * fraction, x0 + width * fraction)
        for side, sign in ((0, -1.0), (-1, 1.0)):
            scale, straight = self._tail(side)
            slope, beyond = slopes[:, side], (sign * (z - scores[:, side])).clamp_min(0)
            unbent = scale * _expm1_then_line(beyond / scale)
            distance = torch.where(straight, beyond, unbent) / slope
            x = torch.where(beyond > 0, self.knots[:, side] + sign * distance, x)
        return x.to(z.dtype), -self._mapped(x)[1].to(log_det_dtype(z.dtype)).sum(1)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_slope = self._mapped(feature_batch("x", x, self.features))
        slope = log_slope.exp()
        log_det = log_slope.to(log_det_dtype(x.dtype)).sum(1)
        return ElementwiseLinearization(value, log_det, slope, 1 / slope)

    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z and the logarithms of the slopes, each (B, features)."""
        scores, heights, slopes = self._curve()
        x0, x1, z0, height, d0, d1 = self._bins(x, self.knots, scores, heights, slopes)
        inside, width = x.clamp(x0, x1), x1 - x0
        u, v, s = (inside - x0) / width, (x1 - inside) / width, height / width
        n, m = u * (s * u + d0 * v), v * (s * v + d1 * u)
        z = z0 + height * n / (n + m)
        slope = (s / (n + m)).square() * (d1 * u.square() + 2 * s * u * v + d0 * v.square())
        log_slope = slope.log()
        for side, sign in ((0, -1.0), (-1, 1.0)):
            (scale, straight), tail_slope = self._tail(side), slopes[:, side]
            beyond = (sign * (x - self.knots[:, side])).clamp_min(0) * tail_slope
            bend = torch.where(straight, 0, _log1p_then_line(beyond / scale))
            distance = torch.where(straight, beyond, scale * bend)
            z = torch.where(beyond > 0, scores[:, side] + sign * distance, z)
            log_slope = torch.where(beyond > 0, tail_slope.log() - bend.clamp_max(LINE), log_slope)
        return z, log_slope

    def _tail(self, side: int) -> tuple[Tensor, Tensor]:
        """Returns the scales of the tails on a side, 0 or -1, and which are straight."""
        straight = self.tails[:, side].isinf()
        return torch.where(straight, 1, self.tails[:, side]), straight

    def _curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scores at the knots, heights of the bins and slopes at the knots, as trained."""
        same = (self.knots[:, :, None] > self.knots[:, None]).sum(2)  # knots of unused bins agree
        changes = bounded(pad(self.changes, (0, 0, 0, self.padding)), CHANGE_BOUND)
        changes = changes.gather(1, same)
        fitted = self.scores.diff()
        more = fitted * torch.expm1((changes[:, 1:] + changes[:, :-1]) / 2)
        moved = pad(more.cumsum(1), (1, 0)) - more.sum(1, keepdim=True) / 2
        return self.scores + moved, fitted + more, self.slopes * changes.exp()

    def _bins(
        self, values: Tensor, boundaries: Tensor, scores: Tensor, heights: Tensor, slopes: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns both ends, the lower score, the height and both slopes of the bins of values."""
        inner = boundaries[:, 1:-1].detach().contiguous()
        if is_traced(values):  # ONNX has no sorted search
            index = (values.T[:, :, None] >= inner[:, None]).sum(2)
        else:
            index = torch.searchsorted(inner, values.T.contiguous(), right=True)
        lower = (curve.gather(1, index).T for curve in (self.knots, scores, heights, slopes))
        x1, d1 = (curve.gather(1, index + 1).T for curve in (self.knots, slopes))
        x0, z0, height, d0 = lower
        return x0, x1, z0, height, d0, d1

    def extra_repr(self) -> str:
        return f"features={self.features}, bins={self.bins}, fitted={flag_text(self.fitted)}"


def _expm1_then_line(t: Tensor) -> Tensor:
    """Returns exp(t) - 1 for t >= 0, and beyond `LINE` the straight line that continues it."""
    return torch.expm1(t.clamp_max(LINE)) + math.exp(LINE) * (t - LINE).clamp_min(0)


def _log1p_then_line(u: Tensor) -> Tensor:
    """Returns t of `_expm1_then_line`."""
    end = math.expm1(LINE)
    return torch.log1p(u.clamp_max(end)) + ((u - end) / math.exp(LINE)).clamp_min(0)


@register("GaussianizeInputs")
class GaussianizeInputs(StandardizeInputs):
    """Standardizes inputs of a network, and adds each one made approximately normal by a curve.

    The curves are those of `Gaussianize`, and are not trained. An input with few different values,
    such as a label, has no curve but zeros, and so have all inputs before `fit`.

    Args:
        features: Width of the input; the output is twice as wide.

    Example:
        >>> c = torch.linspace(-3, 3, 999)[:, None].exp()
        >>> inputs = GaussianizeInputs(1)
        >>> inputs.fit(c)
        >>> inputs(c).shape
        torch.Size([999, 2])
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.curves = Gaussianize(features, trained=False)

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits all to rows x, (N, features), with optional `weights`, (N,)."""
        super().fit(x, weights)
        self.curves.fit(super().forward(x), weights)

    def forward(self, x: Tensor) -> Tensor:
        """Returns standardized inputs and then approximately normal ones, (B, 2 * features)."""
        standardized, curves = super().forward(x), self.curves
        is_curved = curves.slopes.ne(1).any(1)
        return torch.cat([standardized, curves(standardized)[0] * is_curved], 1)
