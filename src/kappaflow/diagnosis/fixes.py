"""Automatic fixes for a kappaflow flow: fuse or bound linear layers, convert to float64."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kappaflow._checks import finite_float
from kappaflow.bijection import Bijection
from kappaflow.bijections import OnFeatures, Permutation, SVDLinear
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.checks.reconstruction import EXPLAINED
from kappaflow.diagnosis.result import Diagnosis
from kappaflow.errors import ArgumentError
from kappaflow.finding import Finding
from kappaflow.flows import Flow
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
    """Returns a flow with bounded linear layers, and the condition numbers of the replaced ones.

    A layer with a condition number above the bound becomes an `SVDLinear` with its smallest
    singular values raised. A fixed scale precedes it, and also a permutation if the determinant is
    negative. This changes the density, so train the flow afterwards. The standardization of the
    data stays unchanged. The channels of images are their features.
    """
    if not finite_float("condition_bound", condition_bound) > 1:
        raise ArgumentError(f"'condition_bound' should be above 1, got {condition_bound}.")
    parts = parts_of(flow, unsplit=(CouplingStack,))
    first = after_standardization(parts)
    replaced: list[float] = []

    def change(run: list[Bijection], features: int) -> list[Bijection]:
        results: list[Bijection] = []
        for part in run:
            layers = None
            if is_linear(part) and not isinstance(part, OnFeatures):  # a circle keeps its length
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


FIXES = {
    fix.name: fix
    for fix in (  # in the order in which they are applied
        Fix("fuse", ("KF301", "KF302", "KF305"), trains=False, apply=_fused),
        Fix("bound", ("KF305",), trains=True, apply=_bounded),
        Fix("float64", ("KF301", "KF303", *ROUND_TRIPS), trains=False, apply=_in_float64),
    )
}
