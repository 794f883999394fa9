"""Derivatives of couplings: traces for backward passes and linearizations for conditioning."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from kappaflow.autograd.trace import Trace
from kappaflow.bijections.log_scales import LogScales
from kappaflow.linearization import Linearization, columns
from kappaflow.nets.linearized import LinearizedConvNet, LinearizedMLP, RecordedNetwork
from kappaflow.partition import AnyPartition, Partition


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
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
    ) -> None:
        super().__init__(partition, kept, answer, changed - answer.detach())

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        self._cotangents = self._partition.split(cotangent)
        return (self._cotangents[1],)


RecordedConditioner = LinearizedMLP | LinearizedConvNet | RecordedNetwork


class CouplingLinearization(Linearization):
    r"""Base class of the linearizations of couplings.

    The Jacobian is :math:`J = (1, 0; M, D)` with a diagonal D, and its inverse is
    :math:`J^{-1} = (1, 0; -D^{-1} M, D^{-1})`. So one product for each kept feature, and one for
    all changed features, give both matrices.
    """

    def __init__(self, partition: AnyPartition, value: Tensor, log_det: Tensor) -> None:
        self.value, self.log_det = value, log_det
        self._partition, self._places = partition, _places(partition, value)

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

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_det: Tensor,
    ) -> None:
        super().__init__(partition, value, log_det)
        self._conditioner = conditioner

    def jv(self, v: Tensor) -> Tensor:
        kept, changed = self._places.split(v)
        return self._places.merge(kept, changed + self._conditioner.jv(kept), like=v)

    def vjp(self, u: Tensor) -> Tensor:
        kept, changed = self._places.split(u)
        return self._places.merge(kept + self._conditioner.vjp(changed), changed, like=u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        kept, changed = self._places.split(w)
        return self._places.merge(kept, changed - self._conditioner.jv(kept), like=w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        kept, changed = self._places.split(y)
        return self._places.merge(kept - self._conditioner.vjp(changed), changed, like=y)


class AffineLinearization(CouplingLinearization):
    """Linearization of :math:`z_2 = x_2 e^s + t` for a conditioner that returns (r, t), s = s(r).

    With the derivatives :math:`C_r, C_t` of the conditioner and the slope :math:`a = x_2 s'(r)`,
    :math:`J = (1, 0; e^s (a C_r) + C_t, e^s)` and
    :math:`J^{-1} = (1, 0; -a C_r - e^{-s} C_t, e^{-s})`.
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_scale: Tensor,
        slope: Tensor,
    ) -> None:
        super().__init__(partition, value, log_scale.flatten(1).sum(1))
        self._features = 1 - value.dim()  # dimension of the features, counted from the end
        self._conditioner = conditioner
        self._scale, self._inverse_scale = log_scale.exp(), (-log_scale).exp()
        self._slope = slope

    def jv(self, v: Tensor) -> Tensor:
        kept, changed = self._places.split(v)
        raw, shift = self._conditioner.jv(kept).chunk(2, dim=self._features)
        return self._places.merge(
            kept, (changed + self._slope * raw) * self._scale + shift, like=v
        )

    def vjp(self, u: Tensor) -> Tensor:
        kept, changed = self._places.split(u)
        scaled = changed * self._scale
        pulled = self._pull(self._slope * scaled, changed)
        return self._places.merge(kept + pulled, scaled, like=u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        kept, changed = self._places.split(w)
        raw, shift = self._conditioner.jv(kept).chunk(2, dim=self._features)
        return self._places.merge(
            kept, (changed - shift) * self._inverse_scale - self._slope * raw, like=w
        )

    def inverse_vjp(self, y: Tensor) -> Tensor:
        kept, changed = self._places.split(y)
        scaled = changed * self._inverse_scale
        pulled = self._pull(self._slope * changed, scaled)
        return self._places.merge(kept - pulled, scaled, like=y)

    def _pull(self, raw: Tensor, shift: Tensor) -> Tensor:
        """Returns C^T (raw, shift), computed in the dtype of the network."""
        return self._conditioner.vjp(
            torch.cat((raw, shift), self._features).to(self._conditioner.value.dtype)
        )


class SplineLinearization(CouplingLinearization):
    """Linearization of an elementwise curve z_2 = f(x_2; r) with r from the conditioner.

    With its derivative C, the slopes f' and the derivatives G of f by r (`by_numbers`),
    :math:`J = (1, 0; G C, f')` and :math:`J^{-1} = (1, 0; -G C / f', 1 / f')`.
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
        super().__init__(partition, value, log_det)
        self._features = 1 - value.dim()  # dimension of the features, counted from the end
        self._conditioner = conditioner
        self._slope, self._by_numbers = slope, by_numbers

    def jv(self, v: Tensor) -> Tensor:
        kept, changed = self._places.split(v)
        return self._places.merge(kept, changed * self._slope + self._pushed(kept), like=v)

    def vjp(self, u: Tensor) -> Tensor:
        kept, changed = self._places.split(u)
        return self._places.merge(kept + self._pulled(changed), changed * self._slope, like=u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        kept, changed = self._places.split(w)
        return self._places.merge(kept, (changed - self._pushed(kept)) / self._slope, like=w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        kept, changed = self._places.split(y)
        changed = changed / self._slope
        return self._places.merge(kept - self._pulled(changed), changed, like=y)

    def _pushed(self, kept: Tensor) -> Tensor:
        """Returns G C v."""
        shape = self._by_numbers.shape[1:3]
        numbers = self._conditioner.jv(kept).unflatten(self._features, shape)
        return (numbers * self._by_numbers).sum(self._features - 1)

    def _pulled(self, changed: Tensor) -> Tensor:
        """Returns C^T G^T u, computed in the dtype of the network."""
        numbers = changed.unsqueeze(self._features - 1) * self._by_numbers
        flat = numbers.flatten(self._features - 1, self._features)
        return self._conditioner.vjp(flat.to(self._conditioner.value.dtype))


class _ImagePlaces:
    """Splits and merges vectors of images, (..., features, height, width), by a partition."""

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


def _places(partition: AnyPartition, value: Tensor) -> "_Places | _ImagePlaces":
    if isinstance(partition, Partition) and value.dim() == 2:
        return _Places(partition, value.device)
    return _ImagePlaces(partition, value.dim() - 1)


class _Places:
    """Splits and merges vectors, (..., features), by a partition, with precomputed indices."""

    def __init__(self, partition: Partition, device: torch.device) -> None:
        self._sizes = len(partition.kept), len(partition.changed)
        order = partition.kept + partition.changed
        in_order = list(range(partition.features))
        self._swapped = list(partition.changed + partition.kept) == in_order
        self._order = self._back = None
        if not self._swapped and list(order) != in_order:
            self._order = torch.tensor(order, device=device)
            self._back = self._order.argsort()

    def split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the kept and the changed entries of vectors."""
        kept, changed = self._sizes
        if self._swapped:
            return v[..., changed:], v[..., :changed]
        joined = v if self._order is None else v.index_select(-1, self._order)
        return joined[..., :kept], joined[..., kept:]

    def merge(self, kept: Tensor, changed: Tensor, *, like: Tensor) -> Tensor:
        """Returns the vectors, of the type of `like`, whose `split` is (kept, changed)."""
        parts = (kept.to(like.dtype), changed.to(like.dtype))
        if self._swapped:
            return torch.cat(parts[::-1], -1)
        joined = torch.cat(parts, -1)
        return joined if self._back is None else joined.index_select(-1, self._back)
