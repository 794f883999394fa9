"""Linear layers in a form whose condition number has a bound."""

import numpy as np
import torch

from kappaflow._checks import finite_float
from kappaflow.bijection import Bijection
from kappaflow.bijections import Permutation, SVDLinear
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.rewrite.affine import affine_map
from kappaflow.rewrite.items import elementwise_if_any
from kappaflow.rewrite.opened import flow_of, is_frozen, is_linear, parts_of
from kappaflow.rewrite.runs import changed_by_run
from kappaflow.rewrite.stacked import stacked

BOUND = 1e3


def bounded(flow: Flow, condition_bound: float = BOUND) -> tuple[Flow, tuple[float, ...]]:
    """Returns a flow whose linear layers keep a bound on their condition number, in training too.

    A layer above the bound becomes an `SVDLinear`, its smallest singular values raised, behind a
    scale for all features that stays as it is (and behind a permutation, where the determinant is
    negative). That is another function wherever a squeezed direction mattered: train it on. Layers
    within the bound stay what they are, and so does the standardisation at the data.

    Args:
        flow: Of rows of features, or of images, whose channels are the features.
        condition_bound: The largest condition number of a linear layer, above 1.

    Returns:
        The flow, and the condition numbers of the layers that were replaced.

    Raises:
        ArgumentError: The bound is not above 1, or it is no flow that can be taken apart.

    Example:
        >>> import kappaflow as kf
        >>> squeezed = kf.Linear.of([[1.0, 1.0], [1.0, 1.0001]])
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.Chain([squeezed]))
        >>> mended, before = bounded(flow)
        >>> after = kf.spectrum(mended.bijection, torch.zeros(1, 2)).condition_number
        >>> f"{before[0]:.0f}", f"{after.item():.0f}"
        ('39995', '708')
    """
    if not finite_float("condition_bound", condition_bound) > 1:
        raise ArgumentError(f"'condition_bound' should be above 1, got {condition_bound}.")
    parts = parts_of(flow, stacks=True)
    units = 0
    while units < len(parts) and parts[units].is_units:
        units += 1
    replaced: list[float] = []

    def change(run: list[Bijection], features: int) -> list[Bijection]:
        found: list[Bijection] = []
        for part in run:
            within = None
            if is_linear(part):
                within = _within(part, features, condition_bound, flow.dtype, replaced)
            found += [part] if within is None else within
        return stacked(found, flow)

    found = changed_by_run(parts[units:], flow.joint_shape, change)
    if not replaced:
        return flow, ()
    made = flow_of(flow, [part.to(flow.dtype) for part in (*parts[:units], *found)])
    return made, tuple(replaced)


def _within(
    part: Bijection, features: int, bound: float, dtype: torch.dtype, replaced: list[float]
) -> list[Bijection] | None:
    """Returns layers for a linear one that is above a bound, whose number it notes; None else."""
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
