"""Largest singular values without forming a matrix: Golub-Kahan-Lanczos for many points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

Product = Callable[[Tensor], Tensor]

LEAST_STEPS = 5


@dataclass(frozen=True)
class LanczosResult:
    """Singular values (B, k), descending; whether each point met the tolerance (B,); steps."""

    values: Tensor
    converged: Tensor
    steps: int


def golub_kahan(
    multiply: Product,
    transpose: Product,
    like: Tensor,
    *,
    k: int,
    tolerance: float,
    max_steps: int,
) -> LanczosResult:
    r"""Returns the k largest singular values of a linear map, at every point of a batch.

    The block bidiagonalization :math:`A V = U B`, with k vectors a block so that a value that
    occurs k times is found k times, is reorthogonalised fully. A value counts as converged when
    the residual :math:`\|A^T u - \sigma v\|`, which bounds its error, is below `tolerance` times
    it, and that is more than rounding.

    Args:
        multiply: v -> A v, on tensors (k, B, *event), `like` being (B, *event).
        transpose: u -> A^T u.
        like: (B, *event): shape, type and device of the vectors.
        k: How many values, and vectors a block.
        tolerance: Relative accuracy asked for.
        max_steps: At most so many products of a block with A and with A^T.

    Returns:
        The values, with their convergence.

    Source:
        Golub, Kahan 1965; blocks: Golub, Luk, Overton 1981; the residual as in Golub, Van Loan,
        Matrix Computations, section 10.4.
    """
    n = like.shape[1:].numel()
    generator = torch.Generator().manual_seed(0)
    wide = torch.promote_types(like.dtype, torch.float32)
    left = right = like.new_zeros(len(like), 0, n, dtype=wide)
    columns: list[Tensor] = []
    block = _orthonormal(_random(right, (len(like), k, n), generator), right, generator)
    step, values = 0, like.new_full((len(like), k), torch.nan, dtype=torch.float64)
    converged = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    while step < max_steps and block.shape[1]:
        step += 1
        right = torch.cat((right, block), 1)
        image = _apply(multiply, block, like)
        new = _orthonormal(image, left, generator)
        left = torch.cat((left, new), 1)
        columns.append(left @ image.mT)
        back = _apply(transpose, new, like)
        block = _orthonormal(back[:, : n - right.shape[1]], right, generator)
        values, residuals = _ritz(columns, block @ back.mT, k)
        # A start that happens to miss a direction looks converged in its first steps.
        settled = step >= LEAST_STEPS or not block.shape[1]
        done = (residuals <= tolerance * values).all(dim=1) & settled
        # Rounding in the products is of the size of the largest value: far below it, it hides all.
        converged = done & (
            torch.finfo(like.dtype).eps * values[:, 0] <= tolerance * values[:, -1]
        )
        if (done | ~torch.isfinite(values).all(dim=1)).all():
            break
    return LanczosResult(values, converged, step)


def _apply(product: Product, block: Tensor, like: Tensor) -> Tensor:
    """Returns the product with each vector of a block (B, k, n)."""
    vectors = block.transpose(0, 1).reshape(-1, *like.shape).to(like.dtype)
    return product(vectors).flatten(2).transpose(0, 1).to(block.dtype)


def _orthonormal(vectors: Tensor, basis: Tensor, generator: torch.Generator) -> Tensor:
    """Returns an orthonormal block that spans, beside the basis, the vectors (B, k, n).

    Where they add nothing (an invariant subspace is complete) what is left of them is rounding,
    and the search goes on from a random direction. Twice is enough (Kahan, in Parlett 1998, 6.9).
    """
    noise = _random(vectors, vectors.shape, generator)
    size = vectors.norm(dim=2, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    block = vectors + torch.finfo(vectors.dtype).eps * size * noise
    for _ in range(2):
        block = torch.linalg.qr((block - (block @ basis.mT) @ basis).mT)[0].mT
    return block


def _ritz(columns: list[Tensor], rest: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the k largest singular values of the projected matrix, and their residuals.

    Column block j holds U^T A V_j, over the vectors of U that were there; `rest` (B, r, k) is what
    A^T takes out of the space of V.
    """
    size = columns[-1].shape[1]
    padded = [pad(column, (0, 0, 0, size - column.shape[1])) for column in columns]
    projected = torch.cat(padded, 2).double()
    finite = torch.isfinite(projected).all(dim=(1, 2))
    values = projected.new_full((len(projected), k), torch.nan)
    residuals = torch.full_like(values, torch.inf)
    if finite.any():
        u, s, _ = torch.linalg.svd(projected[finite])
        values[finite] = s[:, :k]
        last = u[:, -rest.shape[2] :, :k]
        residuals[finite] = (rest[finite].double() @ last).norm(dim=1)
    return values, residuals


def _random(like: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)
