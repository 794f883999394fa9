r"""`Gaussianize` makes each column approximately standard normal by a smooth monotone curve.

The curve of a column is a rational-quadratic spline that maps quantiles of the training rows to
the same quantiles of the standard normal (their normal scores). Beyond the outermost knots it
continues as

.. math::
    z = z_K + a \log(1 + d (x - x_K) / a),

with the slope d at the knot and a scale a. A large a gives a straight line, for Gaussian or
lighter tails. A small a bends the curve, for tails like a power law.
"""

import math

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from kappaflow._checks import feature_batch, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_traced
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.linearization import ElementwiseLinearization, Linearization
from kappaflow.nets.inputs import flag_text
from kappaflow.registry import register

MAX_SLOPE = 10.0  # largest slope of a curve, in normal scores per unit of x
MIN_TAIL_SLOPE = 0.02  # smallest slope of a tail, in the same units
MIN_ROWS_PER_BIN = 40  # smallest number of training rows per bin
MIN_TAIL_ROWS = 12  # smallest number of training rows beyond an outermost knot
MAX_KNOT_SCORE = 2.75  # largest normal score of the outermost knots
TAIL_SCALES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 1000.0)  # candidate scales of a tail
NORMAL = (TAIL_SCALES[-1], 1.0)  # scale and slope of a normal tail
NORMAL_ROWS, NORMAL_DEVIATIONS, NORMAL_OFFSET = 1000, 2.5, 0.03  # to find a column about normal
NORMAL_MARGIN = 4.0  # nats by which another tail of such a column is likelier, at least
DEFAULT_TAIL_SCALE = 2.0  # for a tail with too few rows
# Candidate slopes of a tail, relative to the last bin.
SLOPE_FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


@register("Gaussianize")
class Gaussianize(Bijection):
    """Makes each feature approximately standard normal; fitted once to training rows, not learned.

    It is the identity until `kappaflow.fit` fits it. Couplings after it need not learn heavy tails
    or modes of single features.

    Args:
        features: Number of features D.
        bins: Number of bins of each spline. With few rows, some bins are unused.
        padding: Number of padding features, which come last and stay unchanged.

    Source:
        Marginal Gaussianization: Chen, Gopinath 2000. The splines are those of Gregory and
        Delbourgo 1982; the tails are ours.

    Example:
        >>> x = torch.linspace(-3, 3, 999)[:, None].exp()
        >>> curve = Gaussianize(1)
        >>> curve.fit(x)
        >>> z = curve(x)[0]
        >>> abs(z.mean()).item() < 0.05, abs(z.std() - 1).item() < 0.05
        (True, True)
    """

    def __init__(self, features: int, *, bins: int = 24, padding: int = 0) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.bins = positive_int("bins", bins)
        self.padding = natural_int("padding", padding)
        line = torch.linspace(-1, 1, bins + 1).repeat(features, 1)
        self.knots: Tensor
        self.scores: Tensor
        self.slopes: Tensor
        self.tails: Tensor
        self.fitted: Tensor
        self.register_buffer("knots", line)
        self.register_buffer("scores", line.clone())
        self.register_buffer("slopes", torch.ones(features, bins + 1))
        self.register_buffer("tails", torch.full((features, 2), math.inf))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits the curves to rows x, (N, features), with optional `weights`, (N,)."""
        rows = feature_batch("x", x, self.features).double().cpu().numpy()
        counts = np.ones(len(rows)) if weights is None else weights.double().cpu().numpy()
        counts = counts * (len(rows) / counts.sum())
        for i in range(self.features - self.padding):
            values, index = np.unique(rows[:, i], return_inverse=True)
            mass = np.bincount(index, counts)
            buffers = (self.knots, self.scores, self.slopes, self.tails)
            for buffer, array in zip(buffers, _curve(values, mass, self.bins), strict=True):
                buffer[i] = torch.from_numpy(array).to(buffer)
        self.fitted.fill_(True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self._mapped(feature_batch("x", x, self.features))
        return z.to(x.dtype), log_slope.to(log_det_dtype(x.dtype)).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        feature_batch("z", z, self.features)
        x0, x1, z0, z1, d0, d1 = self._bins(z, self.scores)
        inside = z.clamp(z0, z1)
        s = (z1 - z0) / (x1 - x0)
        eta, zeta = (inside - z0) / (z1 - z0), (z1 - inside) / (z1 - z0)
        p = d0 * zeta - d1 * eta
        mirrored = p < 0
        root = (p.square() + 4 * s.square() * eta * zeta).sqrt()
        c = 2 * s * torch.where(mirrored, zeta, eta)
        fraction = c / (c + torch.where(mirrored, -p, p) + root)
        width = x1 - x0
        x = torch.where(mirrored, x1 - width * fraction, x0 + width * fraction)
        for side, sign in ((0, -1.0), (-1, 1.0)):
            scale, slope, straight = self._tail(side)
            beyond = (sign * (z - self.scores[:, side])).clamp_min(0)
            distance = torch.where(straight, beyond, scale * torch.expm1(beyond / scale)) / slope
            x = torch.where(beyond > 0, self.knots[:, side] + sign * distance, x)
        return x.to(z.dtype), -self._mapped(x)[1].to(log_det_dtype(z.dtype)).sum(1)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_slope = self._mapped(feature_batch("x", x, self.features))
        slope = log_slope.exp()
        log_det = log_slope.to(log_det_dtype(x.dtype)).sum(1)
        return ElementwiseLinearization(value, log_det, slope, 1 / slope)

    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z and the logarithms of the slopes, each (B, features)."""
        x0, x1, z0, z1, d0, d1 = self._bins(x, self.knots)
        inside = x.clamp(x0, x1)
        width, height = x1 - x0, z1 - z0
        u, v, s = (inside - x0) / width, (x1 - inside) / width, height / width
        n, m = u * (s * u + d0 * v), v * (s * v + d1 * u)
        z = z0 + height * n / (n + m)
        slope = (s / (n + m)).square() * (d1 * u.square() + 2 * s * u * v + d0 * v.square())
        log_slope = slope.log()
        for side, sign in ((0, -1.0), (-1, 1.0)):
            scale, tail_slope, straight = self._tail(side)
            beyond = (sign * (x - self.knots[:, side])).clamp_min(0) * tail_slope
            bend = torch.where(straight, 0, torch.log1p(beyond / scale))
            distance = torch.where(straight, beyond, scale * bend)
            z = torch.where(beyond > 0, self.scores[:, side] + sign * distance, z)
            log_slope = torch.where(beyond > 0, tail_slope.log() - bend, log_slope)
        return z, log_slope

    def _tail(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scale and slope of the tails on a side, 0 or -1, and which are straight."""
        straight = self.tails[:, side].isinf()
        return torch.where(straight, 1, self.tails[:, side]), self.slopes[:, side], straight

    def _bins(self, values: Tensor, boundaries: Tensor) -> tuple[Tensor, ...]:
        """Returns the ends, scores and slopes, (B, features) each, of the bins of values."""
        inner = boundaries[:, 1:-1].contiguous()
        if is_traced(values):  # ONNX has no sorted search
            index = (values.T[:, :, None] >= inner[:, None]).sum(2)
        else:
            index = torch.searchsorted(inner, values.T.contiguous(), right=True)
        bin_ends = []
        for buffer in (self.knots, self.scores, self.slopes):
            bin_ends += [buffer.gather(1, index).T, buffer.gather(1, index + 1).T]
        return tuple(bin_ends)

    def extra_repr(self) -> str:
        return f"features={self.features}, bins={self.bins}, fitted={flag_text(self.fitted)}"


def _curve(ordered: np.ndarray, counts: np.ndarray, bins: int) -> tuple[np.ndarray, ...]:
    """Returns knots, normal scores and slopes, (bins + 1,), and the scales of both tails, (2,)."""
    # The values are sorted and distinct; their weights `counts` add up to the number of rows.
    n = round(counts.sum())
    share = min(0.1, max(MIN_TAIL_ROWS / n, float(ndtr(-MAX_KNOT_SCORE))))
    used = max(1, min(bins, n // MIN_ROWS_PER_BIN))
    # scipy.special.ndtri differs in the last bit, which would change fitted curves.
    reach = -float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
    scores = np.linspace(-reach, reach, used + 1)
    # A knot is the mean of nearby quantiles, which is smoother than a single quantile.
    half = scores[1] - scores[0] if used > 1 else 0.5
    ranks = n * ndtr(scores[:, None] + half * np.linspace(-0.4, 0.4, 33))
    knots = np.interp(ranks, np.cumsum(counts) - counts / 2, ordered).mean(1)
    knots = _separate(knots, scores)
    slopes = _slopes(knots, scores)
    is_normal = _about_normal(knots, scores, n)
    tails = np.full(2, math.inf)
    for side, sign in ((0, -1.0), (-1, 1.0)):
        beyond = sign * (ordered - knots[side])
        in_tail = beyond > 0
        margin = NORMAL_MARGIN if is_normal[sign * scores >= 0].all() else 0.0
        tail = beyond[in_tail], counts[in_tail], reach, slopes[side], margin
        tails[side], slopes[side] = _fit_tail(*tail)
    unused = bins - used  # unused bins continue the left tail in a straight line
    if unused:
        extra = np.arange(1, unused + 1) * 1e-2
        knots = np.concatenate([knots[0] - extra[::-1] / slopes[0], knots])
        scores = np.concatenate([scores[0] - extra[::-1], scores])
        slopes = np.concatenate([np.full(unused, slopes[0]), slopes])
    return knots, scores, slopes, tails


def _separate(knots: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns knots moved apart so that no slope exceeds `MAX_SLOPE`."""
    min_gaps = np.diff(scores) / MAX_SLOPE
    middle = len(knots) // 2
    moved = knots.copy()
    for k in range(middle + 1, len(knots)):
        moved[k] = max(moved[k], moved[k - 1] + min_gaps[k - 1])
    for k in range(middle - 1, -1, -1):
        moved[k] = min(moved[k], moved[k + 1] - min_gaps[k])
    return moved


def _slopes(knots: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns a slope at each knot, the geometric mean of the slopes of the adjacent bins."""
    secants = np.clip(np.diff(scores) / np.diff(knots), MIN_TAIL_SLOPE / 10, MAX_SLOPE)
    logs = np.log(secants)
    return np.exp(np.concatenate([logs[:1], (logs[1:] + logs[:-1]) / 2, logs[-1:]]))


def _about_normal(knots: np.ndarray, scores: np.ndarray, rows: int) -> np.ndarray:
    """Returns which knots are at the quantiles of a standard normal, within their errors."""
    density = np.exp(-(scores**2) / 2) / math.sqrt(2 * math.pi)
    errors = np.sqrt(ndtr(scores) * ndtr(-scores) / rows) / density
    deviations = np.abs(knots - scores) - NORMAL_OFFSET
    return (deviations < NORMAL_DEVIATIONS * errors) & (rows >= NORMAL_ROWS)


def _fit_tail(
    beyond: np.ndarray, counts: np.ndarray, score: float, slope: float, margin: float
) -> tuple[float, float]:
    """Returns the scale and slope that maximize the likelihood of the tail.

    With a `margin`, the tail is a normal one unless another is likelier by so many nats.
    """
    # `beyond` holds the distances of the rows from the knot, `counts` their weights, `score` the
    # absolute normal score of the knot, and `slope` the slope of the last bin.
    slope = float(np.clip(slope, MIN_TAIL_SLOPE, MAX_SLOPE))
    if len(beyond) < 4:
        return NORMAL if margin else (DEFAULT_TAIL_SCALE, slope)

    def log_likelihood(tail: tuple[float, float]) -> float:
        scale, steep = tail
        inner = steep * beyond / scale
        z = score + scale * np.log1p(inner)
        return float(np.average(-(z**2) / 2 + np.log(steep) - np.log1p(inner), weights=counts))

    steeps = [min(slope * factor, MAX_SLOPE) for factor in SLOPE_FACTORS]
    best = max(((scale, steep) for scale in TAIL_SCALES for steep in steeps), key=log_likelihood)
    gain = len(beyond) * (log_likelihood(best) - log_likelihood(NORMAL))
    return NORMAL if gain < margin else best
