"""Dense Jacobians from a linearization, and the singular values of a batch of matrices."""

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

ROWS_AT_ONCE = (
    8192  # points times vectors in one product: bounds memory, and large enough to be quick
)


def dense(product: Product, x: Tensor) -> Tensor:
    """Returns the float64 matrices (B, n, n) of a product with vectors shaped as x (B, *event).

    What comes out may have another shape; both count as n numbers in their order.
    """
    n = x.shape[1:].numel()
    basis = torch.eye(n, dtype=x.dtype, device=x.device)
    columns = []
    for vectors in basis.split(max(1, ROWS_AT_ONCE // max(1, len(x)))):
        tangents = vectors.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
        columns.append(product(tangents).detach().flatten(2).double())
    return torch.cat(columns).permute(1, 2, 0)


def flat(product: Product, like: Tensor) -> Product:
    """Returns a product as a function of vectors without a shape, (K, B, n) to (K, B, n).

    Args:
        product: Of vectors (K, B, *event), perhaps to ones of another shape.
        like: (B, *event).
    """
    return lambda vectors: product(vectors.reshape(len(vectors), *like.shape)).flatten(2)


def all_of_both(there: Tensor, back: Tensor) -> Tensor:
    """Returns all singular values (B, n) of a map, descending, from it and from its inverse.

    Each comes from the matrix that rounds it less: by eps s_max / s in the map, by eps s / s_min
    in the inverse, of which the small ones are reciprocals.

    Args:
        there: The matrices of the map, (B, n, n).
        back: Those of the inverse.

    Returns:
        The values; nan where a matrix is not finite.
    """
    large, small = largest(there, there.shape[1]), 1 / largest(back, back.shape[1]).flip(1)
    middle = large[:, :1].log() + small[:, -1:].log()  # twice, as the sum of both is
    return torch.where(large.log() + small.log() >= middle, large, small)


def largest(matrices: Tensor, k: int = 1) -> Tensor:
    """Returns the k largest singular values (B, k), descending; nan for a non-finite matrix."""
    finite = torch.isfinite(matrices).all(dim=(1, 2))
    values = matrices.new_full((len(matrices), k), torch.nan)
    if finite.any():
        values[finite] = torch.linalg.svdvals(matrices[finite])[:, :k]
    return values
