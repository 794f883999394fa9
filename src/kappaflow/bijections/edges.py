r"""Maps of bounded columns to the line, as normal scores of distributions fitted to the rows.

With the distance u to a single bound, the cumulative hazard of the distribution is

.. math::
    L = m \, ((1 + (u / s)^k)^r - 1) / r, \qquad P(\text{distance} > u) = e^{-L},

with ``scale`` s, ``near`` k, ``level`` m and ``far`` r. Next to the bound the density is
proportional to u^(k - 1), so k = 1 is a positive density. The other tail is a power for r = 0, and
exp(-u^(k r)) otherwise. Between two bounds L = -far log(1 - share^near), as in Kumaraswamy 1980.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.special import log_ndtr, ndtri

Floats = NDArray[np.float64]
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
BEND = 1 / 4.3**2  # log p of logistic y is that of normal z within 0.25 nats, up to 4.7 deviations
LOW = -40.0  # below this y, v is proportional to exp(y) up to rounding
LEAST_FAR = 1e-18  # stands for far = 0
FAR = (0.0, 0.5, 1.0, 2.0)  # candidates of `far`
POINTS = 500  # quantiles of the rows that a hazard is fitted to
MIN_VALUES = 50  # fewest distinct values to fit a distribution
MANY_ROWS = 1000  # fewest rows to fit `near`, to those next to the bound:
TAIL_SHARE, MIN_TAIL_ROWS = 0.02, 100
MARGIN = 0.002  # nats per row by which another distribution than a log-normal is likelier
FREE_COSTS = 1.5  # log(rows) nats that a power other than 1 costs with fewer rows
MAX_POWER = 7.0  # next to a bound of an interval; higher powers of float32 underflow


class Curve(NamedTuple):
    """The parameters of columns, (columns,) each; with a `bend` of 0, z is the log of the odds."""

    scale: Tensor
    near: Tensor
    level: Tensor
    far: Tensor
    bend: Tensor


LOGARITHM = (1.0, 1.0, 1.0, 0.0, 0.0)  # of the distance to a single bound
QUANTILE = (1.0, 1.0, 1.0, 1.0, 0.0)  # of the normal distribution, at the share between two bounds


def encode_half_line(x: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns z, increasing in x, of columns with one bound; the other is infinite."""
    sign, end = _sign_and_end(low, high)
    w = _softplus(curve.near * (sign * (x - end) / curve.scale).log())
    far = curve.far.clamp_min(LEAST_FAR)
    y = _log_expm1(curve.level * torch.expm1(far * w) / far)
    z = y / (1 + curve.bend * y.square()).sqrt().sqrt()
    return sign * torch.where(y.isinf(), y, z)


def decode_half_line(z: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns x of z."""
    sign, end = _sign_and_end(low, high)
    _, _, log_ratio = _stages(sign * z, curve)
    return end + sign * curve.scale * (log_ratio / curve.near).exp()


def half_line_log_slope(z: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns log dz/dx, from z."""
    y, w, log_ratio = _stages(_sign_and_end(low, high)[0] * z, curve)
    square = curve.bend * y.square()
    log_slope = torch.log1p(square / 2) - 1.25 * torch.log1p(square) + _softplus(-y)  # dz/dL
    log_slope = log_slope + curve.level.log() + curve.far * w + log_ratio - w
    return log_slope + (curve.near / curve.scale).log() - log_ratio / curve.near


def _stages(z: Tensor, curve: Curve) -> tuple[Tensor, Tensor, Tensor]:
    """Returns y = log(exp(L) - 1), w = log(1 + v) and log v, with v = (u / s)^k."""
    square = curve.bend * z.square()
    y = z * ((square + (square.square() + 4).sqrt()) / 2).sqrt()
    far = curve.far.clamp_min(LEAST_FAR)
    w = torch.log1p(far * (_softplus(y.clamp_min(LOW)) / curve.level)) / far
    return y, w, _log_expm1(w) + (y - LOW).clamp_max(0)


def _sign_and_end(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Returns 1 and the end of columns with a lower bound, -1 and the end of the others."""
    is_lower = low.isfinite()
    return is_lower.to(low.dtype) * 2 - 1, torch.where(is_lower, low, high)


def _softplus(y: Tensor) -> Tensor:
    """Returns log(1 + exp(y)); ONNX Runtime has no softplus in float64, and torch's rounds."""
    return torch.maximum(y, torch.zeros_like(y)) + torch.log1p((-y.abs()).exp())


def _log_expm1(x: Tensor) -> Tensor:
    """Returns log(exp(x) - 1), the inverse of softplus."""
    return x + (-torch.expm1(-x)).log()


def encode_interval(x: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns z of columns with two bounds, computed from the nearer one."""
    from_low, from_high = (x - low) / (high - low), (high - x) / (high - low)
    from_end = torch.log1p(-from_high.clamp_max(0.5))
    log_share = torch.where(from_low <= from_high, from_low.log(), from_end)
    hazard = -curve.far * _log1mexp(curve.near * log_share)
    is_low = hazard <= math.log(2)
    z = ndtri(torch.where(is_low, -torch.expm1(-hazard), (-hazard).exp()))
    return torch.where(is_low, z, -z)


def decode_interval(z: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns x of z."""
    log_share = _log_share(log_ndtr(-z), curve)
    from_low, from_high = log_share.exp(), -torch.expm1(log_share)
    length = high - low
    return torch.where(from_low < 0.5, low + from_low * length, high - from_high * length)


def interval_log_slope(z: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
    """Returns log dz/dx, from z."""
    log_rest = log_ndtr(-z)
    powers = (curve.near - 1) * _log_share(log_rest, curve) + (1 - 1 / curve.far) * log_rest
    constant = (curve.near * curve.far / (high - low)).log() + HALF_LOG_TAU
    return 0.5 * z.square() + powers + constant


def _log_share(log_rest: Tensor, curve: Curve) -> Tensor:
    """Returns the log of the share of the interval beyond which a probability is left."""
    return (_log1mexp(log_rest / curve.far) / curve.near).clamp_min(-1e4)


def _log1mexp(x: Tensor) -> Tensor:
    """Returns log(1 - exp(x)) for x < 0."""
    is_small = x < -math.log(2)
    return torch.where(is_small, torch.log1p(-x.clamp_max(-0.5).exp()), (-torch.expm1(x)).log())


def fit_half_line(u: Tensor, weights: Tensor | None) -> tuple[float, ...]:
    """Returns the curve for rows with distances u to their bound, with weights."""
    logs, counts, rows = _sorted_logs(u, weights)
    if len(logs) < MIN_VALUES:
        return LOGARITHM
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    points = np.interp((np.arange(POINTS) + 0.5) / POINTS, ranks, logs)
    deviation = max(float(points.std()), 1e-9)
    log_normal = -points.mean() - math.log(deviation) - 0.5 - HALF_LOG_TAU
    fits: list[tuple[float, tuple[float, ...]]] = [(float(log_normal) + MARGIN, LOGARITHM)]
    nears = [_near(logs, counts, rows)] if rows >= MANY_ROWS else [1.0, None]
    for near, far in product(nears, FAR):
        likelihood, curve = _fit_hazard(points, near, far)
        fits.append((likelihood - (0 if near else FREE_COSTS * math.log(rows) / rows), curve))
    return max(fits)[1]


def fit_interval(low: Tensor, high: Tensor, weights: Tensor | None) -> tuple[float, ...]:
    """Returns the curve for rows whose distances from the two ends are low and high."""
    ends = [_sorted_logs(distances, weights) for distances in (low, high)]
    if len(low) < MANY_ROWS or min(len(logs) for logs, _, _ in ends) < MIN_VALUES:
        return QUANTILE
    near, far = (min(_near(*end), MAX_POWER) for end in ends)
    curve = (1.0, near, 1.0, far, 0.0)
    plain, fitted = (_likelihood(low, high, values, weights) for values in (QUANTILE, curve))
    return curve if fitted > plain else QUANTILE


def _likelihood(
    low: Tensor, high: Tensor, values: tuple[float, ...], weights: Tensor | None
) -> float:
    """Returns the log-likelihood per row, up to a constant, if z is normal."""
    curve = Curve(*(low.new_tensor(value) for value in values))
    ends = torch.zeros_like(low), low + high
    z = encode_interval(low, *ends, curve)
    w = torch.ones_like(z) if weights is None else weights.to(z)
    w = w / w.sum()
    variance = (w * (z - (w * z).sum()).square()).sum()
    return ((w * interval_log_slope(z, *ends, curve)).sum() - 0.5 * variance.log()).item()


def _sorted_logs(u: Tensor, weights: Tensor | None) -> tuple[Floats, Floats, int]:
    """Returns the sorted logarithms of distances, each once, their weights, and how many rows."""
    logs = u.double().log().cpu().numpy()
    counts = np.ones(len(logs)) if weights is None else weights.double().cpu().numpy()
    used = np.isfinite(logs) & (counts > 0)
    logs, index = np.unique(logs[used], return_inverse=True)
    return logs, np.bincount(index, counts[used]).astype(float), int(used.sum())


def _near(logs: Floats, counts: Floats, rows: int) -> float:
    """Returns k of a density u^(k - 1) next to the bound; 1 unless the rows exclude it."""
    share = max(TAIL_SHARE, MIN_TAIL_ROWS / rows)
    end = max(1, int(np.searchsorted(np.cumsum(counts), share * counts.sum())))
    # Hill 1975: the mean distance of log u to its quantile is 1 / k.
    mean = float(np.average(logs[end] - logs[:end], weights=counts[:end]))
    k = 1 / np.clip(mean, 0.05, 20)
    return 1.0 if abs(k - 1) < 3 * k / math.sqrt(share * rows) else float(k)


def _fit_hazard(points: Floats, near: float | None, far: float) -> tuple[float, tuple[float, ...]]:
    """Returns the log-likelihood per row and the curve of the likeliest hazard.

    `points` are logarithms of distances.
    """
    lowest, middle = np.quantile(points, (0.05, 0.5))

    def curve_of(numbers: Floats) -> tuple[float, ...]:
        # With a scale below most rows, the rows would not determine the power next to the bound.
        scale = math.exp(np.clip(numbers[0], lowest, min(middle + 20, 80)))
        power = math.exp(np.clip(numbers[2], -3, 3)) if near is None else near
        return scale, power, math.exp(np.clip(numbers[1], -20, 20)), far, BEND

    def loss(numbers: Floats) -> float:
        return -_log_density(points, *curve_of(numbers)[:4])

    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 300}
    start = np.array([middle, 0.0, 0.0])[: 3 if near is None else 2]
    best = minimize(loss, start, method="Nelder-Mead", options=options)
    return -float(best.fun), curve_of(best.x)


def _log_density(logs: Floats, scale: float, near: float, level: float, far: float) -> float:
    """Returns the mean log-density of distances, given their logarithms, by a hazard."""
    log_ratio = near * (logs - math.log(scale))
    w = np.logaddexp(log_ratio, 0)
    far = max(far, LEAST_FAR)
    with np.errstate(over="ignore"):
        hazard = level * np.expm1(far * w) / far
    log_slope = math.log(near * level) + log_ratio - w + far * w - logs
    return max(float(np.mean(log_slope - hazard)), -1e9)


def curve_text(kind: str, values: list[float]) -> str:
    """Returns the curve of a column of a kind as text."""
    names = {"half-line": Curve._fields[: 4 if values[4] else 0], "interval": ("near", "far")}
    numbers = dict(zip(Curve._fields, values, strict=True))
    text = ", ".join(f"{name}={numbers[name]:.4g}" for name in names.get(kind, ()))
    return f"({text})" if text else "log" if kind == "half-line" else "None"
