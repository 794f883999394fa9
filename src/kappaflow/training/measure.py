"""Measurements after an epoch: held-out likelihood, conditioning, round trips, memory."""

import math
import sys

import torch
from torch import Tensor

from kappaflow.conditioning import round_trip, spectrum
from kappaflow.conditioning.points import joined_points, measuring
from kappaflow.conditioning.stretched import MATRIX_UP_TO, stretched
from kappaflow.data.batches import Batches
from kappaflow.flows import Flow
from kappaflow.flows.standardization import standardization_log_det

ROWS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**20  # rows times features; networks need several times as much memory
NUMBERS_OF_MATRICES = 2560  # rows times features whose Jacobians are formed at once
TESTED = 4  # test rows for each validation row of an epoch
SLACK = 1e-12  # rounding of a share of weights
RESOLVED = 1e-3  # eps * condition number up to which a Jacobian shows its smallest singular value
CONDITIONING = (
    "condition_number_median",
    "condition_number_p95",
    "round_trip_data",
    "round_trip_latent",
)


@torch.no_grad()
def log_prob_of(flow: Flow, rows: Batches, *, generator: torch.Generator | None = None) -> Tensor:
    """Returns log p of each row in nats, in float64 on the CPU, computed in chunks.

    For a flow with an augmentation it is the bound or the joint density. The random numbers are
    the same in each call, or come from the generator.
    """
    parts = []
    at_once = rows_at_once(flow)
    if flow.augment is not None and generator is None:
        generator = scoring_generator()
    for start in range(0, len(rows), at_once):
        part = rows.at(slice(start, start + at_once))
        result = flow.log_prob(part.x, part.context, generator=generator)
        parts.append(result.double().cpu())
    return torch.cat(parts)


def rows_at_once(flow: Flow) -> int:
    """Returns the size of the chunks of `log_prob_of`; rounding may depend on it."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // math.prod(flow.event_shape)))


def scoring_generator() -> torch.Generator:
    """Returns the generator of the random numbers in scores with an augmentation."""
    return torch.Generator().manual_seed(0)


def mean(values: Tensor, weights: Tensor | None = None) -> float:
    """Returns the mean of values (N,) with optional weights (N,)."""
    if weights is None:
        return values.mean().item()
    return ((weights.to(values) * values).sum() / weights.sum().to(values)).item()


def quantile(values: Tensor, level: float, weights: Tensor | None = None) -> float:
    """Returns a quantile of values (N,); nan if one is nan.

    It is the first value up to which the values have this share of the weights, (N,), or the mean
    of this and the next value if they have exactly this share. So a value of twice the weight
    counts like two equal values.
    """
    ordered, order = values.double().cpu().sort()
    if ordered.isnan().any():
        return math.nan
    shares = (torch.ones_like(ordered) if weights is None else weights.cpu().double())[order]
    ends = (shares / shares.sum()).cumsum(0)
    at = torch.tensor([level - SLACK, level + SLACK], dtype=torch.float64)
    first, last = torch.searchsorted(ends, at).clamp_max(len(ends) - 1)
    return ((ordered[first] + ordered[last]) / 2).item()


def standard_error(values: Tensor, weights: Tensor | None = None) -> float:
    """Returns the standard error of the mean of values (N,) with optional weights (N,)."""
    if weights is None:
        return values.std(correction=0).item() / math.sqrt(len(values))
    off = weights.to(values) * (values - mean(values, weights))
    return (off.square().sum().sqrt() / weights.sum().to(values)).item()


def likelihood_figures(flow: Flow, rows: Batches) -> dict[str, float]:
    """Returns the mean NLL of held-out rows and its upper quantiles, in nats per row."""
    nll = -log_prob_of(flow, rows)
    weights = None if rows.weights is None else rows.weights.cpu()
    average, shift = mean(nll, weights), standardization_log_det(flow)
    figures = {"validation_nll": average, "validation_nll_standardized": average + shift}
    if has_bits(flow):
        figures["validation_bits_per_dimension"] = bits_per_dimension(flow, average)
    for name, level in (("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        figures[f"validation_nll_{name}"] = quantile(nll + shift, level, weights)
    return figures


def train_figures(flow: Flow, nll: float) -> dict[str, float]:
    """Returns the figures of the mean NLL of the training rows during an epoch."""
    bits = {"train_bits_per_dimension": bits_per_dimension(flow, nll)} if has_bits(flow) else {}
    shift = standardization_log_det(flow)
    return {"train_nll": nll, "train_nll_standardized": nll + shift, **bits}


def has_bits(flow: Flow) -> bool:
    """Returns whether a flow has a likelihood of pixels that are whole numbers."""
    return hasattr(flow.augment, "values") and flow.likelihood != "joint"


def bits_per_dimension(flow: Flow, nll: float) -> float:
    """Returns an NLL of discrete pixels, in nats per image, in bits per dimension."""
    return nll / (math.prod(flow.event_shape) * math.log(2))


def conditioning_figures(
    flow: Flow, rows: Batches, condition: dict[str, float] | None = None
) -> dict[str, float]:
    """Returns condition numbers, unless they are known, and round-trip errors at a few rows."""
    # They are of standardized columns. The number of rows falls with the dimension.
    few = rows.at(slice(0, max(4, min(64, 2048 // math.prod(flow.event_shape)))))
    standardized = flow.standardization(joined_points(flow, few.x))[0]
    finite = torch.isfinite(standardized).flatten(1).all(dim=1)
    if not finite.any():
        return dict.fromkeys(CONDITIONING, float("nan")) | (condition or {})
    few, standardized = few.at(finite), standardized[finite]
    if condition is None:
        result = spectrum(flow.core, standardized, context=few.context).condition_number
        condition = _in_figures(*(quantile(result, at, few.weights) for at in (0.5, 0.95)))
    trip = round_trip(flow, few.x, context=few.context)
    trips = {
        "round_trip_data": trip.data.max().item(),
        "round_trip_latent": trip.latent.max().item(),
    }
    return condition | trips


@torch.no_grad()
def condition_numbers(flow: Flow, rows: Batches) -> Tensor:
    """Returns the condition number at each row, float64 on the CPU; nan where x is not finite."""
    # Far below 1 / eps, the Jacobian alone gives it to 1e-3 in half the time; elsewhere the
    # inverse is used too.
    parts = []
    at_once = max(1, NUMBERS_OF_MATRICES // math.prod(flow.joint_shape))
    for start in range(0, len(rows), at_once):
        part = rows.at(slice(start, start + at_once))
        x = flow.standardization(joined_points(flow, part.x))[0]
        finite = torch.isfinite(x).flatten(1).all(dim=1)
        result = torch.full((len(x),), torch.nan, dtype=torch.float64)
        if finite.any():
            result[finite.cpu()] = _condition_numbers(flow, x[finite], part.at(finite).context)
        parts.append(result)
    return torch.cat(parts)


def _condition_numbers(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    """Returns the condition numbers at finite, standardized points."""
    if x.shape[1:].numel() > MATRIX_UP_TO:
        return spectrum(flow.core, x, context=context).condition_number.cpu()
    with measuring(flow):
        result = stretched(flow.core.linearize(x, context), x).log_condition_number.exp()
    doubtful = ~(result * torch.finfo(x.dtype).eps < RESOLVED)
    if doubtful.any():
        context = None if context is None else context[doubtful]
        result[doubtful] = spectrum(flow.core, x[doubtful], context=context).condition_number
    return result.cpu()


def budget_rows(flow: Flow) -> int:
    """Returns the number of rows at which a condition number with a budget is measured."""
    # 512 rows give the 95 % quantile to a few per cent. In many dimensions time limits them.
    return max(64, min(512, 8192 // math.prod(flow.joint_shape)))


def budget_figures(flow: Flow, rows: Batches) -> dict[str, float]:
    """Returns median and 95 % quantile of the condition number at the rows of a budget."""
    return _in_figures(*_condition_at(flow, rows, budget_rows(flow))[:2])


def condition_at_test_rows(flow: Flow, rows: Batches) -> tuple[float, float, int]:
    """Returns median and 95 % quantile of the condition number at test rows, and their number."""
    return _condition_at(flow, rows, TESTED * budget_rows(flow))


def _condition_at(flow: Flow, rows: Batches, most: int) -> tuple[float, float, int]:
    """Returns median and 95 % quantile of the condition number at `most` rows, and how many."""
    few = rows.at(slice(0, most))
    result = condition_numbers(flow, few)
    median, p95 = (quantile(result, level, few.weights) for level in (0.5, 0.95))
    return median, p95, len(result)


def _in_figures(median: float, p95: float) -> dict[str, float]:
    return {"condition_number_median": median, "condition_number_p95": p95}


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak memory: of the device, or of this process if it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # missing on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
