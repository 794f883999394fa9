"""Couplings at one point for a backward pass: autograd sees the conditioner, the rest is by hand.

What is changed, and how, is a handful of operations on each entry, and the conditioner is a
network of any kind. So the graph is that of the conditioner alone, from the kept features to its
answer, and the derivatives around it are written down here. From an input they are, bit for bit,
those that autograd finds in `change`, the definition.
"""

from collections.abc import Sequence

from torch import Tensor

from kappaflow.autograd.trace import Trace
from kappaflow.bijection import zero_log_det
from kappaflow.bijections.scaled import Scales
from kappaflow.partition import AnyPartition


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
        self._scales = Scales(answer.detach(), bound)
        if is_output:
            changed = (changed - self._scales.shift).div_(self._scales.factor)
        super().__init__(partition, kept, answer, changed)

    def answer(self) -> tuple[Tensor, Tensor]:
        value = self._partition.merge(self.leaf.detach(), self._scales.value(self._changed))
        return value, self._scales.log_scale.flatten(1).sum(1)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        kept, changed = self._partition.split(cotangent)
        changed, seed = self._scales.pulled_back(self._changed, changed, log_det_cotangent)
        self._cotangents = (kept, changed)
        return (seed,)


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
        return (self._cotangents[1],)
