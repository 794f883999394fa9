"""A linear coupling: the block matrix (1, 0; W, D), D diagonal, as a layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow._checks import batch
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.partition import Partition
from kappaflow.registry import register

Numbers = Tensor | np.ndarray | Sequence


@register("LinearCoupling")
class LinearCoupling(Bijection):
    r"""Kept features pass, changed ones mix with them: :math:`z_2 = d \odot x_2 + W x_1`.

    Behind the features a point may have places, as the pixels of an image: each has the same map.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        weight: W, (changed, kept); zeros if left out.
        diagonal: d, (changed,), nowhere zero; ones if left out. Its signs stay as they are when
            the layer learns. It takes the dtype of the weight, if there is one.

    Raises:
        ArgumentError: A shape does not fit the partition, a number cannot be used, or the
            partition keeps nothing.

    Example:
        >>> coupling = LinearCoupling(Partition.half(2), [[3.0]], [2.0])
        >>> coupling(torch.tensor([[1.0, 10.0]]))[0].detach()
        tensor([[ 1., 23.]])
        >>> coupling.matrix()
        tensor([[1., 0.],
                [3., 2.]])
    """

    is_linear = True

    def __init__(
        self,
        partition: Partition,
        weight: Numbers | None = None,
        diagonal: Numbers | None = None,
    ) -> None:
        super().__init__()
        check_something_to_read(partition, 0)
        kept, changed = len(partition.kept), len(partition.changed)
        self.partition = partition
        start = _numbers("diagonal", diagonal, (changed,), empty=1.0)
        numbers = _numbers("weight", weight, (changed, kept), empty=0.0)
        if weight is None:
            numbers = numbers.to(start.dtype)
        self.weight, start = nn.Parameter(numbers), start.to(numbers.dtype)
        if (start == 0).any():
            raise ArgumentError(
                "'diagonal' should be nowhere zero, got zeros: a coupling must be invertible."
            )
        self.log_scale = nn.Parameter(start.abs().log())
        self.sign: Tensor
        self.register_buffer("sign", start.sign())

    @classmethod
    def of(
        cls, partition: Partition, weight: Numbers, diagonal: Numbers | None = None
    ) -> "LinearCoupling":
        """Returns the coupling with these numbers, which model files keep with the weights only.

        The constructor's arguments are written out in the text of a model file; these are not.
        """
        given = LinearCoupling(partition, weight, diagonal)
        coupling = LinearCoupling(partition).to(given.weight.dtype)
        coupling.load_state_dict(given.state_dict())
        return coupling

    @property
    def diagonal(self) -> Tensor:
        """D as a vector, (changed,)."""
        return self.sign * self.log_scale.exp()

    @property
    def condition_number(self) -> float:
        r"""Largest over smallest singular value of the matrix; nan if a number is not finite.

        For one size g of the diagonal, each singular value w of W gives the pair with sum of
        squares 1 + g^2 + w^2 and product g; the largest w gives the largest and the smallest.
        """
        weight = self.weight.detach().double().cpu()
        size = self.log_scale.detach().double().cpu().exp()
        if not (weight.isfinite().all() and size.isfinite().all()):
            return float("nan")
        if (size != size[0]).any():  # the smallest is lost beside the largest, not in the inverse
            return _norm(weight, size) * _norm(weight / size[:, None], 1 / size)
        return two_by_two_condition(torch.linalg.svdvals(weight)[0].item(), size[0].item())

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """Returns the matrix M (n, n) that acts on columns: z = M x."""
        return self(torch.eye(self.partition.features).to(self.weight))[0].mT.contiguous()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value = self._changed(batch("x", x, (self.partition.features, *x.shape[2:])))
        return value, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value = self._restored(batch("z", z, (self.partition.features, *z.shape[2:])))
        return value, -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        return _LinearCouplingLinearization(self, value, log_det)

    def _changed(self, x: Tensor) -> Tensor:
        kept, changed = self.partition.split(x)
        mixed = changed * _along_features(self.diagonal, x) + _times(self.weight, kept)
        return self.partition.merge(kept, mixed.to(x.dtype))

    def _restored(self, z: Tensor) -> Tensor:
        kept, mixed = self.partition.split(z)
        inverse_scale = _along_features(self.sign * (-self.log_scale).exp(), z)
        changed = (mixed - _times(self.weight, kept)) * inverse_scale
        return self.partition.merge(kept, changed.to(z.dtype))

    def _changed_transposed(self, u: Tensor) -> Tensor:
        kept, changed = self.partition.split(u)
        pulled = (kept + _times(self.weight.mT, changed)).to(u.dtype)
        return self.partition.merge(
            pulled, (changed * _along_features(self.diagonal, u)).to(u.dtype)
        )

    def _restored_transposed(self, y: Tensor) -> Tensor:
        kept, changed = self.partition.split(y)
        scaled = changed * _along_features(self.sign * (-self.log_scale).exp(), y)
        pulled = (kept - _times(self.weight.mT, scaled)).to(y.dtype)
        return self.partition.merge(pulled, scaled.to(y.dtype))

    def _log_det(self, x: Tensor) -> Tensor:
        places = x.shape[2:].numel()
        one = self.log_scale.to(log_det_dtype(x.dtype)).sum() * places
        return one.expand(x.shape[0])

    def extra_repr(self) -> str:
        return repr(self.partition)


class _LinearCouplingLinearization(Linearization):
    """The derivative of a linear map is the map."""

    def __init__(self, coupling: LinearCoupling, value: Tensor, log_det: Tensor) -> None:
        self.value, self.log_det = value, log_det
        self._coupling = coupling

    def jv(self, v: Tensor) -> Tensor:
        return self._coupling._changed(self._rows(v)).reshape(v.shape)

    def vjp(self, u: Tensor) -> Tensor:
        return self._coupling._changed_transposed(self._rows(u)).reshape(u.shape)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._coupling._restored(self._rows(w)).reshape(w.shape)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._coupling._restored_transposed(self._rows(y)).reshape(y.shape)

    def _rows(self, vectors: Tensor) -> Tensor:
        return vectors.reshape(-1, *self.value.shape[1:])


def _norm(weight: Tensor, size: Tensor) -> float:
    """Returns the largest singular value of (1, 0; weight, size)."""
    dense = torch.eye(sum(weight.shape)).to(weight)
    dense[weight.shape[1] :] = torch.cat((weight, size.diag()), 1)
    return torch.linalg.matrix_norm(dense, 2).item()


def two_by_two_condition(weight: float, scale: float) -> float:
    """Returns the condition number of (1, 0; weight, scale), without cancellation.

    Example:
        >>> round(two_by_two_condition(2 + 2**0.5, 1.0), 2)
        13.58
    """
    larger = (np.hypot(1 + scale, weight) + np.hypot(1 - scale, weight)) / 2
    return float(larger / scale * larger)


def _times(weight: Tensor, part: Tensor) -> Tensor:
    """Returns the product of a matrix with the features (dimension 1) of a part, not rounded.

    Under autocast products are narrow, and the two directions no longer each other's inverse.
    """
    wide = torch.promote_types(weight.dtype, part.dtype)
    with torch.autocast(part.device.type, enabled=False):
        return (part.to(wide).movedim(1, -1) @ weight.to(wide).mT).movedim(-1, 1)


def _along_features(vector: Tensor, x: Tensor) -> Tensor:
    """Returns a vector of features in the shape that broadcasts with x (B, n, ...)."""
    return vector.reshape(-1, *[1] * (x.dim() - 2))


def _numbers(name: str, given: Numbers | None, shape: tuple[int, ...], *, empty: float) -> Tensor:
    """Returns the given numbers as a tensor of this shape, or says what is wrong with them."""
    if given is None:
        return torch.full(shape, empty)
    try:
        numbers = torch.as_tensor(given).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"'{name}' should hold numbers, got {given!r}.") from None
    if not (numbers.is_floating_point() or numbers.is_complex()):
        numbers = numbers.to(torch.get_default_dtype())
    if numbers.is_complex():
        raise ArgumentError(f"'{name}' should hold real numbers, got {numbers.dtype}.")
    if numbers.shape != torch.Size(shape):
        raise ArgumentError(
            f"'{name}' should have the shape {shape} of (changed, kept) features, "
            f"got {tuple(numbers.shape)}."
        )
    if not torch.isfinite(numbers).all():
        raise ArgumentError(f"'{name}' should hold finite numbers, got others among them.")
    return numbers
