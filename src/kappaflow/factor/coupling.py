"""Linear couplings, as layers of a flow (`LinearCoupling`) and as plain arrays (`Factor`).

A linear coupling multiplies by the block matrix (1, 0; W, D) with a diagonal matrix D. The layer
is here and not in `bijections`, because `factor_linear` returns it: it has no conditioner, and it
shares its condition number with the arrays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow._checks import batch, real_numbers
from kappaflow.autograd.replay import without_autocast
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.partition import Partition
from kappaflow.registry import register

Numbers = Tensor | np.ndarray | Sequence


@register("LinearCoupling")
class LinearCoupling(Bijection):
    r"""Keeps x_1 and changes x_2: :math:`z_2 = d \odot x_2 + W x_1`.

    An input may have further dimensions after the features, such as the pixels of an image; the
    same map acts at each pixel.

    Args:
        partition: Which features are kept (x_1) and which are changed (x_2).
        weight: W, (changed, kept); zeros by default.
        diagonal: d, (changed,), without zeros; ones by default. Training keeps the signs. If a
            weight is given, its dtype is used.

    Raises:
        ArgumentError: A shape does not fit the partition, a number is invalid, or the partition
            keeps nothing.

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
        signed = _numbers("diagonal", diagonal, {"changed": changed}, default=1.0)
        numbers = _numbers("weight", weight, {"changed": changed, "kept": kept}, default=0.0)
        if weight is None:
            numbers = numbers.to(signed.dtype)
        self.weight, signed = nn.Parameter(numbers), signed.to(numbers.dtype)
        if 0 in signed.tolist():
            raise ArgumentError(
                "'diagonal' should be nowhere zero, got zeros: a coupling must be invertible."
            )
        self.log_scale = nn.Parameter(signed.abs().log())
        self.sign: Tensor
        self.register_buffer("sign", signed.sign())

    @classmethod
    def of(
        cls, partition: Partition, weight: Numbers, diagonal: Numbers | None = None
    ) -> "LinearCoupling":
        """Returns a coupling with these numbers, which a model file stores as weights.

        Numbers that are passed to the constructor would also be stored as text.
        """
        exact = LinearCoupling(partition, weight, diagonal)
        coupling = LinearCoupling(partition).to(exact.weight.dtype)
        coupling.load_state_dict(exact.state_dict())
        return coupling

    @property
    def diagonal(self) -> Tensor:
        """D as a vector, (changed,)."""
        return self.sign * self.log_scale.exp()

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value of the matrix; nan if a number is not finite.

        If all entries of the diagonal have the same size g, each singular value w of W belongs to
        a pair of singular values of the matrix with sum of squares 1 + g^2 + w^2 and product g.
        The largest w gives both extremes.
        """
        weight = self.weight.detach().double().cpu().numpy()
        return condition_number(weight, self.log_scale.detach().double().cpu().exp().numpy())

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """Returns the matrix M (n, n) that acts on columns: z = M x."""
        return self(torch.eye(self.partition.features).to(self.weight))[0].mT.contiguous()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value = self._apply_matrix(batch("x", x, (self.partition.features, *x.shape[2:])))
        return value, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value = self._apply_inverse(batch("z", z, (self.partition.features, *z.shape[2:])))
        return value, -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        return _LinearCouplingLinearization(self, value, log_det)

    def _apply_matrix(self, x: Tensor) -> Tensor:
        kept, changed = self.partition.split(x)
        mixed = changed * _along_features(self.diagonal, x) + _times(self.weight, kept)
        return self.partition.merge(kept, mixed.to(x.dtype))

    def _apply_inverse(self, z: Tensor) -> Tensor:
        kept, mixed = self.partition.split(z)
        inverse_scale = _along_features(self.sign * (-self.log_scale).exp(), z)
        changed = (mixed - _times(self.weight, kept)) * inverse_scale
        return self.partition.merge(kept, changed.to(z.dtype))

    def _apply_transposed(self, u: Tensor) -> Tensor:
        kept, changed = self.partition.split(u)
        pulled = (kept + _times(self.weight.mT, changed)).to(u.dtype)
        return self.partition.merge(
            pulled, (changed * _along_features(self.diagonal, u)).to(u.dtype)
        )

    def _apply_inverse_transposed(self, y: Tensor) -> Tensor:
        kept, changed = self.partition.split(y)
        scaled = changed * _along_features(self.sign * (-self.log_scale).exp(), y)
        pulled = (kept - _times(self.weight.mT, scaled)).to(y.dtype)
        return self.partition.merge(pulled, scaled.to(y.dtype))

    def _log_det(self, x: Tensor) -> Tensor:
        pixels = x.shape[2:].numel()
        log_det = self.log_scale.to(log_det_dtype(x.dtype)).sum() * pixels
        return log_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        return repr(self.partition)


class _LinearCouplingLinearization(Linearization):
    """The derivative of a linear map is the map itself."""

    def __init__(self, coupling: LinearCoupling, value: Tensor, log_det: Tensor) -> None:
        self.value, self.log_det = value, log_det
        self._coupling = coupling

    def jv(self, v: Tensor) -> Tensor:
        return self._coupling._apply_matrix(self._rows(v)).reshape(v.shape)

    def vjp(self, u: Tensor) -> Tensor:
        return self._coupling._apply_transposed(self._rows(u)).reshape(u.shape)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._coupling._apply_inverse(self._rows(w)).reshape(w.shape)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._coupling._apply_inverse_transposed(self._rows(y)).reshape(y.shape)

    def _rows(self, vectors: Tensor) -> Tensor:
        return vectors.reshape(-1, *self.value.shape[1:])


def condition_number(weight: np.ndarray, scales: np.ndarray) -> float:
    """Returns the condition number of (1, 0; weight, diag(scales)), for positive scales."""
    if not (np.isfinite(weight).all() and np.isfinite(scales).all()):
        return float("nan")
    if (scales != scales[0]).any():
        # The smallest value comes from the inverse, without cancellation.
        inverse_weight, inverse_scales = weight / scales[:, None], np.diag(1 / scales)
        bottoms = np.c_[weight, np.diag(scales)], np.c_[inverse_weight, inverse_scales]
        tops = np.eye(weight.shape[1], sum(weight.shape))
        norm, inverse_norm = (largest_singular_value(np.r_[tops, bottom]) for bottom in bottoms)
        return norm * inverse_norm
    return two_by_two_condition(largest_singular_value(weight), scales[0])


def largest_singular_value(matrix: np.ndarray) -> float:
    """Returns the spectral norm, by the eigenvalues of the Gram matrix: faster than all values."""
    size = np.abs(matrix).max(initial=0.0)
    if size == 0:
        return 0.0
    unit = (matrix if len(matrix) <= matrix.shape[1] else matrix.T) / size
    return float(size * np.sqrt(np.linalg.eigvalsh(unit @ unit.T)[-1]))


def two_by_two_condition(weight: float, scale: float) -> float:
    """Returns the condition number of (1, 0; weight, scale), without cancellation."""
    larger = (np.hypot(1 + scale, weight) + np.hypot(1 - scale, weight)) / 2
    return float(larger / scale * larger)


def _times(weight: Tensor, part: Tensor) -> Tensor:
    """Returns a matrix times the features (dimension 1) of a tensor, in full precision."""
    # Autocast would round the product, and the inverse would no longer undo the forward map.
    common = torch.promote_types(weight.dtype, part.dtype)
    with without_autocast(part.device.type):
        return (part.to(common).movedim(1, -1) @ weight.to(common).mT).movedim(-1, 1)


def _along_features(vector: Tensor, x: Tensor) -> Tensor:
    """Returns a vector over features in a shape that broadcasts with x (B, n, ...)."""
    return vector.reshape(-1, *[1] * (x.dim() - 2))


def _numbers(name: str, value: Numbers | None, sizes: dict[str, int], *, default: float) -> Tensor:
    """Returns the numbers as a tensor; `sizes` are those of its dimensions, by their names."""
    shape = tuple(sizes.values())
    if value is None:
        return torch.full(shape, default)
    numbers = real_numbers(name, value)
    if numbers.shape != torch.Size(shape):
        raise ArgumentError(
            f"'{name}' should have the shape {shape} of ({', '.join(sizes)}) features, "
            f"got {tuple(numbers.shape)}."
        )
    return numbers


class Factor(NamedTuple):
    """A coupling in arrays: (1, 0; weight, diagonal) if `lower`, else (diagonal, weight; 0, 1)."""

    lower: bool
    weight: np.ndarray
    diagonal: np.ndarray

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value; nan if a number is not finite."""
        return condition_number(self.weight, np.abs(self.diagonal))

    @property
    def sides(self) -> tuple[slice, slice]:
        """The features that the factor changes, and those that it reads."""
        changed, kept = self.weight.shape
        if self.lower:
            return slice(kept, None), slice(kept)
        return slice(changed), slice(changed, None)

    @property
    def matrix(self) -> np.ndarray:
        """The factor as a dense matrix, (n, n)."""
        dense, (changed, kept) = np.eye(sum(self.weight.shape)), self.sides
        dense[changed, kept], dense[changed, changed] = self.weight, np.diag(self.diagonal)
        return dense


def unit_factors(blocks: Sequence[np.ndarray], *, lower_first: bool = True) -> list[Factor]:
    """Returns factors with these weights and unit diagonals; lower and upper ones alternate."""
    return [
        Factor((i % 2 == 0) == lower_first, block, np.ones(len(block)))
        for i, block in enumerate(blocks)
    ]


def flip_last(factors: Sequence[Factor]) -> tuple[list[Factor], int]:
    """Returns factors of diag(1, ..., 1, -1) T, and the index of the one that took the sign."""
    # An upper factor before the first lower one passes the sign on by flipping its last column.
    changed = list(factors)
    for index, factor in enumerate(factors):
        if factor.lower:
            sign = np.ones(len(factor.diagonal))
            sign[-1] = -1
            weight = sign[:, None] * factor.weight
            changed[index] = Factor(True, weight, sign * factor.diagonal)
            return changed, index
        weight = factor.weight.copy()
        weight[:, -1] *= -1
        changed[index] = Factor(False, weight, factor.diagonal)
    raise ValueError("there is no lower factor to take the sign")


def to_layers(factors: Sequence[Factor], partition: Partition) -> tuple[LinearCoupling, ...]:
    """Returns the factors as layers; a lower factor keeps what the partition keeps."""
    lower, upper = partition, partition.swapped()
    return tuple(
        LinearCoupling.of(lower if f.lower else upper, f.weight, f.diagonal) for f in factors
    )


def weight_and_diagonal(coupling: LinearCoupling) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight and the diagonal that a coupling computes with, as float64 arrays."""
    weight, diagonal = coupling.weight.detach(), coupling.diagonal.detach()
    return weight.double().cpu().numpy(), diagonal.double().cpu().numpy()
