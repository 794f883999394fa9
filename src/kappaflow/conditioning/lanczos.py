"""Largest singular values without forming a matrix: Golub-Kahan-Lanczos for many points."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

Product = Callable[[Tensor], Tensor]

LEAST_STEPS = 5
NOISE = 0.5  # norm of the noise added to a unit starting vector
OUTSIDE = 0.1  # share inside the basis up to which one pass is enough
MOST_PASSES = 10


@dataclass(frozen=True)
class LanczosResult:
    """Singular values (B, k), descending; convergence (B,); steps; right vectors (B, k, n)."""

    values: Tensor
    converged: Tensor
    steps: int
    vectors: Tensor


def golub_kahan(
    multiply: Product,
    transpose: Product,
    like: Tensor,
    *,
    k: int,
    tolerance: float,
    max_steps: int,
    near: Tensor | None = None,
) -> LanczosResult:
    r"""Returns the k largest singular values of a linear map, at every point of a batch.

    The block bidiagonalization :math:`A V = U B` uses blocks of k vectors, so that a value of
    multiplicity k appears k times, with full reorthogonalization. A value has converged if the
    residual :math:`\|A^T u - \sigma v\|`, which bounds its error, is below `tolerance` times the
    value, and if the rounding of the largest value does not hide it.

    Args:
        multiply: The product v -> A v, on tensors (k, B, *event).
        transpose: The product u -> A^T u.
        like: A tensor (B, *event) that defines shape, type and device of the vectors.
        k: Number of values, and of vectors in a block.
        tolerance: Relative accuracy.
        max_steps: Largest number of products of a block with A and with A^T.
        near: Right singular vectors of a similar map, (B, k, n), as a starting point that needs
            fewer steps. Noise is added so that directions missing from them are still found.

    Source:
        Golub, Kahan 1965; blocks: Golub, Luk, Overton 1981; the residual as in Golub, Van Loan,
        Matrix Computations, section 10.4.
    """
    n = like.shape[1:].numel()
    generator = torch.Generator().manual_seed(0)
    left, right = _Basis(like, generator), _Basis(like, generator)
    start = right.random(k)
    if near is not None:
        start = near + NOISE * start / start.norm(dim=2, keepdim=True)
    block = right.extend(start)[0]
    columns: list[Tensor] = []
    step, look = 0, LEAST_STEPS
    while True:
        step += 1
        new, column = left.extend(_apply(multiply, block, like))
        columns.append(column)
        back = _apply(transpose, new, like)
        block = right.extend(back[:, : n - right.size])[0]
        complete = not block.shape[1]
        if step < min(look, max_steps) and not complete:
            continue
        # Singular values of a batch take time: later steps compute them less often.
        look = step + 1 + step // 10
        values, residuals, combined = _ritz(columns, block @ back.mT, k)
        # A start that misses a direction looks converged in the first steps.
        done = (residuals <= tolerance * values).all(dim=1) & (step >= LEAST_STEPS or complete)
        # Rounding errors in the products scale with the largest value and can hide small ones.
        converged = done & (
            torch.finfo(like.dtype).eps * values[:, 0] <= tolerance * values[:, -1]
        )
        stuck = ~torch.isfinite(values).all(dim=1)
        if (done | stuck).all() or complete or step >= max_steps:
            return LanczosResult(values, converged, step, right.combined(combined))


class _Basis:
    """Orthonormal vectors at each point, (B, size, n), with space for more."""

    def __init__(self, like: Tensor, generator: torch.Generator) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        self._room = torch.zeros(len(like), 1, like.shape[1:].numel(), dtype=dtype).to(like.device)
        self._generator = generator
        self.size = 0

    def extend(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Returns new orthonormal vectors that span given ones (B, k, n), and coefficients."""
        # Two passes are enough (Kahan, in Parlett 1998, 6.9) unless the given vectors add nothing.
        # Then an invariant subspace is complete, and the remainder is rounding, which may be
        # inside the span each time. Noise of this size continues the search in a random direction.
        basis, numbers = self._room[:, : self.size], torch.finfo(vectors.dtype)
        block = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(numbers.tiny)
        for turn in range(MOST_PASSES):
            if turn > 1:
                block = block + numbers.eps * self.random(block.shape[1])
            overlap = block @ basis.mT
            block = torch.linalg.qr((block - overlap @ basis).mT)[0].mT
            if not (overlap.norm(dim=2) > OUTSIDE).any():
                break
        self._append(block)
        return block, torch.cat((basis @ vectors.mT, block @ vectors.mT), 1)

    def combined(self, numbers: Tensor) -> Tensor:
        """Returns the vectors combined with these coefficients (B, k, size), as (B, k, n)."""
        return numbers.to(self._room.dtype) @ self._room[:, : numbers.shape[2]]

    def random(self, k: int) -> Tensor:
        shape = (len(self._room), k, self._room.shape[2])
        return torch.randn(shape, generator=self._generator, dtype=torch.float64).to(self._room)

    def _append(self, block: Tensor) -> None:
        """Appends a block; doubles the storage if it is full."""
        after = self.size + block.shape[1]
        while after > self._room.shape[1]:
            self._room = torch.cat((self._room, torch.zeros_like(self._room)), 1)
        self._room[:, self.size : after] = block
        self.size = after


def _apply(product: Product, block: Tensor, like: Tensor) -> Tensor:
    """Returns the product with each vector of a block (B, k, n)."""
    vectors = block.transpose(0, 1).reshape(-1, *like.shape).to(like.dtype)
    return product(vectors).flatten(2).transpose(0, 1).to(block.dtype)


def _ritz(columns: list[Tensor], rest: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the k largest singular values of the projection, residuals, and right vectors."""
    # Column block j holds U^T A V_j for the vectors of U at that time; `rest` (B, r, k) is the
    # component of A^T U outside the span of V.
    size = columns[-1].shape[1]
    padded = [pad(column, (0, 0, 0, size - column.shape[1])) for column in columns]
    projected = torch.cat(padded, 2).double()
    finite = torch.isfinite(projected).all(dim=(1, 2))
    values = projected.new_full((len(projected), k), torch.nan)
    residuals = torch.full_like(values, torch.inf)
    combined = projected.new_zeros(len(projected), k, projected.shape[2])
    if finite.any():
        u, s, v = torch.linalg.svd(projected[finite], full_matrices=False)
        values[finite] = s[:, :k]
        last = u[:, -rest.shape[2] :, :k]
        residuals[finite] = (rest[finite].double() @ last).norm(dim=1)
        combined[finite] = v[:, :k]
    return values, residuals, combined
