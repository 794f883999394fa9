"""Trains flows for the studies, measures them, and rewrites them with one partition."""

import math
import time
from statistics import median
from typing import Any

import polars as pl
import torch
from torch import Tensor

from kappaflow.conditioning import layers_of, profile, round_trip, spectrum
from kappaflow.conditioning.spectrum import MATRIX_FREE_ABOVE
from kappaflow.errors import KappaflowError
from kappaflow.flows import Flow
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.images import Images
from kappaflow.partition import Partition
from kappaflow.rewrite import rewrite_fixed_partition
from kappaflow.training import FitResult, checked_settings, fit, fit_split, log_prob_of
from kappaflow_studies.data import DataParts
from kappaflow_studies.engine.study import Case, Row

FAILED = "failed"  # the column with the reason why a training stopped


def train_flow(flow: Flow, parts: DataParts, case: Case) -> Flow:
    """Returns the flow in evaluation mode, after training it in place by maximum likelihood."""
    settings = checked_settings(
        max_epochs=case["epochs"],
        patience=case["epochs"],
        conditioning_every=case["epochs"],
        batch_size=case["batch_size"],
        learning_rate=case["learning_rate"],
        seed=case["seed"],
    )
    fit_split(flow, parts.train, parts.validation, settings, progress=False)
    return flow.eval()


def fitted(
    flow: Flow,
    train: Tensor | Images,
    validation: Tensor | Images,
    *,
    epochs: int,
    every: int,
    **settings: Any,
) -> FitResult:
    """Returns the result of a training in place that never stops early."""
    measured = {"conditioning_every": every, "patience": epochs, "progress": False}
    return fit(flow, train, validation=validation, max_epochs=epochs, **measured, **settings)


def completed(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Returns the rows of completed trainings, and at most one sentence about the others."""
    if FAILED not in frame.columns:
        return frame, []
    ended = frame.filter(pl.col(FAILED).is_null())
    count = len(frame) - len(ended)
    trainings = "training" if len(frame) == 1 else "trainings"
    return ended, [
        f"{count} of {len(frame)} {trainings} stopped because steps were not finite; they are "
        "left out."
    ]


def held_out(flow: Flow, parts: DataParts) -> Row:
    """Returns the test loss of a flow and its standard error."""
    log_prob = log_prob_of(flow, parts.test.batches(flow)).double()
    if isinstance(parts.test, Images):
        loss = -log_prob / (math.log(2) * math.prod(parts.test.shape))
    elif parts.log_prob is not None:
        loss = parts.log_prob - log_prob
    else:
        loss = -log_prob + standardization_log_det(flow)
    return {"loss": loss.mean().item(), "loss_error": loss.std().item() / math.sqrt(len(loss))}


def points(flow: Flow, parts: DataParts, count: int) -> Tensor:
    """Returns the first test rows or images."""
    return parts.test.batches(flow).at(slice(0, count)).x


def evaluation(flow: Flow, parts: DataParts, x: Tensor, prefix: str = "") -> Row:
    """Returns the test loss and the conditioning of a flow, with a prefix of the columns."""
    row = held_out(flow, parts) | conditioning(flow, x)
    return {f"{prefix}{name}": value for name, value in row.items()}


LEVELS = {"low": 0.05, "middle": 0.5, "high": 0.95}


def conditioning(flow: Flow, x: Tensor) -> Row:
    """Returns the condition numbers of a flow in evaluation mode at points (B, *event)."""
    small = x[0].numel() <= MATRIX_FREE_ABOVE
    conditions, layers, peak = (_by_profile if small else _one_by_one)(flow, x)
    return {
        **{f"condition_{end}": conditions.quantile(level).item() for end, level in LEVELS.items()},
        "worst_layer": layers.median().item(),
        "peak": None if peak is None else peak.median().item(),
        "round_trip": round_trip(flow, x).data.median().item(),
    }


def _by_profile(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns the condition numbers of the flow, of its worst layer, and of its worst prefix."""
    flow_profile = profile(flow, x)
    prefixes = flow_profile.condition_number
    return prefixes[-1], flow_profile.layer_condition_number.amax(0), prefixes.amax(0)


@torch.no_grad()
def _one_by_one(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns the same without the prefix: the time of a profile grows with depth squared."""
    joined = flow.augmented(x, generator=torch.Generator().manual_seed(0))
    point = flow.standardization(joined)[0]
    conditions, layers = spectrum(flow.core, point).condition_number, []
    for layer in layers_of(flow.core):
        layers.append(spectrum(layer.bijection, point).condition_number)
        point = layer.bijection(point)[0]
    return conditions, torch.stack(layers).amax(0), None


def twin_of(
    flow: Flow, x: Tensor, *, partition: str | Partition = "half", couplings: int | None = 6
) -> tuple[Flow | None, Row]:
    """Returns a flow rewritten to one partition (its twin; None if there is none), and its row."""
    try:
        twin, certificate = rewrite_fixed_partition(
            flow, x, partition=partition, couplings=couplings
        )
    except KappaflowError as error:
        return None, {"why_not": str(error)}
    return twin, {
        "couplings_before": certificate.couplings_before,
        "maps": certificate.mixing_before,
        "couplings_after": certificate.couplings_after,
        "map_condition": certificate.condition_number,
        "difference_float64": certificate.differences["float64"].log_prob,
        "difference_float32": certificate.differences["float32"].log_prob,
    }


@torch.no_grad()
def times_in_turns(flows: dict[str, Flow], x: Tensor, repeats: int) -> dict[str, float]:
    """Returns the median seconds of `log_prob` by name, with the flows taking turns."""
    durations: dict[str, list[float]] = {name: [] for name in flows}
    first = next(iter(flows.values()))
    joined = first.augmented(x, generator=torch.Generator().manual_seed(0))
    for _ in range(repeats + 1):
        for name, flow in flows.items():
            started = time.perf_counter()
            flow.augmented_log_prob(joined)
            durations[name].append(time.perf_counter() - started)
    return {name: median(times[1:]) for name, times in durations.items()}
