r"""The map of a coupling's changed features, on columns, and its gradients.

An affine coupling is :math:`y = x E + t` from data to latent and :math:`x = (y - t) E` from latent
to data, where E is the exponential of the log-scale s or -s. A raw output r of the conditioner
gives :math:`s = 2 c\,\sigma(2 r / c) - c`, which equals c tanh(r / c) at a quarter of the time.
Log-scales are in bits here and not in nats, because exp2 takes less than half the time of exp.
"""

import math

import torch
from torch import Tensor

from kappaflow.stack.network import Activations
from kappaflow.stack.operations import CURVES, Operations
from kappaflow.stack.shape import BlockShape


class CouplingState:
    """The conditioner's results, the factor E and its sigmoid of one coupling, for some columns.

    In `answer` the raw log-scales are above the shifts; additive couplings have only shifts.
    """

    def __init__(self, network: Activations, *, affine: bool) -> None:
        self.network, self.answer = network, network.answer
        raw = self.answer[: len(self.answer) // 2 if affine else 0]
        self.sigmoid, self.factor = torch.empty_like(raw), torch.empty_like(raw)


class Affine:
    """Scales and shifts; `direction` is 1 from data to latent and -1 from latent to data."""

    def __init__(self, bound: float, direction: int, like: Tensor) -> None:
        bits = bound * direction / math.log(2)
        self.direction, self.width, self.steepness = direction, 2 * bits, 2 / bound
        # The factor that the gradient of the log_det gets before `pull`:
        self.weight = 4.0 * direction  # d s / d r = 4 sigma (1 - sigma), computed without the 4
        self.offset = torch.full((), -bits, dtype=like.dtype, device=like.device)

    def apply(
        self, ops: Operations, state: CouplingState, x: Tensor, y: Tensor, log_scales: Tensor
    ) -> None:
        """Writes y, which may be x itself, and adds log2 of the factor to `log_scales`."""
        curve = self.offset, self.steepness, self.width
        ops.affine(x, state.answer, *curve, state.sigmoid, state.factor, log_scales, y)

    def prepare(self, ops: Operations, state: CouplingState) -> None:
        """Recomputes the parts of `state` that the backward pass needs."""
        curve = self.offset, self.steepness, self.width
        ops.scale(state.answer, *curve, state.sigmoid, state.factor)

    def invert(self, ops: Operations, state: CouplingState, y: Tensor) -> None:
        """Replaces y by x, in place."""
        ops.affine_back(state.factor, state.answer, self.direction, y)

    def pull(
        self,
        ops: Operations,
        state: CouplingState,
        x: Tensor,
        log_det: Tensor,
        slope: Tensor,
        back: Tensor,
    ) -> None:
        """Computes the gradients of x and of the conditioner's output."""
        ops.affine_pull(
            x, state.factor, state.sigmoid, state.answer, log_det, self.weight, back, slope
        )


class Curved(Affine):
    """Scales and shifts like `Affine`, with another curve of the log-scales than tanh.

    `CouplingState.sigmoid` holds the slope of the curve.
    """

    def __init__(self, scale: str, bound: float, direction: int) -> None:
        self.direction, self.weight = direction, float(direction)
        self._curve = list(CURVES).index(scale), float(bound), direction

    def apply(
        self, ops: Operations, state: CouplingState, x: Tensor, y: Tensor, log_scales: Tensor
    ) -> None:
        slope, factor = state.sigmoid, state.factor
        ops.curve_affine(x, state.answer, *self._curve, slope, factor, log_scales, y)

    def prepare(self, ops: Operations, state: CouplingState) -> None:
        ops.curve(state.answer, *self._curve, state.sigmoid, state.factor)

    def pull(
        self,
        ops: Operations,
        state: CouplingState,
        x: Tensor,
        log_det: Tensor,
        slope: Tensor,
        back: Tensor,
    ) -> None:
        curve, weight = state.sigmoid, self.weight
        ops.curve_pull(x, state.factor, curve, state.answer, log_det, weight, back, slope)


class Additive:
    """Shifts; `direction` is 1 from data to latent and -1 from latent to data."""

    weight = 0.0

    def __init__(self, direction: int) -> None:
        self.direction = direction

    def apply(
        self, ops: Operations, state: CouplingState, x: Tensor, y: Tensor, log_scales: Tensor
    ) -> None:
        ops.shift(x, state.answer, self.direction, y)

    def prepare(self, ops: Operations, state: CouplingState) -> None:
        pass

    def invert(self, ops: Operations, state: CouplingState, y: Tensor) -> None:
        ops.shift(y, state.answer, -self.direction, y)

    def pull(
        self,
        ops: Operations,
        state: CouplingState,
        x: Tensor,
        log_det: Tensor,
        slope: Tensor,
        back: Tensor,
    ) -> None:
        ops.copy(slope, back)
        if self.direction < 0:
            ops.negate(slope)


def arithmetic_of(shape: BlockShape, direction: int, like: Tensor) -> Affine | Additive:
    """Returns the arithmetic of a block's couplings in one direction, for the dtype of `like`."""
    if not shape.affine:
        return Additive(direction)
    if shape.scale == "tanh":
        return Affine(shape.scale_bound, direction, like)
    return Curved(shape.scale, shape.scale_bound, direction)
