"""The elementary operations of a chunk, on preallocated buffers.

`Operations` executes each one immediately; its methods are the definitions. `Recording` records
them instead, for a tape.

`bijections.log_scales` defines the curves of log-scales. Here a curve is given by its number,
because the operands of a recorded operation are numbers and tensors.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

BITS = 1 / math.log(2)


def _softsign(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.abs(raw, out=slope).mul_(1 / bound).add_(1).reciprocal_()
    torch.mul(raw, slope, out=bits).mul_(unit)
    slope.square_()


def _atan(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    steepness = math.pi / (2 * bound)
    torch.mul(raw, steepness, out=slope)
    torch.atan(slope, out=bits).mul_(unit / steepness)
    slope.square_().add_(1).reciprocal_()


def _exp(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.mul(raw, unit, out=bits)
    slope.fill_(1)


def _sigmoid(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.sigmoid(raw, out=slope)
    torch.add(slope, math.exp(-bound), out=bits)
    torch.addcmul(slope, slope, slope, value=-1, out=slope).div_(bits)
    bits.log_().mul_(unit)


def _logsigmoid(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.neg(raw, out=slope)
    _softplus(slope, bound, -unit, slope, bits)


def _softplus(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.logaddexp(raw, raw.new_zeros(()), out=bits).mul_(unit)
    torch.sigmoid(raw, out=slope)


# In the order of tapes.c.
CURVES: dict[str, Callable[[Tensor, float, float, Tensor, Tensor], None]] = {
    "softsign": _softsign,
    "atan": _atan,
    "exp": _exp,
    "sigmoid": _sigmoid,
    "logsigmoid": _logsigmoid,
    "softplus": _softplus,
}
_CURVES = tuple(CURVES.values())  # by number


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_relu_backward = torch.ops.aten.threshold_backward.grad_input

Operand = Tensor | torch.Generator | float | None
Entry = tuple[Any, ...]  # the code of an operation, followed by its operands


class Operations:
    """Executes operations immediately. Columns are rows of a batch; outputs come last."""

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies the source, which may have another dtype, to the target."""
        target.copy_(source)

    def add(self, source: Tensor, target: Tensor) -> None:
        """Adds the source, which may have another dtype, to the target."""
        target.add_(source)

    def negate(self, target: Tensor) -> None:
        """Changes the sign of the target."""
        target.neg_()

    def move(
        self,
        index: Tensor | None,
        source: Tensor,
        source_below: Tensor | None,
        target: Tensor,
        target_below: Tensor | None,
    ) -> None:
        """Writes the rows of one or two sources, ordered by an index, to one or two targets."""
        rows = source if source_below is None else torch.cat((source, source_below))
        if index is not None:
            rows = rows.index_select(0, index)
        target.copy_(rows[: len(target)])
        if target_below is not None:
            target_below.copy_(rows[len(target) :])

    def project(self, x: Tensor, direction: Tensor, target: Tensor) -> None:
        """Writes the projection of each column on a direction."""
        torch.mv(x.T, direction, out=target)

    def linear(
        self,
        bias: Tensor,
        weight: Tensor,
        h: Tensor,
        context_weight: Tensor | None,
        context: Tensor | None,
        active: bool,
        target: Tensor,
    ) -> None:
        """Writes a linear layer of h and an optional context, followed by ReLU if `active`."""
        torch.addmm(bias, weight, h, out=target)
        if context_weight is not None and context is not None:
            target.addmm_(context_weight, context)
        if active:
            target.relu_()

    def seed(self, generator: torch.Generator, seed: Tensor) -> None:
        """Seeds a generator with an integer from memory, which may change from pass to pass."""
        generator.manual_seed(int(seed))

    def drop(
        self,
        generator: torch.Generator,
        words: Tensor,
        levels: Tensor,
        left_out: int,
        scale: float,
        dropped: Tensor,
        h: Tensor,
    ) -> None:
        """Sets units to zero if their random byte is below `left_out`, and scales the others."""
        words.random_(-(2**63), None, generator=generator)
        torch.lt(levels, left_out, out=dropped)
        h.mul_(scale).masked_fill_(dropped, 0.0)

    def residual(self, h: Tensor, context: Tensor | None, active: Tensor, target: Tensor) -> None:
        """Writes the sum of a layer and its input, which is h with an optional context below."""
        torch.add(h if context is None else torch.cat((h, context)), active, out=target)

    def scale(
        self,
        answer: Tensor,
        offset: Tensor,
        steepness: float,
        width: float,
        sigmoid: Tensor,
        factor: Tensor,
    ) -> None:
        """Writes 2 ** (offset + width * sigmoid(steepness * r)) for r, the answer's upper half."""
        _write_bits(answer, offset, steepness, width, sigmoid, factor)
        factor.exp2_()

    def affine(
        self,
        x: Tensor,
        answer: Tensor,
        offset: Tensor,
        steepness: float,
        width: float,
        sigmoid: Tensor,
        factor: Tensor,
        log_scales: Tensor,
        target: Tensor,
    ) -> None:
        """Writes x * factor + shift, or (x - shift) * factor if `width` is negative.

        The factor is the result of `scale`, and its logarithm in bits is added to `log_scales`.
        The shift is the lower half of the answer.
        """
        _write_bits(answer, offset, steepness, width, sigmoid, factor)
        _scale_and_shift(x, answer, width, factor, log_scales, target)

    def affine_back(self, factor: Tensor, answer: Tensor, direction: int, y: Tensor) -> None:
        """Undoes `affine` in place."""
        shift = answer[len(factor) :]
        if direction > 0:
            y.sub_(shift).div_(factor)
        else:
            y.div_(factor).add_(shift)

    def affine_pull(
        self,
        x: Tensor,
        factor: Tensor,
        sigmoid: Tensor,
        answer: Tensor,
        log_det: Tensor,
        weight: float,
        back: Tensor,
        slope: Tensor,
    ) -> None:
        """Computes the gradients of x and of the answer from the gradient of y."""
        raw = _pulled(x, factor, answer, log_det, weight, back, slope)
        _sigmoid_backward(raw, sigmoid, grad_input=raw)

    def curve(
        self,
        answer: Tensor,
        number: int,
        bound: float,
        direction: int,
        slope: Tensor,
        factor: Tensor,
    ) -> None:
        """Writes the factor of a log-scale for a curve from `CURVES`, and the curve's slope."""
        _write_curve(answer, number, bound, direction, slope, factor)
        factor.exp2_()

    def curve_affine(
        self,
        x: Tensor,
        answer: Tensor,
        number: int,
        bound: float,
        direction: int,
        slope: Tensor,
        factor: Tensor,
        log_scales: Tensor,
        target: Tensor,
    ) -> None:
        """Computes the same as `affine` with the factor from `curve`."""
        _write_curve(answer, number, bound, direction, slope, factor)
        _scale_and_shift(x, answer, direction, factor, log_scales, target)

    def curve_pull(
        self,
        x: Tensor,
        factor: Tensor,
        curve: Tensor,
        answer: Tensor,
        log_det: Tensor,
        direction: float,
        back: Tensor,
        slope: Tensor,
    ) -> None:
        """Computes the same as `affine_pull`; `curve` holds the slope of the log-scale."""
        _pulled(x, factor, answer, log_det, direction, back, slope).mul_(curve)

    def relu(self, source: Tensor, target: Tensor) -> None:
        """Writes the source with negative numbers replaced by zero."""
        torch.clamp_min(source, 0, out=target)

    def shift(self, x: Tensor, shift: Tensor, direction: int, target: Tensor) -> None:
        """Writes x + direction * shift."""
        torch.add(x, shift, alpha=direction, out=target)

    def layer_pull(
        self,
        transpose: Tensor,
        slope: Tensor,
        active: Tensor,
        scale: float,
        carried: Tensor | None,
        carried_on: Tensor | None,
        back: Tensor,
    ) -> None:
        """Computes the gradient of the previous layer through a linear layer, dropout and ReLU."""
        torch.mm(transpose, slope, out=back)
        if carried is not None:
            back.add_(carried)
        if carried_on is not None:
            carried_on.copy_(back)
        _relu_backward(back, active, 0, grad_input=back)
        if scale != 1.0:
            back.mul_(scale)

    def add_product(self, a: Tensor, b: Tensor, beta: int, target: Tensor) -> None:
        """Adds a @ b to beta times the target, in the dtype of the target."""
        if a.dtype == target.dtype:
            target.addmm_(a, b, beta=beta)
        elif beta:
            target.add_(a @ b)
        else:
            target.copy_(a @ b)

    def add_outer(self, a: Tensor, b: Tensor, beta: int, target: Tensor) -> None:
        """Adds a @ b.T, a sum over columns, to beta times the target."""
        Operations.add_product(self, a, b.T, beta, target)

    def add_columns(self, a: Tensor, ones: Tensor, beta: int, target: Tensor) -> None:
        """Adds the sum over columns to beta times the target, in the dtype of `ones`."""
        target.addmv_(a.to(ones.dtype), ones, beta=beta)


def _write_bits(
    answer: Tensor, offset: Tensor, steepness: float, width: float, sigmoid: Tensor, bits: Tensor
) -> None:
    torch.mul(answer[: len(bits)], steepness, out=sigmoid).sigmoid_()
    torch.add(offset, sigmoid, alpha=width, out=bits)


def _write_curve(
    answer: Tensor, number: int, bound: float, direction: int, slope: Tensor, bits: Tensor
) -> None:
    """Writes the slope d s / d r, and the log-scale s in bits times the direction."""
    _CURVES[number](answer[: len(bits)], bound, direction * BITS, slope, bits)


def _scale_and_shift(
    x: Tensor, answer: Tensor, sign: float, factor: Tensor, log_scales: Tensor, target: Tensor
) -> None:
    """Writes y at x, given the logarithm of the factor in bits, which becomes the factor."""
    log_scales.add_(factor)
    factor.exp2_()
    shift = answer[len(factor) :]
    if sign > 0:
        torch.addcmul(shift, x, factor, out=target)
    else:
        torch.sub(x, shift, out=target).mul_(factor)


def _pulled(
    x: Tensor,
    factor: Tensor,
    answer: Tensor,
    log_det: Tensor,
    weight: float,
    back: Tensor,
    slope: Tensor,
) -> Tensor:
    """Returns the gradient of the log-scale, after writing those of x and of the shift."""
    changed = len(back)
    raw, shift = slope[:changed], slope[changed:]
    torch.mul(shift, factor, out=back)
    if weight < 0:
        torch.neg(back, out=shift)
        x = torch.sub(x, answer[changed:], out=raw)
    return torch.addcmul(log_det, back, x, value=weight, out=raw)


EAGER = Operations()
NAMES = tuple(name for name in vars(Operations) if not name.startswith("_"))


class Recording(Operations):
    """Records operations, each as its code and its operands."""

    def __init__(self, codes: Mapping[str, Any]) -> None:
        self._entries: list[Entry] = []
        for name in NAMES:
            setattr(self, name, functools.partial(self._record, codes[name]))

    def take(self) -> list[Entry]:
        """Returns the recorded operations and clears the recording."""
        entries, self._entries = self._entries, []
        return entries

    def _record(self, *entry: Operand) -> None:
        self._entries.append(entry)
