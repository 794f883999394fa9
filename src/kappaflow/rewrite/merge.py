"""Neighbours that change the same part become one coupling."""

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from kappaflow.bijection import Bijection, Inverse
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine
from kappaflow.factor import LinearCoupling
from kappaflow.factor.coupling import Numbers
from kappaflow.nets.exact_type import is_exact
from kappaflow.partition import Partition
from kappaflow.rewrite.items import elementwise, partition_of
from kappaflow.rewrite.mixed import SandwichCoupling
from kappaflow.rewrite.opened import is_frozen


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
    """Returns two neighbouring layers as one, or None where they are none.

    The numbers of two layers that become those of one are frozen if both were.
    """
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
    """Returns an elementwise map and the linear coupling behind it, the coupling now first."""
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
    """Returns a linear coupling and the elementwise map behind it, the coupling now last."""
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
    """Returns the inverse of a linear coupling, or that of an inverse."""
    if isinstance(part, LinearCoupling):
        diagonal = part.diagonal.detach()
        weight = -part.weight.detach() / diagonal[:, None]
        return _linear(part.partition, weight, 1 / diagonal, frozen=is_frozen([part]))
    return part.bijection  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _linear(
    partition: Partition, weight: Numbers, diagonal: Numbers, *, frozen: bool
) -> LinearCoupling:
    return LinearCoupling.of(partition, weight, diagonal).requires_grad_(not frozen)


def _apart(before: Bijection, middle: Bijection, behind: Bijection) -> bool:
    """Returns whether an elementwise map keeps a linear coupling from joining a neighbour."""
    linear = isinstance(before, LinearCoupling) or isinstance(behind, LinearCoupling)
    same = partition_of(before) is not None and partition_of(before) == partition_of(behind)
    return linear and same and _is_elementwise(middle)


def _is_elementwise(part: Bijection) -> TypeGuard[ElementwiseAffine]:
    return is_exact(part, ElementwiseAffine)


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
    if isinstance(part, SandwichCoupling):
        return part.coupling, part.before, part.after
    return part, None, None  # pyright: ignore[reportReturnType]


def _both(first: LinearCoupling | None, second: LinearCoupling | None) -> LinearCoupling | None:
    if first is None or second is None:
        return second or first
    return pair(first, second)  # pyright: ignore[reportReturnType]
