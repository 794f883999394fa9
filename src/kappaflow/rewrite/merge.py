"""Merges neighboring layers: linear couplings with couplings, and linear layers (`fuse`)."""

import functools
from collections.abc import Sequence
from itertools import groupby
from typing import TypeGuard

import numpy as np
import torch

from kappaflow.bijection import Bijection, Inverse
from kappaflow.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    ElementwiseAffine,
    Linear,
    Permutation,
)
from kappaflow.errors import ArgumentError
from kappaflow.factor import LinearCoupling
from kappaflow.factor.coupling import Numbers
from kappaflow.flows import Flow
from kappaflow.nets.exact_type import is_exact
from kappaflow.partition import Partition
from kappaflow.rewrite.layers import (
    affine_map,
    after_standardization,
    changed_by_run,
    elementwise,
    elementwise_if_any,
    flow_of,
    is_elementwise,
    is_frozen,
    is_linear,
    is_permutation,
    partition_of,
    parts_of,
    stacked,
)
from kappaflow.rewrite.sandwich import SandwichCoupling
from kappaflow.stack import CouplingStack


def merged(parts: Sequence[Bijection]) -> list[Bijection]:
    """Returns fewer layers with the same function, in one pass from the data on."""
    done: list[Bijection] = []
    for part in parts:
        waiting = [part]
        while waiting:
            part = waiting.pop()
            if done and (both := pair(done[-1], part)) is not None:
                done.pop()
                waiting.append(both)
            elif len(done) > 1 and _apart(done[-2], done[-1], part):
                waiting += _together(done, part)[::-1]
            else:
                done.append(part)
    return done


def pair(first: Bijection, second: Bijection) -> Bijection | None:
    """Returns two neighbors as one layer, frozen if both are; None if they cannot be merged."""
    frozen = is_frozen((first, second))
    if _is_elementwise(first) and _is_elementwise(second):
        (scale, shift), (by, more) = _numbers(first), _numbers(second)
        return elementwise(by * scale, by * shift + more, frozen=frozen)
    if partition_of(first) is None or partition_of(first) != partition_of(second):
        return None
    if isinstance(first, Inverse) or isinstance(second, Inverse):
        return _pair_of_inverses(first, second)
    if isinstance(first, LinearCoupling) and isinstance(second, LinearCoupling):
        diagonal = second.diagonal * first.diagonal
        weight = second.weight + second.diagonal[:, None] * first.weight
        return _linear(first.partition, weight, diagonal, frozen=frozen)
    if isinstance(first, LinearCoupling):
        middle, before, after = _taken_apart(second)
        return SandwichCoupling(middle, _both(first, before), after)
    if isinstance(second, LinearCoupling):
        middle, before, after = _taken_apart(first)
        return SandwichCoupling(middle, before, _both(after, second))
    return None


def forward(middle: ElementwiseAffine, linear: LinearCoupling) -> list[Bijection]:
    """Returns an elementwise map and the linear coupling after it with their order exchanged."""
    kept, changed = list(linear.partition.kept), list(linear.partition.changed)
    scale, shift = _numbers(middle)
    weight, diagonal = (t.detach().double().numpy() for t in (linear.weight, linear.diagonal))
    shift[changed] = diagonal * shift[changed] + weight @ shift[kept]
    moved = weight * scale[kept] / scale[changed][:, None]
    return [
        _linear(linear.partition, moved, diagonal, frozen=is_frozen([linear])),
        elementwise(scale, shift, frozen=is_frozen([middle])),
    ]


def backward(linear: LinearCoupling, middle: ElementwiseAffine) -> list[Bijection]:
    """Returns a linear coupling and the elementwise map after it with their order exchanged."""
    kept, changed = list(linear.partition.kept), list(linear.partition.changed)
    scale, shift = _numbers(middle)
    weight, diagonal = (t.detach().double().numpy() for t in (linear.weight, linear.diagonal))
    moved = weight * scale[changed][:, None] / scale[kept]
    shift[changed] = (shift[changed] - moved @ shift[kept]) / diagonal
    return [
        elementwise(scale, shift, frozen=is_frozen([middle])),
        _linear(linear.partition, moved, diagonal, frozen=is_frozen([linear])),
    ]


def _pair_of_inverses(first: Bijection, second: Bijection) -> Inverse | None:
    """Returns a linear coupling and the inverse of another coupling, in either order, as one."""
    if not (isinstance(first, LinearCoupling) or isinstance(second, LinearCoupling)):
        return None
    joined = pair(_inverted(second), _inverted(first))
    return None if joined is None else Inverse(joined)


def _inverted(part: Bijection) -> Bijection:
    """Returns the inverse of a linear coupling, or of an inverse."""
    if isinstance(part, LinearCoupling):
        diagonal = part.diagonal.detach()
        weight = -part.weight.detach() / diagonal[:, None]
        return _linear(part.partition, weight, 1 / diagonal, frozen=is_frozen([part]))
    return part.bijection  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _linear(
    partition: Partition, weight: Numbers, diagonal: Numbers, *, frozen: bool
) -> LinearCoupling:
    return LinearCoupling.of(partition, weight, diagonal).requires_grad_(not frozen)


def _apart(before: Bijection, middle: Bijection, after: Bijection) -> bool:
    """Returns whether an elementwise map separates two couplings that could merge."""
    linear = isinstance(before, LinearCoupling) or isinstance(after, LinearCoupling)
    same = partition_of(before) is not None and partition_of(before) == partition_of(after)
    return linear and same and _is_elementwise(middle)


def _is_elementwise(part: Bijection) -> TypeGuard[ElementwiseAffine]:
    return is_exact(part, ElementwiseAffine)


def _together(done: list[Bijection], part: Bijection) -> list[Bijection]:
    """Returns the last layers, removed from `done`, and a layer in an order that merges."""
    middle: ElementwiseAffine = done.pop()  # pyright: ignore[reportAssignmentType]
    if isinstance(part, LinearCoupling):
        return forward(middle, part)
    linear: LinearCoupling = done.pop()  # pyright: ignore[reportAssignmentType]
    return [*backward(linear, middle), part]


def _numbers(layer: ElementwiseAffine) -> tuple[np.ndarray, np.ndarray]:
    """Returns copies of the scale and the shift."""
    scale = layer.log_scale.detach().double().exp()
    return scale.numpy().copy(), layer.shift.detach().double().numpy().copy()


def _taken_apart(
    part: Bijection,
) -> tuple[AffineCoupling | AdditiveCoupling, LinearCoupling | None, LinearCoupling | None]:
    if isinstance(part, SandwichCoupling):
        return part.coupling, part.before, part.after
    return part, None, None  # pyright: ignore[reportReturnType]


def _both(first: LinearCoupling | None, second: LinearCoupling | None) -> LinearCoupling | None:
    if first is None or second is None:
        return second or first
    return pair(first, second)  # pyright: ignore[reportReturnType]


def fuse(flow: Flow) -> Flow:
    """Returns a flow with the same function in which each run of linear layers is one layer.

    Permutations become one permutation, elementwise maps become one elementwise map, and
    everything else one dense matrix. The standardization of the data is kept. A sequence with
    a matrix that is singular in the flow's dtype is kept too, because its layers can still be
    inverted one by one. Frozen layers become a frozen layer; if one of them is trainable, the
    fused layer is. Inner chains with a hook are not split.

    Args:
        flow: A flow of tables, or of images, with the channels as features.

    Raises:
        ArgumentError: The input is not a flow of rows of features, its chain has a hook, or a
            chain inside it embeds the context.

    Example:
        >>> import torch, kappaflow as kf
        >>> swap = kf.bijections.Permutation((1, 0))
        >>> layers = [swap, kf.bijections.ActNorm(2), swap]
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.Chain(layers))
        >>> len(kf.fuse(flow).bijection)
        3
    """
    parts = parts_of(flow, unsplit=(CouplingStack,))
    start = after_standardization(parts)
    change = functools.partial(_fused_run, flow=flow)
    fused = changed_by_run(parts[start:], flow.joint_shape, change)
    return flow_of(flow, [part.to(flow.dtype) for part in (*parts[:start], *fused)])


def _fused_run(run: list[Bijection], features: int, *, flow: Flow) -> list[Bijection]:
    """Returns the layers of a run, with neighboring linear ones fused."""
    fused: list[Bijection] = []
    for linear, group in groupby(run, is_linear):
        layers = list(group)
        fused += _fused(layers, features, flow.dtype) if linear and len(layers) > 1 else layers
    return stacked(fused, flow)


def _fused(run: list[Bijection], features: int, dtype: torch.dtype) -> list[Bijection]:
    """Returns linear layers as one: none for the identity, unchanged if they are singular."""
    product = affine_map(run, features)
    if all(map(is_permutation, run)):
        index = product.matrix.argmax(1).tolist()
        return [] if index == sorted(index) else [Permutation(index)]
    scale = product.matrix.diagonal()
    if all(map(is_elementwise, run)) and (scale > 0).all():
        scale = np.ascontiguousarray(scale)
        return elementwise_if_any(scale, product.shift, frozen=is_frozen(run))
    matrix, shift = (torch.from_numpy(numbers).to(dtype) for numbers in product)
    try:
        return [Linear.of(matrix, shift).requires_grad_(not is_frozen(run))]
    except ArgumentError:  # singular to rounding, or not finite
        return run
