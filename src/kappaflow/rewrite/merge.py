"""Neighbours that change the same part become one coupling."""

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from kappaflow.bijection import Bijection
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine
from kappaflow.factor import LinearCoupling
from kappaflow.rewrite.items import elementwise, partition_of
from kappaflow.rewrite.mixed import MixedCoupling
from kappaflow.rewrite.opened import is_as_defined


def merged(parts: Sequence[Bijection]) -> list[Bijection]:
    """Returns fewer layers of the same function, in one pass from the data on."""
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
    """Returns two neighbouring layers as one, or None where they are none."""
    if _is_elementwise(first) and _is_elementwise(second):
        (scale, shift), (by, more) = _numbers(first), _numbers(second)
        return elementwise(by * scale, by * shift + more)
    if partition_of(first) is None or partition_of(first) != partition_of(second):
        return None
    if isinstance(first, LinearCoupling) and isinstance(second, LinearCoupling):
        diagonal = second.diagonal * first.diagonal
        weight = second.weight + second.diagonal[:, None] * first.weight
        return LinearCoupling.of(first.partition, weight.detach(), diagonal.detach())
    if isinstance(first, LinearCoupling):
        middle, before, after = _taken_apart(second)
        return MixedCoupling(middle, _both(first, before), after)
    if isinstance(second, LinearCoupling):
        middle, before, after = _taken_apart(first)
        return MixedCoupling(middle, before, _both(after, second))
    return None


def forward(middle: ElementwiseAffine, linear: LinearCoupling) -> list[Bijection]:
    """Returns an elementwise map and the linear coupling behind it, the coupling now first."""
    kept, changed = list(linear.partition.kept), list(linear.partition.changed)
    scale, shift = _numbers(middle)
    weight, diagonal = (t.detach().double().numpy() for t in (linear.weight, linear.diagonal))
    shift[changed] = diagonal * shift[changed] + weight @ shift[kept]
    moved = weight * scale[kept] / scale[changed][:, None]
    return [LinearCoupling.of(linear.partition, moved, diagonal), elementwise(scale, shift)]


def backward(linear: LinearCoupling, middle: ElementwiseAffine) -> list[Bijection]:
    """Returns a linear coupling and the elementwise map behind it, the coupling now last."""
    kept, changed = list(linear.partition.kept), list(linear.partition.changed)
    scale, shift = _numbers(middle)
    weight, diagonal = (t.detach().double().numpy() for t in (linear.weight, linear.diagonal))
    moved = weight * scale[changed][:, None] / scale[kept]
    shift[changed] = (shift[changed] - moved @ shift[kept]) / diagonal
    return [elementwise(scale, shift), LinearCoupling.of(linear.partition, moved, diagonal)]


def _apart(before: Bijection, middle: Bijection, behind: Bijection) -> bool:
    """Returns whether an elementwise map keeps a linear coupling from joining a neighbour."""
    linear = isinstance(before, LinearCoupling) or isinstance(behind, LinearCoupling)
    same = partition_of(before) is not None and partition_of(before) == partition_of(behind)
    return linear and same and _is_elementwise(middle)


def _is_elementwise(part: Bijection) -> TypeGuard[ElementwiseAffine]:
    return is_as_defined(part, ElementwiseAffine)


def _together(done: list[Bijection], part: Bijection) -> list[Bijection]:
    """Returns the last layers done, which are taken away, and a part, in an order that joins."""
    middle: ElementwiseAffine = done.pop()  # pyright: ignore[reportAssignmentType]
    if isinstance(part, LinearCoupling):
        return forward(middle, part)
    linear: LinearCoupling = done.pop()  # pyright: ignore[reportAssignmentType]
    return [*backward(linear, middle), part]


def _numbers(layer: ElementwiseAffine) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and shift, in copies."""
    scale = layer.log_scale.detach().double().exp()
    return scale.numpy().copy(), layer.shift.detach().double().numpy().copy()


def _taken_apart(
    part: Bijection,
) -> tuple[AffineCoupling | AdditiveCoupling, LinearCoupling | None, LinearCoupling | None]:
    if isinstance(part, MixedCoupling):
        return part.coupling, part.before, part.after
    return part, None, None  # pyright: ignore[reportReturnType]


def _both(first: LinearCoupling | None, second: LinearCoupling | None) -> LinearCoupling | None:
    if first is None or second is None:
        return second or first
    return pair(first, second)  # pyright: ignore[reportReturnType]
