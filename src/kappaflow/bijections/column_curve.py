"""`fit_curve` fits the curve of a column: a spline to normal scores, with logarithmic tails.

Scores, slopes and tails maximize the likelihood of the rows and a weak prior, by Fisher scoring.
The first knots have equally spaced scores. Others are added where rows between two knots are not
uniform under the curve. Each number of a curve has to gain a nat (Akaike 1974), so normal rows
keep the identity.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

Array, Places = NDArray[np.float64], NDArray[np.intp]

MOST_POINTS = 3000  # groups of rows to which a curve is fitted
HEAVY = 0.003  # largest share of the weights with which a value counts as evidence
FIRST_BINS, VALUES_A_BIN = (2, 4, 8), 20  # numbers of first bins; fewest values for each bin
TAIL_ROWS, KNOT_SCORE = 12, 2.75  # fewest rows beyond a knot; largest score of a first knot
ROUNDS, KNOTS_A_ROUND = 8, 8  # how often knots are added, and how many at a time, at most
POINTS_A_BIN, NATS_A_KNOT = 4, 2.0  # fewest points between new knots, and what a knot gains
STEPS, LEAST_GAIN, LARGEST_STEP = 40, 0.3, 2.0  # of Fisher scoring, in nats and log units
FAR = 3.0  # score from which points say less of the curvature, or they would shorten all steps
SLOPE_RANGE = np.log(8.0)  # how much a slope at a knot leaves the range of the adjacent secants
SLOPE_PRIOR, TAIL_PRIOR = 1.0, 0.25  # weights of squared deviations in log units
TAIL_SCALE, FIRST_SCALE, SCALES = 2.0, 10.0, (0.3, 1000.0)  # likeliest, largest to start from, all
# With so many rows, a tail that begins about at its score is normal, unless another is likelier.
NORMAL_ROWS, NORMAL_DISTANCE, NORMAL_NATS = 1000, 0.3, 4.0


class ColumnCurve(NamedTuple):
    """Knots, their scores and slopes, (K + 1,), and the scales of both tails, (2,)."""

    knots: Array
    scores: Array
    slopes: Array
    scales: Array


# A curve, the scores of the points, and minus the log-likelihood with all penalties.
CurveFit = tuple[float, ColumnCurve, Array]


@np.errstate(all="ignore")  # steps that go too far are taken back
def fit_curve(values: Array, mass: Array, bins: int) -> ColumnCurve:
    """Returns a curve of at most `bins` bins, fitted to sorted distinct values and their weights.

    The scale of the weights does not matter: a value that repeats is no more evidence than others.
    """
    values, mass = values[mass > 0], mass[mass > 0]
    shares = mass / mass.sum()
    light = np.minimum(shares, HEAVY)
    points, weights = _grouped(values, shares * (light.sum() ** 2 / (light @ light)))
    line = np.linspace(-1, 1, min(bins, 2) + 1)
    identity = ColumnCurve(line, line, np.ones(len(line)), np.full(2, np.inf))
    best: CurveFit = float(weights @ points**2) / 2, identity, points
    for count in FIRST_BINS:
        curve = _first_curve(points, weights, min(count, bins))
        if curve is None or count * VALUES_A_BIN > len(values):
            break
        fit = _fitted(points, weights, curve)
        if fit[0] < best[0]:
            best = fit
        elif best[1] is not identity:
            break
    for _ in range(ROUNDS):
        _, curve, scores = best
        most = min(KNOTS_A_ROUND, bins + 1 - len(curve.knots))
        added = _added_knots(points, weights, scores, curve.knots, most)
        fit = _fitted(points, weights, _with_knots(curve, added)) if len(added) else best
        if fit[0] >= best[0]:
            break
        best = fit
    return _with_normal_tails(points, weights, best[1])


def with_gaps(curve: ColumnCurve) -> ColumnCurve:
    """Returns a curve with wide gaps between modes, which couplings would have to jump."""
    typical = 2 / np.ptp(np.interp([-1, 1], curve.scores, curve.knots))

    def raised(slopes: Array) -> Array:
        before, after = np.maximum.accumulate(slopes), np.maximum.accumulate(slopes[::-1])[::-1]
        return np.maximum(slopes, np.minimum(np.minimum(before, after), typical))

    widths = np.diff(curve.knots)
    scores = np.append(0.0, np.cumsum(widths * raised(np.diff(curve.scores) / widths)))
    scores -= np.interp(0, curve.scores, scores)
    return curve._replace(scores=scores, slopes=raised(curve.slopes))


def _grouped(values: Array, mass: Array) -> tuple[Array, Array]:
    """Returns means and weights of groups of neighboring values, which are small at both ends."""
    if len(values) <= MOST_POINTS:
        return values, mass
    ranks = (np.cumsum(mass) - mass / 2) / mass.sum()
    group = (MOST_POINTS * (np.arcsin(2 * ranks - 1) / np.pi + 0.5)).astype(int)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    weights = np.add.reduceat(mass, starts)
    return np.add.reduceat(mass * values, starts) / weights, weights


def _first_curve(points: Array, weights: Array, bins: int) -> ColumnCurve | None:
    """Returns a curve through quantiles at equally spaced scores; None for too few between."""
    share = min(0.1, max(TAIL_ROWS / weights.sum(), float(ndtr(-KNOT_SCORE))))
    # scipy.special.ndtri differs in the last bit, which would change fitted curves.
    reach = -float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
    scores = np.linspace(-reach, reach, bins + 1)
    # A knot is the mean of nearby quantiles, which is smoother than a single quantile.
    ranks = ndtr(scores[:, None] + (scores[1] - scores[0]) * np.linspace(-0.4, 0.4, 33))
    centers = (np.cumsum(weights) - weights / 2) / weights.sum()
    knots = np.interp(ranks, centers, points).mean(1)
    if np.diff(np.searchsorted(points, knots)).min() < POINTS_A_BIN:
        return None
    secants = np.log(np.diff(scores) / np.diff(knots))
    slopes = np.exp((np.append(secants[:1], secants) + np.append(secants, secants[-1:])) / 2)
    return ColumnCurve(knots, scores, slopes, np.full(2, TAIL_SCALE))


def _added_knots(points: Array, weights: Array, scores: Array, knots: Array, most: int) -> Array:
    """Returns new knots, `most` at most, between points that are not uniform under a curve."""
    chosen = _ends_of_leaves(ndtr(scores), weights, most)
    below = np.cumsum(weights)[chosen - 1]
    apart = np.abs(chosen[:, None] - np.searchsorted(points, knots)).min(1) >= POINTS_A_BIN
    chosen = chosen[(np.minimum(below, weights.sum() - below) >= TAIL_ROWS) & apart]
    return (points[chosen - 1] + points[chosen]) / 2


def _ends_of_leaves(uniform: Array, weights: Array, most: int) -> Places:
    """Returns where to divide points into at most `most` + 1 parts that are about uniform.

    A tree halves the points again and again; it is pruned to the histogram with the largest
    likelihood less a penalty. Then neighbors that gain too little are joined.
    """
    below = np.append(0.0, np.cumsum(weights))
    bounds = np.concatenate([[0.0], (uniform[1:] + uniform[:-1]) / 2, [1.0]])

    def log_likelihood(ends: Places, *, joined: bool = False) -> Array:
        """Returns that of each part, or of each two neighboring parts as one."""
        first, last = (ends[:-2], ends[2:]) if joined else (ends[:-1], ends[1:])
        mass, widths = below[last] - below[first], bounds[last] - bounds[first]
        result = mass * np.log(mass / (below[-1] * widths))
        heaviest = np.maximum.reduceat(weights, ends[:-1])
        if joined:
            heaviest = np.maximum(heaviest[1:], heaviest[:-1])
        return np.where((heaviest > mass / 2) | (widths <= 0), -np.inf, result)

    depth = max(0, int(np.log2(len(weights) / POINTS_A_BIN)))
    levels = [np.arange(2**level + 1) * len(weights) // 2**level for level in range(depth + 1)]
    best, is_split = log_likelihood(levels[-1]), list[NDArray[np.bool_]]()
    for ends in levels[-2::-1]:
        undivided, halves = log_likelihood(ends), best[::2] + best[1::2] - NATS_A_KNOT
        is_split.insert(0, halves > undivided)
        best = np.maximum(undivided, halves)
    chosen, nodes = [0, len(weights)], np.array([0])
    for split, ends in zip(is_split, levels[1:], strict=True):
        nodes = nodes[split[nodes]]
        chosen += ends[2 * nodes + 1].tolist()
        nodes = np.append(2 * nodes, 2 * nodes + 1)
    ends = np.array(sorted(chosen))
    while len(ends) > 2:
        parts = log_likelihood(ends)
        gains = parts[1:] + parts[:-1] - log_likelihood(ends, joined=True)
        if gains.min() >= NATS_A_KNOT and len(ends) - 2 <= most:
            break
        ends = np.delete(ends, gains.argmin() + 1)
    return ends[1:-1]


def _with_knots(curve: ColumnCurve, added: Array) -> ColumnCurve:
    """Returns about the same curve with more knots."""
    knots = np.sort(np.append(curve.knots, added))
    scores, log_slopes, _ = _Likelihood(knots, knots, curve.knots).at(_numbers(curve))
    return ColumnCurve(knots, scores, np.exp(log_slopes), curve.scales)


def _with_normal_tails(points: Array, weights: Array, curve: ColumnCurve) -> ColumnCurve:
    """Returns the curve with normal tails where these are about as likely."""
    if weights.sum() < NORMAL_ROWS or np.isinf(curve.scales).all():
        return curve
    likelihood, numbers = _Likelihood(points, weights, curve.knots), _numbers(curve)
    margin = NORMAL_NATS + TAIL_PRIOR * np.log(SCALES[1] / TAIL_SCALE) ** 2
    for side, end in ((-2, 0), (-1, likelihood.bins)):
        normal = numbers.copy()
        normal[likelihood.bins + 1 + end], normal[side] = 0.0, np.log(SCALES[1])
        is_near = abs(curve.knots[end] - curve.scores[end]) < NORMAL_DISTANCE
        if is_near and likelihood.evaluate(normal)[0] < likelihood.evaluate(numbers)[0] + margin:
            numbers = normal
    return likelihood.curve(numbers)


def _numbers(curve: ColumnCurve) -> Array:
    """Returns the first score, and logarithms of the heights of bins, the slopes and scales."""
    scales = np.minimum(curve.scales, SCALES[1])
    positive = np.concatenate([np.diff(curve.scores), curve.slopes, scales])
    return np.append(curve.scores[:1], np.log(positive))


def _fitted(points: Array, weights: Array, curve: ColumnCurve) -> CurveFit:
    """Returns the likeliest curve with the knots of one, from which it starts."""
    curve = curve._replace(scales=np.minimum(curve.scales, FIRST_SCALE))
    likelihood, numbers, damping = _Likelihood(points, weights, curve.knots), _numbers(curve), 0.01
    cost, gradient, information = likelihood.evaluate(numbers)
    for _ in range(STEPS):
        damped = information + np.diag(damping * (information.diagonal() + 1e-6))
        step = np.clip(np.linalg.solve(damped, -gradient), -LARGEST_STEP, LARGEST_STEP)
        moved = likelihood.bounded(numbers + step)
        trial = likelihood.evaluate(moved)
        if trial[0] < cost:
            gain, damping = cost - trial[0], max(damping / 5, 1e-4)
            numbers, (cost, gradient, information) = moved, trial
            if gain < LEAST_GAIN:
                break
        else:
            damping *= 8
    return cost + len(numbers), likelihood.curve(numbers), likelihood.at(numbers)[0]


class _Likelihood:
    """The likelihood of points under curves with fixed knots, as a function of their numbers."""

    def __init__(self, points: Array, weights: Array, knots: Array) -> None:
        self.knots, self.weights, self.widths = knots, weights, np.diff(knots)
        self.bins = bins = len(knots) - 1
        self.index = np.searchsorted(knots[1:-1], points, side="right")
        self.u = np.clip((points - knots[self.index]) / self.widths[self.index], 0, 1)
        beyond = (knots[0] - points).clip(0), (points - knots[-1]).clip(0)
        self.tails = [(np.flatnonzero(side), side[side > 0]) for side in beyond]
        # The prior: log-slopes are about the means of those of both bins, scales TAIL_SCALE.
        self.means = (np.eye(bins + 1, bins) + np.eye(bins + 1, bins, -1)) / 2
        self.means[[0, -1]] *= 2
        self.rows = np.hstack([np.zeros((bins + 3, bins + 1)), np.eye(bins + 3)])
        self.rows[:-2, 1 : bins + 1] = -self.means
        self.expected = np.append(-self.means @ np.log(self.widths), 2 * [np.log(TAIL_SCALE)])
        self.prior = np.append(np.full(bins + 1, SLOPE_PRIOR), 2 * [TAIL_PRIOR])

    def curve(self, numbers: Array) -> ColumnCurve:
        """Returns the curve of its numbers."""
        heights, slopes, scales = np.split(np.exp(numbers[1:]), [self.bins, 2 * self.bins + 1])
        scores = numbers[0] + np.append(0.0, np.cumsum(heights))
        return ColumnCurve(self.knots, scores, slopes, scales)

    def bounded(self, numbers: Array) -> Array:
        """Returns numbers whose slopes fit the secants, and whose scales are in their range."""
        first, heights, slopes, scales = np.split(
            numbers, np.cumsum([1, self.bins, self.bins + 1])
        )
        secants = heights - np.log(self.widths)
        means, ends = self.means @ secants, (secants[:1], secants[-1:])
        reach = np.abs(np.diff(secants, prepend=ends[0], append=ends[1])) / 2 + SLOPE_RANGE
        slopes = np.clip(slopes, means - reach, means + reach)
        return np.concatenate([first, heights, slopes, np.clip(scales, *np.log(SCALES))])

    def evaluate(self, numbers: Array) -> tuple[float, Array, Array]:
        """Returns the cost without its nats a number, its gradient and its Fisher information."""
        z, log_slopes, rows = self.at(numbers)
        residuals, by_prior = self.rows @ numbers - self.expected, 2 * self.rows.T * self.prior
        cost = self.weights @ (z**2 / 2 - log_slopes) + self.prior @ residuals**2
        gradient = by_prior @ residuals - self.weights @ rows
        weights = self.weights * FAR**2 / np.maximum(z**2, FAR**2)
        information = by_prior @ self.rows + (weights[:, None] * rows).T @ rows
        return (float(cost) if np.isfinite(cost) else np.inf), gradient, information

    def at(self, numbers: Array) -> tuple[Array, Array, Array]:
        """Returns scores and log-slopes at the points, and the derivatives of log-densities."""
        curve, bins, k, u = self.curve(numbers), self.bins, self.index, self.u
        heights, v = np.diff(curve.scores), 1 - u
        h, s, d0, d1 = heights[k], (heights / self.widths)[k], curve.slopes[k], curve.slopes[k + 1]
        uu, uv, vv = u * u, u * v, v * v
        total, slope = s * (uu + vv) + (d0 + d1) * uv, d1 * uu + 2 * s * uv + d0 * vv
        part = (s * uu + d0 * uv) / total
        z, log_slope = curve.scores[k] + h * part, 2 * np.log(s / total) + np.log(slope)
        rows, each, zh = np.zeros((len(u), 2 * bins + 4)), np.arange(len(u)), z * h
        rows[:, 1 : bins + 1] = np.where(np.arange(bins) < k[:, None], -z[:, None] * heights, 0.0)
        rows[each, 1 + k] = 2 + 2 * s * (uv / slope - (uu + vv) / total)
        rows[each, 1 + k] -= zh * (part + s * (uu - part * (uu + vv)) / total)
        rows[each, bins + 1 + k] = d0 * (vv / slope - (2 + zh * (1 - part)) * uv / total)
        rows[each, bins + 2 + k] = d1 * (uu / slope - (2 - zh * part) * uv / total)
        for side, (beyond, distance) in enumerate(self.tails):
            end, scale = side * bins, curve.scales[side]
            ratio = distance * curve.slopes[end] / scale
            bend, share = np.log1p(ratio), ratio / (1 + ratio)
            z[beyond] = curve.scores[end] + (2 * side - 1) * scale * bend
            log_slope[beyond] = np.log(curve.slopes[end]) - bend
            rows[beyond] = 0.0
            rows[beyond, 1 : bins + 1] = -side * z[beyond, None] * heights
            outward = (1 - 2 * side) * scale * z[beyond]
            rows[beyond, bins + 1 + end] = outward * share + 1 - share
            rows[beyond, 2 * bins + 2 + side] = outward * (bend - share) + share
        rows[:, 0] = -z
        return z, log_slope, rows
