"""What is measured after an epoch: held-out likelihood, conditioning, round trips, memory."""

import math
import sys

import numpy as np
import torch
from torch import Tensor

from kappaflow.conditioning import round_trip, spectrum
from kappaflow.conditioning.points import joined_points, measuring
from kappaflow.conditioning.stretched import MATRIX_UP_TO, stretched
from kappaflow.flows import Flow
from kappaflow.training.batches import Batches

ROWS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**20  # of points, which networks make many times as many of
NUMBERS_OF_MATRICES = 2560  # of points whose matrices are made at once
TESTED = 4  # times as many rows as an epoch measures, where they decide nothing
TOLD_APART = 1e-3  # eps times condition number up to which a Jacobian shows its smallest value
CONDITIONING = (
    "condition_number_median",
    "condition_number_p95",
    "round_trip_data",
    "round_trip_latent",
)


@torch.no_grad()
def log_prob_of(flow: Flow, rows: Batches, *, generator: torch.Generator | None = None) -> Tensor:
    """Returns log p of each row in nats, in float64 on the CPU, in chunks of bounded memory.

    Of a flow with an augmentation the bound (or the joint density), with the same draws each time,
    or those that a generator is at.
    """
    parts = []
    at_once = rows_at_once(flow)
    if flow.augment is not None and generator is None:
        generator = scoring_generator()
    for start in range(0, len(rows), at_once):
        part = rows.at(slice(start, start + at_once))
        found = flow.log_prob(part.x, part.context, generator=generator)
        parts.append(found.double().cpu())
    return torch.cat(parts)


def rows_at_once(flow: Flow) -> int:
    """Returns how many rows `log_prob_of` takes at once: rounding may depend on how many."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // math.prod(flow.event_shape)))


def scoring_generator() -> torch.Generator:
    """Returns the generator from which scores with an augmentation are drawn."""
    return torch.Generator().manual_seed(0)


def quantile(values: Tensor, level: float) -> float:
    """Returns a quantile of any number of values; nan where it lies between infinities."""
    with np.errstate(invalid="ignore"):
        return float(np.quantile(values.numpy(), level))


def standardization_log_det(flow: Flow) -> float:
    """Returns log|det| of the change of units, in nats: an NLL plus this is standardised.

    Where columns have a domain these units are the deviations of the columns as they are given, so
    that flows with and without bounds can be compared.
    """
    if flow.domain is not None:
        return -flow.domain.deviation.double().log().sum().item()
    point = torch.zeros(1, *flow.joint_shape, dtype=flow.dtype, device=flow.device)
    return flow.standardization(point)[1].double().item()


def likelihood_figures(flow: Flow, rows: Batches) -> dict[str, float]:
    """Returns the NLL of held-out rows, its mean and its worst quantiles, in nats a row."""
    nll = -log_prob_of(flow, rows)
    standardised, weights = nll + standardization_log_det(flow), rows.weights
    mean = nll.mean().item() if weights is None else (weights.cpu() * nll).mean().item()
    figures = {
        "validation_nll": mean,
        "validation_nll_standardised": mean + standardization_log_det(flow),
    }
    if has_bits(flow):
        figures["validation_bits_per_dimension"] = bits_per_dimension(flow, mean)
    for name, level in (("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        figures[f"validation_nll_{name}"] = quantile(standardised, level)
    return figures


def has_bits(flow: Flow) -> bool:
    """Returns whether pixels are whole numbers to a flow, and its likelihood one of them."""
    return hasattr(flow.augment, "values") and flow.likelihood != "joint"


def bits_per_dimension(flow: Flow, nll: float) -> float:
    """Returns an NLL of discrete pixels, in nats an image, as bits for each of its numbers.

    Source:
        Theis, van den Oord, Bethge 2016.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.glow((1, 2, 2), levels=1, steps=1, hidden=4, dequantize="uniform")
        >>> round(bits_per_dimension(flow, 4 * math.log(256)), 6)  # as long as 4 free bytes
        8.0
    """
    return nll / (math.prod(flow.event_shape) * math.log(2))


def conditioning_figures(
    flow: Flow, rows: Batches, condition: dict[str, float] | None = None
) -> dict[str, float]:
    """Returns condition numbers (median and 95 %) and the worst round trips, at a few rows.

    On standardised columns. The number of rows falls with the dimension, so that an epoch is not
    spent on measuring. Condition numbers that are measured already are taken as they are.
    """
    few = rows.at(slice(0, max(4, min(64, 2048 // math.prod(flow.event_shape)))))
    standardised = flow.standardization(joined_points(flow, few.x))[0]
    finite = torch.isfinite(standardised).flatten(1).all(dim=1)
    if not finite.any():
        return dict.fromkeys(CONDITIONING, float("nan")) | (condition or {})
    few, standardised = few.at(finite), standardised[finite]
    if condition is None:
        found = spectrum(flow.core, standardised, context=few.context).condition_number
        condition = _in_figures(found.median().item(), found.quantile(0.95).item())
    trip = round_trip(flow, few.x, context=few.context)
    trips = {
        "round_trip_data": trip.data.max().item(),
        "round_trip_latent": trip.latent.max().item(),
    }
    return condition | trips


@torch.no_grad()
def condition_numbers(flow: Flow, rows: Batches) -> Tensor:
    """Returns the condition number at each row, float64 on the CPU; nan where x is not finite.

    On standardised columns, in chunks of bounded memory. The Jacobian alone tells it to 1e-3, and
    in half the time, where it is far enough from 1 / eps; elsewhere the inverse map is used too.
    """
    parts = []
    at_once = max(1, NUMBERS_OF_MATRICES // math.prod(flow.joint_shape))
    for start in range(0, len(rows), at_once):
        part = rows.at(slice(start, start + at_once))
        x = flow.standardization(joined_points(flow, part.x))[0]
        finite = torch.isfinite(x).flatten(1).all(dim=1)
        found = torch.full((len(x),), torch.nan, dtype=torch.float64)
        if finite.any():
            found[finite.cpu()] = _condition_numbers(flow, x[finite], part.at(finite).context)
        parts.append(found)
    return torch.cat(parts)


def _condition_numbers(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    """Returns the condition numbers at standardised points that are finite."""
    if x.shape[1:].numel() > MATRIX_UP_TO:
        return spectrum(flow.core, x, context=context).condition_number.cpu()
    with measuring(flow):
        found = stretched(flow.core.linearize(x, context), x).log_condition_number.exp()
    doubtful = ~(found * torch.finfo(x.dtype).eps < TOLD_APART)
    if doubtful.any():
        context = None if context is None else context[doubtful]
        found[doubtful] = spectrum(flow.core, x[doubtful], context=context).condition_number
    return found.cpu()


def budget_rows(flow: Flow) -> int:
    """Returns the largest number of rows at which a budgeted condition number is measured.

    The 95 % quantile of 512 rows is known to a few per cent; in many dimensions there is time for
    fewer.
    """
    return max(64, min(512, 8192 // math.prod(flow.joint_shape)))


def budget_figures(flow: Flow, rows: Batches) -> dict[str, float]:
    """Returns median and 95 % of the condition number, at as many rows as a budget asks for.

    nan where that of a row is not a number.
    """
    return _in_figures(*_condition_at(flow, rows, budget_rows(flow))[:2])


def tested_condition(flow: Flow, rows: Batches) -> tuple[float, float, int]:
    """Returns median and 95 % of the condition number at test rows, and at how many of them."""
    return _condition_at(flow, rows, TESTED * budget_rows(flow))


def _condition_at(flow: Flow, rows: Batches, most: int) -> tuple[float, float, int]:
    """Returns median and 95 % of the condition number at so many rows at most, and how many."""
    found = condition_numbers(flow, rows.at(slice(0, most)))
    return found.quantile(0.5).item(), found.quantile(0.95).item(), len(found)


def _in_figures(median: float, p95: float) -> dict[str, float]:
    return {"condition_number_median": median, "condition_number_p95": p95}


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most memory used so far: of the device, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
