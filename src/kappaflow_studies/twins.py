"""The twin of a flow: the same function on one partition, and what it costs."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of, profile, round_trip, spectrum
from kappaflow.conditioning.spectrum import MATRIX_FREE_ABOVE
from kappaflow.errors import KappaflowError
from kappaflow.flows import Flow
from kappaflow.partition import Partition
from kappaflow.rewrite import rewrite_fixed_partition
from kappaflow_studies.engine.study import Row

LEVELS = {"low": 0.05, "middle": 0.5, "high": 0.95}


def conditioning(flow: Flow, x: Tensor) -> Row:
    """Returns the condition numbers of a flow over points.

    Args:
        flow: The flow, in evaluation mode.
        x: Points (B, *event).

    Returns:
        "condition_low", "condition_middle" and "condition_high" are quantiles over the points of
        that of the whole; "worst_layer" is the median of the largest of one layer, and "peak"
        that of the largest of all layers up to one, None above 128 dimensions.
    """
    small = x[0].numel() <= MATRIX_FREE_ABOVE
    whole, layers, peak = (_by_profile if small else _one_by_one)(flow, x)
    return {
        **{f"condition_{end}": whole.quantile(level).item() for end, level in LEVELS.items()},
        "worst_layer": layers.median().item(),
        "peak": None if peak is None else peak.median().item(),
        "round_trip": round_trip(flow, x).data.median().item(),
    }


def _by_profile(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns the condition numbers of the whole, of the worst layer, and of the worst prefix."""
    found = profile(flow, x)
    so_far = found.condition_number
    return so_far[-1], found.layer_condition_number.amax(0), so_far.amax(0)


@torch.no_grad()
def _one_by_one(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns the same without the last: a profile takes a time that grows with depth squared."""
    joined = flow.joined(x, generator=torch.Generator().manual_seed(0))
    point = flow.units(joined)[0]
    whole, layers = spectrum(flow.core, point).condition_number, []
    for layer in layers_of(flow.core):
        layers.append(spectrum(layer.bijection, point).condition_number)
        point = layer.bijection(point)[0]
    return whole, torch.stack(layers).amax(0), None


def twin_of(
    flow: Flow, x: Tensor, *, partition: str | Partition = "half", couplings: int | None = 6
) -> tuple[Flow | None, Row]:
    """Returns the twin of a flow, and what became of it; None where it was not found.

    Args:
        flow: The flow.
        x: Points on which the two are compared.
        partition: Of the twin.
        couplings: How many one linear map may take.
    """
    try:
        twin, said = rewrite_fixed_partition(flow, x, partition=partition, couplings=couplings)
    except KappaflowError as error:
        return None, {"why_not": str(error)}
    return twin, {
        "couplings_before": said.couplings_before,
        "maps": said.mixing_before,
        "couplings_after": said.couplings_after,
        "map_condition": said.condition_number,
        "difference_float64": said.differences["float64"].log_prob,
        "difference_float32": said.differences["float32"].log_prob,
    }


@torch.no_grad()
def times_in_turns(flows: dict[str, Flow], x: Tensor, repeats: int) -> dict[str, float]:
    """Returns the median seconds of the density of some points, the flows taking turns.

    Args:
        flows: By name, in evaluation mode.
        x: Points (B, *event).
        repeats: How often each is timed, after once that does not count.

    Returns:
        Seconds by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in flows}
    first = next(iter(flows.values()))
    joined = first.joined(x, generator=torch.Generator().manual_seed(0))
    for repeat in range(repeats + 1):
        for name, flow in flows.items():
            seconds = _timed(lambda flow=flow: flow.joined_log_prob(joined))
            if repeat:
                taken[name].append(seconds)
    return {name: median(times) for name, times in taken.items()}


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
