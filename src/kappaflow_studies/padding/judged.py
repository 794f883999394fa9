"""What is measured of any trained flow here: likelihood, conditioning, distance of samples."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from kappaflow.conditioning import spectrum
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, importance_weighted_log_prob
from kappaflow_studies.engine.study import Row
from kappaflow_studies.universal.wasserstein import two_sample_w2

QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
DIRECTIONS = 200
ROWS_AT_ONCE = 500


def conditioning(flow: Flow, x: Tensor) -> Row:
    """Returns quantiles over points of the condition number, and medians of its two parts."""
    joined = flow.joined(x, generator=torch.Generator().manual_seed(0))
    found = spectrum(flow.core, flow.units(joined)[0])
    kappa = found.condition_number.double().nan_to_num(math.inf)
    levels = {f"kappa_{name}": kappa.quantile(level).item() for name, level in QUANTILES.items()}
    ends = {"sigma_max": found.sigma_max, "sigma_min": found.sigma_min}
    return levels | {name: value.median().item() for name, value in ends.items()}


def likelihood(flow: Flow, x: Tensor, draws: int, truth: Tensor | None = None) -> Row:
    """Returns the mean NLL of points, in nats, as far as there is one.

    Args:
        flow: The flow.
        x: Held-out points.
        draws: For importance weights, where log_prob is a bound.
        truth: The log-density that the points come from, where it is known.

    Returns:
        likelihood (exact, bound or joint), nll, nll_error (over the points); weighted_nll,
        weighted_error (over the draws); kl and kl_error (over the points) from the truth.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        parts = [flow.log_prob(part, generator=generator) for part in x.split(ROWS_AT_ONCE)]
    log_prob = torch.cat(parts).double()
    found: Row = {"likelihood": flow.likelihood, **_mean("nll", -log_prob)}
    if flow.likelihood == "joint":
        return found
    error = torch.zeros_like(log_prob)
    if flow.likelihood == "bound":
        log_prob, error = _weighted(flow, x, draws)
    found["weighted_nll"] = -log_prob.mean().item()
    found["weighted_error"] = error.square().sum().sqrt().item() / len(error)
    if truth is not None:
        found |= _mean("kl", truth.double() - log_prob)
    return found


def _mean(name: str, values: Tensor) -> Row:
    error = values.std(correction=0).item() / math.sqrt(len(values))
    return {name: values.mean().item(), f"{name}_error": error}


def _weighted(flow: Flow, x: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    pairs = [
        importance_weighted_log_prob(flow, part, draws, generator=generator)
        for part in x.split(ROWS_AT_ONCE)
    ]
    estimate, error = (torch.cat(part).double() for part in zip(*pairs, strict=True))
    return estimate, error


def distances(a: Tensor, b: Tensor) -> Row:
    """Returns W2 between two samples of as many points, exact and sliced; nan where not finite."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    if not (a.isfinite().all() and b.isfinite().all()):
        return {"w2": math.nan, "sliced_w2": math.nan}
    return {"w2": two_sample_w2(a, b), "sliced_w2": sliced_w2(a, b)}


def sliced_w2(a: Tensor, b: Tensor, directions: int = DIRECTIONS) -> float:
    """Returns the root mean square of W2 along random directions, the same ones each time.

    Args:
        a: (B, n).
        b: (B, n).
        directions: How many.

    Returns:
        At most W2 / sqrt(n) for n directions at right angles; 0 for equal samples.

    Raises:
        ArgumentError: The shapes differ.

    Source:
        Rabin, Peyre, Delon, Bernot 2012, Wasserstein barycenter and its application to texture
        mixing. On a line the sorted points are the best pairing.

    Example:
        >>> sliced_w2(torch.zeros(3, 1), torch.full((3, 1), 2.0))
        2.0
    """
    if a.shape != b.shape:
        raise ArgumentError(
            f"'a' and 'b' should have one shape, got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(a.shape[1], directions, dtype=a.dtype, generator=generator)
    along = drawn / drawn.norm(dim=0)
    one, other = ((points @ along).sort(dim=0).values for points in (a, b))
    return (one - other).square().mean().sqrt().item()


def curve(history: Iterable[Mapping[str, Any]]) -> Row:
    """Returns the condition numbers over the training, where they were measured."""
    measured = [line for line in history if line["condition_number_median"] is not None]
    return {
        "epochs_measured": [line["epoch"] for line in measured],
        "kappa_over_training": [line["condition_number_median"] for line in measured],
        "kappa_p95_over_training": [line["condition_number_p95"] for line in measured],
    }
