"""`Proposals`: draws of missing numbers given the rest of a row, by a Gaussian copula."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaincinv, gammaln
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kappaflow.domains import Interval
from kappaflow.mixed.curves import KNOTS, interpolated, knots_of, normal_scores
from kappaflow.mixed.noise import Noise, normal, uniform

ROUNDS = 15  # of expectation and maximization
RIDGE = 1e-3  # added to variances of 1
DEGREES = 5.0  # of freedom of the draws: proposals need wider tails than what they stand for
LEAST = 1e-30  # distance from an end at 0, in units of 2**22
WIDER = 1.1  # times the spread of the Gaussian copula


class Proposals(nn.Module):
    """Draws missing numbers given the present ones and the labels, with the density of the draws.

    Each column is mapped to normal scores by a curve of straight lines through quantiles. Scores
    and labels get one mean and one covariance, by expectation and maximization over
    the incomplete rows; draws follow a multivariate t distribution with the conditional mean and
    covariance. They only have to be near: weights correct them.

    Args:
        domains: The domain of each column of numbers, (D,); None for all real numbers.
        labels: Number of columns that represent labels and counts, K.
    """

    knots: Tensor
    mean: Tensor
    covariance: Tensor

    def __init__(self, domains: Sequence[Interval | None], labels: int) -> None:
        super().__init__()
        self.domains, self.columns, self.labels = tuple(domains), len(domains), labels
        columns = self.columns
        spread = torch.arange(KNOTS, dtype=torch.float64)
        self.register_buffer("knots", spread.repeat(columns, 1))
        self.register_buffer("mean", torch.zeros(labels + columns, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(labels + columns, dtype=torch.float64))

    def fit(self, numbers: np.ndarray, inputs: np.ndarray) -> "Proposals":
        """Returns the proposals, fitted to rows (N, D) with NaN where a number is missing."""
        for number, domain in enumerate(self.domains):
            column = torch.from_numpy(numbers[np.isfinite(numbers[:, number]), number])
            self.knots[number] = torch.from_numpy(knots_of(_unbounded(column, domain).numpy()))
        scores = self.scores(torch.from_numpy(numbers)).numpy()
        mean, covariance = _moments(np.hstack([inputs, scores]))
        self.mean.copy_(torch.from_numpy(mean))
        self.covariance.copy_(torch.from_numpy(covariance))
        self._conditional.cache_clear()
        return self

    def scores(self, numbers: Tensor) -> Tensor:
        """Returns normal scores of numbers (N, D); NaN stays NaN."""
        columns = [
            interpolated(_unbounded(column, domain), knots, normal_scores())[0]
            for column, domain, knots in zip(numbers.T, self.domains, self.knots, strict=True)
        ]
        return torch.stack(columns, dim=1) if columns else numbers

    def values(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the numbers of normal scores (N, D), and log |d score / d number| of each."""
        values, slopes = torch.empty_like(scores), torch.empty_like(scores)
        for number, (domain, knots) in enumerate(zip(self.domains, self.knots, strict=True)):
            points, log_slope = interpolated(scores[:, number], normal_scores(), knots)
            values[:, number], more = _bounded(points, domain)
            slopes[:, number] = -log_slope - more
        return values, slopes

    def wrapped(self, numbers: Tensor) -> Tensor:
        """Returns numbers (N, D) whose circles have one turn."""
        numbers = numbers.clone()
        for number, domain in enumerate(self.domains):
            if domain is not None and domain.circular:
                low, high = domain.low or 0.0, domain.high or 0.0
                numbers[:, number] = low + (numbers[:, number] - low) % (high - low)
        return numbers

    @torch.no_grad()
    def drawn(
        self, numbers: Tensor, inputs: Tensor, missing: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Returns rows (N, D) whose missing numbers are drawn, and the log-density (N,) of these.

        `missing` (N, D) says which; all others have to be finite.
        """
        result, log_q = numbers.clone(), torch.zeros(len(numbers), dtype=torch.float64)
        if not missing.any():
            return result, log_q
        known = torch.cat([inputs.double(), self.scores(numbers)], dim=1) - self.mean
        patterns, index = torch.unique(missing, dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            rows = torch.nonzero(index == number)[:, 0]
            gone = torch.cat([torch.zeros(self.labels, dtype=torch.bool), pattern])
            slopes, root = self._conditional(tuple(gone.tolist()))
            center = self.mean[gone] + known[rows][:, ~gone] @ slopes.T
            draws, log_draws = _student(rows, pattern, noise)
            scores = torch.zeros(len(rows), self.columns, dtype=torch.float64)
            scores[:, pattern] = center + draws @ root.T
            values, log_slopes = self.values(scores)
            result[rows[:, None], torch.nonzero(pattern)[:, 0]] = values[:, pattern]
            log_q[rows] = log_draws - root.diagonal().log().sum() + log_slopes[:, pattern].sum(1)
        return result, log_q

    @torch.no_grad()
    def stand_ins(self, rows: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Returns independent draws of each column (N, D), and the log-density of each (N, D).

        They fill the numbers that a label stands for. Each column is normal, before the map to
        its domain, with the median and about the spread of its values.
        """
        scores = normal(noise, "stand-in", torch.arange(rows), self.columns)
        values, log_q = torch.empty_like(scores), -(scores**2) / 2 - math.log(2 * math.pi) / 2
        low, middle, high = (int((normal_scores() < end).sum()) for end in (-1.0, 0.0, 1.0))
        for number, (domain, knots) in enumerate(zip(self.domains, self.knots, strict=True)):
            spread = (knots[high] - knots[low]) / 2
            points = knots[middle] + spread * scores[:, number]
            values[:, number], slope = _bounded(points, domain)
            log_q[:, number] -= spread.log() + slope
        return values, log_q

    @lru_cache(maxsize=256)  # noqa: B019 - one object a table
    def _conditional(self, gone: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
        """Returns the slopes of missing scores on what is known, and a root of the covariance."""
        index = torch.tensor(gone)
        known = self.covariance[~index][:, ~index]
        across = self.covariance[index][:, ~index]
        slopes = torch.linalg.lstsq(known, across.T).solution.T if len(known) else across
        left = self.covariance[index][:, index] - slopes @ across.T
        left = (left + left.T) / 2 + RIDGE * torch.eye(len(left), dtype=torch.float64)
        return slopes, WIDER * torch.linalg.cholesky(left)


def _unbounded(column: Tensor, domain: Interval | None) -> Tensor:
    """Returns the values of a column without the ends of its domain, by logarithms."""
    if domain is None:
        return column
    column = inside(column, domain)
    result = torch.zeros_like(column)
    if domain.low is not None:
        result = result + (column - domain.low).log()
    return result if domain.high is None else result - (domain.high - column).log()


def _bounded(points: Tensor, domain: Interval | None) -> tuple[Tensor, Tensor]:
    """Returns the values in a domain of points without ends, and the log of the slope."""
    if domain is None:
        return points, torch.zeros_like(points)
    low, high = domain.low, domain.high
    if high is None:
        return inside((low or 0.0) + points.exp(), domain), points
    if low is None:
        return inside(high - (-points).exp(), domain), -points
    slope = math.log(high - low) + logsigmoid(points) + logsigmoid(-points)
    return inside(low + (high - low) * points.sigmoid(), domain), slope


def inside(column: Tensor, domain: Interval | None) -> Tensor:
    """Returns a column whose values are not on an end of a domain, also in float32."""
    for end, sign in () if domain is None else ((domain.low, 1), (domain.high, -1)):
        if end is not None:
            limit = end + sign * max(abs(end), LEAST) * 2.0**-22
            column = column.clamp(min=limit) if sign > 0 else column.clamp(max=limit)
    return column


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and covariance of rows with NaN, by expectation and maximization.

    Source:
        Dempster, Laird, Rubin 1977.
    """
    present = np.isfinite(rows)
    mean = np.array([
        column[finite].mean() if finite.any() else 0.0
        for column, finite in zip(rows.T, present.T, strict=True)
    ])
    variance = np.array([
        column[finite].var() if finite.any() else 1.0
        for column, finite in zip(rows.T, present.T, strict=True)
    ])
    covariance = np.diag(variance + RIDGE)
    patterns, index = np.unique(present, axis=0, return_inverse=True)
    if present.all():
        return mean, np.cov(rows.T, bias=True).reshape(len(mean), -1) + RIDGE * np.eye(len(mean))
    for _ in range(ROUNDS):
        filled, extra = rows.copy(), np.zeros_like(covariance)
        for number, known in enumerate(patterns):
            members = np.flatnonzero(index == number)
            if known.all():
                continue
            gone = ~known
            across = covariance[np.ix_(gone, known)]
            slopes = np.linalg.lstsq(covariance[np.ix_(known, known)], across.T, rcond=None)[0].T
            filled[np.ix_(members, gone)] = (
                mean[gone] + (rows[np.ix_(members, known)] - mean[known]) @ slopes.T
            )
            left = covariance[np.ix_(gone, gone)] - slopes @ across.T
            extra[np.ix_(gone, gone)] += len(members) * left
        mean = filled.mean(0)
        centered = filled - mean
        covariance = (centered.T @ centered + extra) / len(rows) + RIDGE * np.eye(len(mean))
    return mean, covariance


def _student(rows: Tensor, columns: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Returns draws of some columns by a multivariate t distribution, and their log-density."""
    width, half = int(columns.sum()), DEGREES / 2
    scores = normal(noise, "number", rows, width)
    # a chi-squared variable by its quantile function, since torch's gamma takes no generator
    levels = uniform(noise, "tail", rows, 1)[:, 0]
    chi = torch.from_numpy(2 * gammaincinv(half, levels.numpy()))
    draws = scores * (DEGREES / chi).sqrt()[:, None]
    constant = gammaln(half + width / 2) - gammaln(half) - width / 2 * math.log(DEGREES * math.pi)
    power = half + width / 2
    return draws, constant - power * torch.log1p((draws**2).sum(1) / DEGREES)
