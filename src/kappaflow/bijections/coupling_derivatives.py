"""Derivatives of couplings: traces for backward passes, linearizations for conditioning."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow.autograd.trace import Trace
from kappaflow.bijection import zero_log_det
from kappaflow.bijections.log_scales import Scales
from kappaflow.linearization import Linearization
from kappaflow.nets.linearized import LinearizedConvNet, LinearizedMLP, RecordedNetwork
from kappaflow.partition import AnyPartition, Partition


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


RecordedConditioner = LinearizedMLP | LinearizedConvNet | RecordedNetwork


class AdditiveLinearization(Linearization):
    r"""Of z_2 = x_2 + t(x_1): the Jacobian is :math:`(1, 0; C, 1)`.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: The recorded network, whose answer is t.
        value: (B, features, ...).
        log_det: (B,).

    Source:
        Ours.
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_det: Tensor,
    ) -> None:
        self.value, self.log_det = value, log_det
        self._conditioner, self._places = conditioner, _places(partition, value)

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


class AffineLinearization(Linearization):
    r"""Of :math:`z_2 = x_2 e^s + t`, where the conditioner answers (r, t) and s = s(r).

    With :math:`C_r, C_t` its derivatives, :math:`J = (1, 0; e^s (a C_r) + C_t, e^s)` and
    :math:`J^{-1} = (1, 0; -a C_r - e^{-s} C_t, e^{-s})`, where :math:`a = x_2 s'(r)`.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: The recorded network, whose answer is (r, t).
        value: (B, features, ...).
        log_scale: s, (B, changed, ...), in the type in which log-dets add up.
        slope: a = x_2 s'(r), (B, changed, ...), likewise.

    Source:
        Ours.
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: RecordedConditioner,
        value: Tensor,
        log_scale: Tensor,
        slope: Tensor,
    ) -> None:
        self.value, self.log_det = value, log_scale.flatten(1).sum(1)
        self._features = 1 - value.dim()  # where they stand in vectors, seen from the end
        self._conditioner, self._places = conditioner, _places(partition, value)
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
        """Returns C^T (raw, shift), computed in the type of the network as it computes itself."""
        return self._conditioner.vjp(
            torch.cat((raw, shift), self._features).to(self._conditioner.value.dtype)
        )


class SplineLinearization(Linearization):
    r"""Of z_2 = f(x_2; r), entry by entry, where the conditioner answers all numbers r of a curve.

    With C the derivative of the conditioner, f' the slopes and G those of f by its numbers,
    :math:`J = (1, 0; G C, f')` and :math:`J^{-1} = (1, 0; -G C / f', 1 / f')`.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: The recorded network, whose answer is r, (B, P changed, ...).
        value: (B, features, ...).
        log_det: (B,).
        slope: f', (B, changed, ...), in the type in which log-dets add up.
        by_numbers: G, (B, P, changed, ...), likewise.

    Source:
        Ours.
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
        self.value, self.log_det = value, log_det
        self._features = 1 - value.dim()  # where they stand in vectors, seen from the end
        self._conditioner, self._places = conditioner, _places(partition, value)
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
        """Returns C^T G^T u, computed in the type of the network as it computes itself."""
        numbers = changed.unsqueeze(self._features - 1) * self._by_numbers
        flat = numbers.flatten(self._features - 1, self._features)
        return self._conditioner.vjp(flat.to(self._conditioner.value.dtype))


class _ImagePlaces:
    """Where the parts of a partition lie in vectors (..., features, height, width)."""

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
    """Where the parts of a partition lie in vectors (..., features); indices are made once."""

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
