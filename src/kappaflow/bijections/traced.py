"""Couplings at one point for a backward pass: autograd sees the conditioner, the rest is by hand.

What is changed, and how, is a handful of operations on each entry, and the conditioner is a
network of any kind. So the graph is that of the conditioner alone, from the kept features to its
answer, and the derivatives around it are written down here. From an input they are, bit for bit,
those that autograd finds in `change`, the definition.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow.bijection import zero_log_det
from kappaflow.partition import AnyPartition
from kappaflow.trace import Trace


class CouplingTrace(Trace):
    """What the kinds share.

    Args:
        partition: What is kept and changed.
        kept: The kept features, a leaf.
        answer: That of the conditioner, with its graph from `kept`.
        changed: The changed features, before the change.
    """

    def __init__(
        self, partition: AnyPartition, kept: Tensor, answer: Tensor, changed: Tensor
    ) -> None:
        self.leaf, self.outputs = kept, (answer,)
        self._partition, self._changed = partition, changed
        self._cotangents = (kept, changed)

    @property
    def x(self) -> Tensor:
        return self._partition.merge(self.leaf.detach(), self._changed)

    def cotangent(self, found: Tensor | None) -> Tensor:
        kept, changed = self._cotangents
        return self._partition.merge(kept if found is None else kept + found, changed)


class AffineTrace(CouplingTrace):
    r"""Of :math:`z_2 = x_2 e^s + t` with :math:`s = 2 c \sigma(2 r / c) - c`, the bounded r.

    Args:
        partition: What is kept and changed.
        kept: The kept features, a leaf.
        changed: The others, before the change or after it.
        answer: (r, t), with its graph from `kept`.
        is_output: Whether it is after it.
        bound: The bound c.
    """

    def __init__(
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
        *,
        is_output: bool,
        bound: float,
    ) -> None:
        raw, self._shift = answer.detach().chunk(2, dim=1)
        self._bound, self._gate = bound, (raw * (2 / bound)).sigmoid_()
        self._log_scale = (2 * bound * self._gate).sub_(bound)
        self._factor = self._log_scale.exp()
        if is_output:
            changed = (changed - self._shift).div_(self._factor)
        super().__init__(partition, kept, answer, changed)

    def answer(self) -> tuple[Tensor, Tensor]:
        value = (self._changed * self._factor).add_(self._shift)
        value = self._partition.merge(self.leaf.detach(), value)
        return value, self._log_scale.flatten(1).sum(1)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        kept, changed = self._partition.split(cotangent)
        self._cotangents = (kept, changed * self._factor)
        slope, rows = (changed * self._changed).mul_(self._factor), log_det_cotangent
        if slope.shape != self._gate.shape:  # a conditioner may answer with one row for all
            slope, changed = (t.sum_to_size(self._gate.shape) for t in (slope, changed))
            rows = rows.sum_to_size(self._gate.shape[:1])
        slope.add_(rows.view(-1, *(1,) * (slope.dim() - 1))).mul_(2 * self._bound)
        slope = torch.ops.aten.sigmoid_backward(slope, self._gate).mul_(2 / self._bound)
        return (torch.cat((slope, changed), dim=1),)


class AdditiveTrace(CouplingTrace):
    r"""Of :math:`z_2 = x_2 + t`, as `AffineTrace`; the answer of the conditioner is t."""

    def __init__(
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
        *,
        is_output: bool,
    ) -> None:
        shift = answer.detach()
        super().__init__(partition, kept, answer, changed - shift if is_output else changed)

    def answer(self) -> tuple[Tensor, Tensor]:
        value = self._changed + self.outputs[0].detach()
        return self._partition.merge(self.leaf.detach(), value), zero_log_det(value)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        self._cotangents = self._partition.split(cotangent)
        return (self._cotangents[1].sum_to_size(self.outputs[0].shape),)
