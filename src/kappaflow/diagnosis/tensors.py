"""Comparisons and quantiles of tensors, as checks report them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kappaflow.diagnosis.result import Columns

ROWS_AT_ONCE, NUMBERS_AT_ONCE = 2048, 2**21
TABLE_ROWS, DIGITS = 64, 7
ROUNDED = 1e-3  # share of an error that remains in float64 if rounding caused it


def in_chunks(
    call: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, ...]:
    """Returns the results of a call with all rows, in chunks that bound the memory."""
    at_once = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // x[0].numel()))
    contexts = [None] * len(x) if context is None else context.split(at_once)
    results = [call(*pair) for pair in zip(x.split(at_once), contexts, strict=False)]
    return tuple(map(torch.cat, zip(*results, strict=True)))


def columns(**values: Tensor | None) -> Columns:
    """Returns a table with a column for each tensor, of 64 rows at most."""
    return {
        name: plain(column[:TABLE_ROWS]) for name, column in values.items() if column is not None
    }


def quantiles(values: Tensor, prefix: str = "") -> Columns:
    """Returns quantiles over the points of values (S, B); nan counts as infinite."""
    known = values.detach().double().nan_to_num(torch.inf, posinf=torch.inf)
    levels = (("p05", 0.05), ("median", 0.5), ("p95", 0.95), ("max", 1.0))
    return {
        prefix + name: plain(known.quantile(level, dim=1, interpolation="higher"))
        for name, level in levels
    }


def plain(values: Tensor) -> list[float | int | str | None]:
    """Returns numbers, rounded to the digits that a figure shows."""
    return [float(f"{value:.{DIGITS}g}") for value in values.detach().cpu().double().tolist()]


def lengths(points: Tensor) -> Tensor:
    """Returns the length of each point, at least 1, (B,) in float64."""
    return points.flatten(1).double().norm(dim=1).clamp_min(1)


def shares_of(weights: Tensor | None, rows: int) -> Tensor:
    """Returns the share of each row in a mean, (rows,), by its weight; equal without weights."""
    if weights is None:
        return torch.full((rows,), 1 / rows, dtype=torch.float64)
    return weights.double() / weights.double().sum()


def effective_rows(shares: Tensor) -> float:
    """Returns the number of equal rows that would be as informative (Kish 1965)."""
    return round(1 / shares.square().sum().item(), 6)


def mean_of(values: Tensor, shares: Tensor) -> Tensor:
    """Returns the mean of rows, or of each column, by the shares of the rows."""
    return shares.to(values) @ values


def spread_of(values: Tensor, shares: Tensor) -> Tensor:
    """Returns the standard deviation of each column, by the shares of the rows."""
    n = effective_rows(shares)
    variance = mean_of((values - mean_of(values, shares)).square(), shares)
    return (variance * n / (n - 1)).sqrt()


def median_of(values: Tensor, shares: Tensor) -> float:
    """Returns the median of numbers, (n,), by the shares of the rows."""
    order = values.argsort()
    reached = shares.to(values.device)[order].cumsum(0) > 0.5 - 1e-9
    return values[order[int(reached.int().argmax())]].item()


def largest(values: Tensor) -> float:
    """Returns the largest finite value; nan if there is none."""
    finite = values[torch.isfinite(values)]
    return finite.max().item() if len(finite) else math.nan


def finite_rows(values: Tensor) -> Tensor:
    """Returns whether all values of each point are finite, (n,)."""
    return torch.isfinite(values.reshape(len(values), -1)).all(dim=1)


def count_not_finite(values: Tensor) -> tuple[int, int]:
    """Returns the number of points with a value that is not finite, and the number of points."""
    finite = finite_rows(values)
    return int((~finite).sum()), len(finite)


def differ(a: Tensor, b: Tensor) -> bool:
    """Returns whether two results differ by more than the order of summation explains."""
    eps = torch.finfo(a.dtype).eps
    size = 1 + torch.maximum(a.abs(), b.abs()).nan_to_num(0, posinf=0)
    return bool(((a - b).abs().nan_to_num(0) > 1e3 * eps * size).any())


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference where both are finite; 0 if they are finite nowhere."""
    difference = (a.double() - b.double()).abs()
    finite = difference[torch.isfinite(difference)]
    return finite.max().item() if len(finite) else 0.0
