"""Automatic fixes for a kappaflow flow: pad it, fuse or bound layers, convert to float64."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from kappaflow._checks import finite_float, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Permutation, SVDLinear
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.checks.reconstruction import EXPLAINED
from kappaflow.diagnosis.finding import Diagnosis
from kappaflow.errors import ArgumentError
from kappaflow.finding import Finding
from kappaflow.flows import Flow, nice, real_nvp
from kappaflow.flows.recipe import flat_signature
from kappaflow.options import PartitionName
from kappaflow.registry import build, describe
from kappaflow.rewrite import fuse
from kappaflow.rewrite.layers import (
    affine_map,
    after_standardization,
    changed_by_run,
    elementwise_if_any,
    flow_of,
    is_frozen,
    is_linear,
    parts_of,
    stacked,
)
from kappaflow.stack import CouplingStack

BOUND = 1e3
ROUND_TRIPS = ("KF201", "KF202")
RECIPES = {"real_nvp": real_nvp, "nice": nice}  # recipes whose flows can be padded
AS_DEFAULT = ("padding", "start", "components", "mixing")  # their options that need the default
PARTITIONS = tuple(name for name in get_args(PartitionName) if name != "random")
Plain = AffineCoupling | AdditiveCoupling


@dataclass(frozen=True)
class Fixed:
    """The flow after a fix, and a clause that says what the fix did."""

    flow: Flow
    note: str


@dataclass(frozen=True)
class Fix:
    """A named fix, and the codes of the errors and warnings to which it applies."""

    name: str
    codes: tuple[str, ...]
    trains: bool  # whether the flow has to be trained afterwards
    apply: Callable[[Flow], Fixed | None]  # returns None if there is nothing to change

    def applies_to(self, diagnosis: Diagnosis) -> bool:
        return any(
            finding.code in self.codes
            and finding.severity != "note"
            and (finding.code not in ROUND_TRIPS or _is_rounding(finding))
            for finding in diagnosis.findings
        )


def _is_rounding(finding: Finding) -> bool:
    """Returns whether a finding is a reconstruction error that rounding explains."""
    worst, predicted = (finding.evidence.get(name) for name in ("worst", "predicted"))
    if not isinstance(worst, float) or not isinstance(predicted, float):
        return False
    return math.isfinite(predicted) and worst <= EXPLAINED * predicted


def bounded(flow: Flow, condition_bound: float = BOUND) -> tuple[Flow, tuple[float, ...]]:
    """Bounds the condition number of the linear layers of a flow, even in later training.

    A layer above the bound becomes an `SVDLinear` with its smallest singular values raised. A
    fixed scale precedes it, and also a permutation if the determinant is negative. This changes
    the density, so train the flow afterwards. The standardization of the data stays unchanged. The
    channels of images are their features.

    Returns:
        The flow, and the condition numbers of the replaced layers.

    Raises:
        ArgumentError: condition_bound is not above 1, or flow cannot be split into layers.
    """
    if not finite_float("condition_bound", condition_bound) > 1:
        raise ArgumentError(f"'condition_bound' should be above 1, got {condition_bound}.")
    parts = parts_of(flow, stacks=True)
    first = after_standardization(parts)
    replaced: list[float] = []

    def change(run: list[Bijection], features: int) -> list[Bijection]:
        results: list[Bijection] = []
        for part in run:
            layers = None
            if is_linear(part):
                layers = _replacement(part, features, condition_bound, flow.dtype, replaced)
            results += [part] if layers is None else layers
        return stacked(results, flow)

    results = changed_by_run(parts[first:], flow.joint_shape, change)
    if not replaced:
        return flow, ()
    layers = [part.to(flow.dtype) for part in (*parts[:first], *results)]
    return flow_of(flow, layers), tuple(replaced)


def _replacement(
    part: Bijection, features: int, bound: float, dtype: torch.dtype, replaced: list[float]
) -> list[Bijection] | None:
    """Returns the layers that replace a linear layer; None if it is within the bound."""
    matrix, shift = affine_map([part], features)
    values = np.linalg.svd(matrix, compute_uv=False)
    condition_number = float(values[0] / values[-1]) if values[-1] > 0 else np.inf
    if not condition_number > bound:
        return None
    replaced.append(condition_number)
    smallest = values[0] * bound**-0.95
    middle = np.sqrt(values[0] * max(values[-1], smallest))
    layers = elementwise_if_any(np.full(features, middle), np.zeros(features), frozen=True)
    if np.linalg.slogdet(matrix)[0] < 0:
        exchanged = [1, 0, *range(2, features)]
        layers.append(Permutation(exchanged))
        matrix = matrix[:, exchanged]
    weight, start = (torch.from_numpy(numbers).to(dtype) for numbers in (matrix / middle, shift))
    layer = SVDLinear.of(weight, start, condition_bound=bound)
    return [*layers, layer.requires_grad_(not is_frozen([part]))]


@torch.no_grad()
def padded(flow: Flow, features: int | None = None) -> Flow:
    """Returns a flow with Gaussian padding added and the same density of the data.

    Each coupling also reads and changes half of the padding. The new weights start at zero, so
    log_prob of the data stays the same until the flow is trained.

    The flow comes from `real_nvp` or `nice`, with two features or more, without padding, linear
    maps between its couplings, a whitening start or random permutations. By default, as many
    features are added as the flow has.

    Raises:
        ArgumentError: The flow is not of this kind, or features is not a whole number above 0.
    """
    described = _describe(flow)
    added = flow.joint_shape[0] if features is None else positive_int("features", features)
    with torch.random.fork_rng(devices=[]):
        larger = build({**described, "arguments": {**described["arguments"], "padding": added}})
    larger.to(flow.dtype)
    outer, inner = _as_chain(larger), _as_chain(flow)
    if outer.embedding is not None and inner.embedding is not None:
        outer.embedding.load_state_dict(inner.embedding.state_dict())
    for new, old in zip(outer, inner, strict=True):
        if isinstance(new, CouplingStack) and isinstance(old, CouplingStack):
            # The plain couplings share their weights with the stack, so this writes to the stack.
            for pair in zip(_couplings(new), _couplings(old), strict=True):
                _copy_coupling(*pair)
        else:
            _copy_elementwise(new, old)
    return larger.to(flow.device).train(flow.training)


def _copy_coupling(new: Plain, old: Plain) -> None:
    """Copies the weights of a coupling into the larger one for data and padding."""
    layers, old_layers = _linear_layers(new), _linear_layers(old)
    for tensor in (layers[0].weight, layers[-1].weight, layers[-1].bias):
        tensor.zero_()
    for layer, own in zip(layers[1:-1], old_layers[1:-1], strict=True):
        layer.weight.copy_(own.weight)
        layer.bias.copy_(own.bias)
    layers[0].bias.copy_(old_layers[0].bias)
    kept, columns = len(old.partition.kept), old_layers[0].weight
    layers[0].weight[:, :kept] = columns[:, :kept]
    layers[0].weight[:, len(new.partition.kept) :] = columns[:, kept:]  # the context
    parts = new.parameters_per_feature
    for name in ("weight", "bias"):
        tensor, own = (getattr(each[-1], name) for each in (layers, old_layers))
        for part, of_data in zip(tensor.chunk(parts), own.chunk(parts), strict=True):
            part[: len(of_data)] = of_data


def _linear_layers(coupling: Plain) -> list[nn.Linear]:
    return [layer for layer in coupling.conditioner.modules() if isinstance(layer, nn.Linear)]


def _copy_elementwise(new: Bijection, old: Bijection) -> None:
    """Copies an elementwise map of the data, and leaves the values for the padding."""
    state = new.state_dict()
    for name, tensor in old.state_dict().items():
        own = state[name][: len(tensor)] if tensor.dim() else state[name]
        own.copy_(tensor)


def _describe(flow: Flow) -> dict[str, Any]:
    """Returns the description of a flow, or raises an error if it cannot be padded."""
    described = describe(flow)
    arguments = described["arguments"]
    if described["name"] not in RECIPES:
        by_hand = described["name"] == "Flow"
        raise ArgumentError(
            "'flow' should come from real_nvp or nice to be padded, this one was "
            f"{'assembled from layers' if by_hand else 'made by ' + described['name']}."
        )
    options = flat_signature(RECIPES[described["name"]]).parameters
    plain = all(
        arguments.get(name, options[name].default) == options[name].default
        for name in AS_DEFAULT
        if name in options
    )
    if not plain or arguments["partition"] not in PARTITIONS or flow.joint_shape[0] == 1:
        raise ArgumentError(
            "'flow' should have two features or more to be padded, and no padding, linear maps, "
            "whitening start, mixture as the base or random permutations."
        )
    return described


def _as_chain(flow: Flow) -> Chain:
    return flow.bijection if isinstance(flow.bijection, Chain) else Chain([flow.bijection])


def _couplings(stack: CouplingStack) -> Iterator[Plain]:
    return (part for part in stack.plain() if isinstance(part, Plain))


def _fused(flow: Flow) -> Fixed | None:
    merged = fuse(flow)
    before, after = len(layers_of(flow.core)), len(layers_of(merged.core))
    note = f"merged neighboring linear layers: {before} layers before, {after} now"
    return Fixed(merged, note) if after < before else None


def _bounded(flow: Flow) -> Fixed | None:
    changed, replaced = bounded(flow)
    listed = ", ".join(f"{value:.2g}" for value in replaced)
    note = f"bounded the condition number of linear layers by {BOUND:g}; it was {listed}"
    return Fixed(changed, note) if replaced else None


def _in_float64(flow: Flow) -> Fixed | None:
    before = str(flow.dtype).removeprefix("torch.")
    note = f"converted from {before} to float64"
    return None if before == "float64" else Fixed(copy.deepcopy(flow).double(), note)


def _padded(flow: Flow) -> Fixed | None:
    larger, features = padded(flow), flow.joint_shape[0]
    added = larger.joint_shape[0] - features
    return Fixed(larger, f"added {added} features of Gaussian padding to the {features}")


FIXES = {
    fix.name: fix
    for fix in (  # in the order in which they are applied
        Fix("pad", (), trains=True, apply=_padded),
        Fix("fuse", ("KF301", "KF302", "KF305"), trains=False, apply=_fused),
        Fix("bound", ("KF305",), trains=True, apply=_bounded),
        Fix("float64", ("KF301", "KF303", *ROUND_TRIPS), trains=False, apply=_in_float64),
    )
}
