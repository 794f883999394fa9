"""Neighbours that change the same part become one coupling."""

from collections.abc import Sequence

import numpy as np

from kappaflow.bijection import Bijection
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine
from kappaflow.factor import LinearCoupling
from kappaflow.rewrite.items import elementwise, partition_of
from kappaflow.rewrite.mixed import MixedCoupling


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
            elif len(done) > 1 and _passes(done[-2], done[-1], part):
                linear, behind = passed(done.pop(), part)  # pyright: ignore[reportArgumentType]
                waiting += [*behind, linear]
            else:
                done.append(part)
    return done


def pair(first: Bijection, second: Bijection) -> Bijection | None:
    """Returns two neighbouring layers as one, or None where they are none."""
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


def passed(
    first: ElementwiseAffine, second: LinearCoupling
) -> tuple[LinearCoupling, list[Bijection]]:
    """Returns a linear coupling and an elementwise map, of which the coupling now comes first."""
    kept, changed = list(second.partition.kept), list(second.partition.changed)
    scale = first.log_scale.detach().double().exp().numpy()
    shift = first.shift.detach().double().numpy()
    weight = second.weight.detach().double().numpy()
    moved = weight * scale[kept] / scale[changed][:, None]
    shift = shift.copy()
    diagonal = second.diagonal.detach()
    shift[changed] = diagonal.double().numpy() * shift[changed] + weight @ shift[kept]
    linear = LinearCoupling.of(second.partition, np.ascontiguousarray(moved), diagonal)
    return linear, elementwise(scale, shift)


def _passes(before: Bijection, first: Bijection, second: Bijection) -> bool:
    """Returns whether `passed` lets a linear coupling join what comes before."""
    return (
        isinstance(first, ElementwiseAffine)
        and isinstance(second, LinearCoupling)
        and partition_of(before) == second.partition
    )


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
