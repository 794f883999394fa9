"""Derivatives of couplings: traces for backward passes and linearizations for conditioning."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from kappaflow.autograd.trace import Trace
from kappaflow.bijections.log_scales import LogScales
from kappaflow.linearization import Linearization, columns
from kappaflow.nets.linearized import LinearizedConvNet, LinearizedMLP, RecordedNetwork
from kappaflow.partition import AnyPartition


class CouplingTrace(Trace):
    """Base class of the traces of couplings; `answer` has its graph from the leaf `kept`."""

    def __init__(
        self, partition: AnyPartition, kept: Tensor, answer: Tensor, changed: Tensor
    ) -> None:
        self.leaf, self.outputs = kept, (answer,)
        self._partition, self._changed = partition, changed
        self._cotangents = (kept, changed)

    @property
    def x(self) -> Tensor:
        return self._partition.merge(self.leaf.detach(), self._changed)

    def cotangent(self, gradient: Tensor | None) -> Tensor:
        kept, changed = self._cotangents
        return self._partition.merge(kept if gradient is None else kept + gradient, changed)


class AffineTrace(CouplingTrace):
    r"""Trace of :math:`z_2 = x_2 e^s + t` with bounded :math:`s = 2 c \sigma(2 r / c) - c`."""

    def __init__(
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
        *,
        bound: float,
    ) -> None:
        self._scales = LogScales(answer.detach(), bound)
        changed = (changed - self._scales.shift).div_(self._scales.factor)
        super().__init__(partition, kept, answer, changed)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        kept, changed = self._partition.split(cotangent)
        changed, seed = self._scales.pulled_back(self._changed, changed, log_det_cotangent)
        self._cotangents = (kept, changed)
        return (seed,)


class AdditiveTrace(CouplingTrace):
    r"""Trace of :math:`z_2 = x_2 + t`, like `AffineTrace`; the conditioner returns t."""

    def __init__(
        self, partition: AnyPartition, kept: Tensor, changed: Tensor, answer: Tensor
    ) -> None:
        super().__init__(partition, kept, answer, changed - answer.detach())

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        self._cotangents = self._partition.split(cotangent)
        return (self._cotangents[1],)


RecordedConditioner = LinearizedMLP | LinearizedConvNet | RecordedNetwork


class CouplingLinearization(Linearization):
    r"""Base class of the linearizations of couplings.

    With the derivatives C of the conditioner and G of the changed features by its output, the
    Jacobian is :math:`J = (1, 0; M, D)` with :math:`M = G C` and a diagonal D, and its inverse is
    :math:`J^{-1} = (1, 0; -D^{-1} M, D^{-1})`. So one product for each kept feature, and one for
    all changed features, give both matrices.
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_det: Tensor,
    ) -> None:
        self.value, self.log_det = value, log_det
        self._partition, self._places = partition, _Places(partition, value.dim() - 1)
        self._conditioner = conditioner
        self._features = 1 - value.dim()  # dimension of the features, counted from the end

    @abstractmethod
    def pushed(self, changed: Tensor, numbers: Tensor) -> Tensor:
        """Returns D v + G w, for w of the shape of the conditioner's output."""

    @abstractmethod
    def pulled(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Returns D u and G^T u."""

    @abstractmethod
    def pushed_back(self, changed: Tensor, numbers: Tensor) -> Tensor:
        """Returns D^-1 (v - G w)."""

    @abstractmethod
    def pulled_back(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Returns D^-1 u and G^T D^-1 u."""

    def jv(self, v: Tensor) -> Tensor:
        kept, changed = self._places.split(v)
        changed = self.pushed(changed, self._conditioner.jv(kept))
        return self._places.merge(kept, changed, like=v)

    def vjp(self, u: Tensor) -> Tensor:
        kept, changed = self._places.split(u)
        changed, seed = self.pulled(changed)
        return self._places.merge(kept + self._pull(seed), changed, like=u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        kept, changed = self._places.split(w)
        changed = self.pushed_back(changed, self._conditioner.jv(kept))
        return self._places.merge(kept, changed, like=w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        kept, changed = self._places.split(y)
        changed, seed = self.pulled_back(changed)
        return self._places.merge(kept - self._pull(seed), changed, like=y)

    def _pull(self, seed: Tensor) -> Tensor:
        """Returns C^T u, computed in the dtype of the network."""
        return self._conditioner.vjp(seed.to(self._conditioner.value.dtype))

    def matrix(self, x: Tensor) -> Tensor:
        return self._whole(*self._blocks())

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        below, diagonal = self._blocks()
        inverse = self._whole(-below / diagonal[:, :, None], 1 / diagonal)
        return self._whole(below, diagonal), inverse

    def _blocks(self) -> tuple[Tensor, Tensor]:
        """Returns M, (B, changed, kept), and the diagonal of D, (B, changed)."""
        kept, changed = self._order
        basis = torch.eye(self.value[0].numel(), dtype=self.value.dtype, device=self.value.device)
        vectors = torch.cat((basis[kept], basis[changed].sum(0, keepdim=True)))
        partials = columns(self.jv, vectors, self.value)[:, changed]
        return partials[:, :, :-1], partials[:, :, -1]

    def _whole(self, below: Tensor, diagonal: Tensor) -> Tensor:
        kept, changed = self._order
        n = len(kept) + len(changed)
        jacobian = below.new_zeros(len(below), n, n)
        jacobian[:, kept, kept] = 1
        jacobian[:, changed[:, None], kept] = below
        jacobian[:, changed, changed] = diagonal
        return jacobian

    @property
    def _order(self) -> tuple[Tensor, Tensor]:
        return _order_of(self._partition, self.value.shape[1:], self.value.device)


@lru_cache(maxsize=256)
def _order_of(
    partition: AnyPartition, shape: torch.Size, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the places of the kept and of the changed entries of a point."""
    kept, changed = partition.split(torch.zeros(1, *shape))
    changes = partition.merge(kept, changed + 1).flatten() > 0
    return (~changes).nonzero()[:, 0].to(device), changes.nonzero()[:, 0].to(device)


class AdditiveLinearization(CouplingLinearization):
    """Linearization of z_2 = x_2 + t(x_1), with the Jacobian :math:`(1, 0; C, 1)`."""

    def pushed(self, changed: Tensor, numbers: Tensor) -> Tensor:
        return changed + numbers

    def pulled(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        return changed, changed

    def pushed_back(self, changed: Tensor, numbers: Tensor) -> Tensor:
        return changed - numbers

    def pulled_back(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        return changed, changed


class AffineLinearization(CouplingLinearization):
    """Linearization of :math:`z_2 = x_2 e^s + t` for a conditioner that returns (r, t), s = s(r).

    With the slope :math:`a = x_2 s'(r)`, :math:`G = (a e^s, 1)`.
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_scale: Tensor,
        slope: Tensor,
    ) -> None:
        super().__init__(partition, conditioner, value, log_scale.flatten(1).sum(1))
        self._scale, self._inverse_scale = log_scale.exp(), (-log_scale).exp()
        self._slope = slope

    def pushed(self, changed: Tensor, numbers: Tensor) -> Tensor:
        raw, shift = numbers.chunk(2, dim=self._features)
        return (changed + self._slope * raw) * self._scale + shift

    def pulled(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        scaled = changed * self._scale
        return scaled, torch.cat((self._slope * scaled, changed), self._features)

    def pushed_back(self, changed: Tensor, numbers: Tensor) -> Tensor:
        raw, shift = numbers.chunk(2, dim=self._features)
        return (changed - shift) * self._inverse_scale - self._slope * raw

    def pulled_back(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        scaled = changed * self._inverse_scale
        return scaled, torch.cat((self._slope * changed, scaled), self._features)


class SplineLinearization(CouplingLinearization):
    """Linearization of an elementwise curve z_2 = f(x_2; r) with r from the conditioner.

    D are the slopes f', and G the derivatives of f by r, (B, numbers, changed, ...).
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_det: Tensor,
        slope: Tensor,
        by_numbers: Tensor,
    ) -> None:
        super().__init__(partition, conditioner, value, log_det)
        self._slope, self._by_numbers = slope, by_numbers

    def pushed(self, changed: Tensor, numbers: Tensor) -> Tensor:
        return changed * self._slope + self._shift(numbers)

    def pulled(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        return changed * self._slope, self._seed(changed)

    def pushed_back(self, changed: Tensor, numbers: Tensor) -> Tensor:
        return (changed - self._shift(numbers)) / self._slope

    def pulled_back(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        changed = changed / self._slope
        return changed, self._seed(changed)

    def _shift(self, numbers: Tensor) -> Tensor:
        each = numbers.unflatten(self._features, self._by_numbers.shape[1:3])
        return (each * self._by_numbers).sum(self._features - 1)

    def _seed(self, changed: Tensor) -> Tensor:
        each = changed.unsqueeze(self._features - 1) * self._by_numbers
        return each.flatten(self._features - 1, self._features)


class _Places:
    """Splits and merges vectors, (..., features, *places), by a partition."""

    def __init__(self, partition: AnyPartition, dims: int) -> None:
        self._partition, self._dims = partition, dims

    def split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the kept and the changed entries of vectors."""
        lead = v.shape[: -self._dims]
        kept, changed = self._partition.split(v.reshape(-1, *v.shape[len(lead) :]))
        return kept.unflatten(0, lead), changed.unflatten(0, lead)

    def merge(self, kept: Tensor, changed: Tensor, *, like: Tensor) -> Tensor:
        """Returns the vectors, of the type of `like`, whose `split` is (kept, changed)."""
        rows = (part.to(like.dtype).flatten(0, -self._dims - 1) for part in (kept, changed))
        return self._partition.merge(*rows).reshape(like.shape)
