"""The linear layers of steps of an `ImageChain`: multiplied out, or as triangles to solve with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kappaflow.bijection import at_each_place
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.factored import LULinear, dense_together, triangles_together

LinearParts = tuple[Tensor, Tensor, Tensor]  # matrix, shift, log|det|
Parts = tuple[Any, ...]  # one layer; or an ActNorm or none, a mixing of channels, a coupling


@dataclass(frozen=True)
class Triangles:
    """z = P L U x + b at each place, U with the scale of an `ActNorm`.

    Attributes:
        order: The permutation: z[i] is that of L U x at order[i].
        lower: L (n, n), with ones on its diagonal.
        upper: U (n, n).
        offset: U^-1 L^-1 P^T b (n,).
        log_det: log|det|, a scalar.
    """

    order: Tensor
    lower: Tensor
    upper: Tensor
    offset: Tensor
    log_det: Tensor

    def solve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x (B, n, *places), and the log_det (B,) of the way back."""
        vectors = z.movedim(1, -1)
        rows = vectors.reshape(-1, z.shape[1]).index_select(1, self.order.argsort())
        for triangle, upper in ((self.lower, False), (self.upper, True)):
            rows = torch.linalg.solve_triangular(triangle.mT, rows, upper=not upper, left=False)
        rows -= self.offset
        x = rows.reshape(vectors.shape).movedim(-1, 1)
        return x, at_each_place(-self.log_det, z)


def _layer(mixing: object) -> Any:  # noqa: ANN401
    return mixing.linear if isinstance(mixing, InvertibleConv1x1) else mixing


def _linear_map(norms: Sequence[Any], layer: Any, dtype: torch.dtype) -> LinearParts:  # noqa: ANN401
    """Returns matrix, shift and log|det| of a mixing behind an `ActNorm`, or behind none."""
    matrix, shift, log_det = layer.dense(dtype)
    for norm in norms:
        shift = shift + matrix @ norm.shift
        matrix, log_det = matrix * norm.log_scale.exp(), log_det + norm.log_scale.sum()
    return matrix, shift, log_det


def linear_maps(steps: Sequence[Parts], dtype: torch.dtype) -> dict[int, LinearParts]:
    """Returns the linear maps of the steps among some layers, by place.

    Triangular ones of one size behind an `ActNorm` are computed as stacks.

    Args:
        steps: Single layers, and those that run together.
        dtype: Type to compute in.

    Returns:
        Matrix (n, n), shift (n,) and log|det| of each step.
    """
    found: dict[int, LinearParts] = {}
    stacks = _stacks(steps)
    stacked = {i for places in stacks for i in places}
    for i, parts in enumerate(steps):
        if len(parts) > 1 and i not in stacked:
            found[i] = _linear_map(parts[:-2], _layer(parts[-2]), dtype)
    for places in stacks:
        norms, layers = _layers_at(steps, places)
        matrix, log_det = dense_together(layers, dtype)
        log_scale = torch.stack([norm.log_scale for norm in norms])
        shift = matrix @ torch.stack([norm.shift for norm in norms])[:, :, None]
        matrix, log_det = matrix * log_scale.exp()[:, None], log_det + log_scale.sum(1)
        maps = zip(matrix.unbind(), shift.squeeze(2).unbind(), log_det.unbind(), strict=True)
        found |= dict(zip(places, maps, strict=True))
    return found


def triangles_of(steps: Sequence[Parts], dtype: torch.dtype) -> dict[int, Triangles]:
    """Returns the triangles of the steps with an `ActNorm` and a triangular mixing, by place."""
    found: dict[int, Triangles] = {}
    for places in _stacks(steps):
        norms, layers = _layers_at(steps, places)
        order, lower, upper, log_det = triangles_together(layers, dtype)
        log_scale = torch.stack([norm.log_scale for norm in norms])
        offset = torch.stack([norm.shift for norm in norms]) * (-log_scale).exp()
        upper, log_det = upper * log_scale.exp()[:, None], log_det + log_scale.sum(1)
        each = zip(order, lower, upper, offset, log_det, strict=True)
        found |= {i: Triangles(*parts) for i, parts in zip(places, each, strict=True)}
    return found


def _stacks(steps: Sequence[Parts]) -> list[list[int]]:
    """Returns the places of steps with an `ActNorm` and a triangular mixing, a list a size."""
    sizes: dict[int, list[int]] = {}
    for i, parts in enumerate(steps):
        convolution = len(parts) == 3 and isinstance(parts[1], InvertibleConv1x1)
        if convolution and type(parts[1].linear) is LULinear:
            sizes.setdefault(parts[0].features, []).append(i)
    return list(sizes.values())


def _layers_at(steps: Sequence[Parts], places: Sequence[int]) -> tuple[list[Any], list[Any]]:
    return [steps[i][0] for i in places], [steps[i][1].linear for i in places]
