"""Condition numbers that can be differentiated with respect to the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.spectrum import flat
from kappaflow.linearization import Linearization, Product

MATRIX_UP_TO = 128  # largest number of dimensions for which a matrix is formed
POWER_STEPS = 12  # steps of the power iteration above that


@dataclass(frozen=True)
class Stretched:
    """The unit directions, (B, *event), that a map stretches most and least at each point."""

    most: Tensor
    least: Tensor
    log_condition_number: Tensor  # log(sigma_max / sigma_min), (B,), float64; nan if not finite


@torch.no_grad()
def stretched(linearization: Linearization, x: Tensor) -> Stretched:
    """Returns the directions that a map stretches most and least, and its condition number."""
    # Up to 128 dimensions by singular vectors. Above, twelve steps of v <- J^T J v and of
    # v <- J^-1 J^-T v give a lower bound. This is for training; `spectrum` is always accurate.
    if x.shape[1:].numel() <= MATRIX_UP_TO:
        return _from_matrices(linearization, x)
    z, start = linearization.value, _start(x)
    most = _power(flat(linearization.jv, x), flat(linearization.vjp, z), start)
    least = _power(flat(linearization.inverse_vjp, x), flat(linearization.inverse_jv, z), start)
    most, least = most.reshape(x.shape), least.reshape(x.shape)
    return Stretched(most, least, log_stretch(linearization, most, least).double())


def log_stretch(linearization: Linearization, most: Tensor, least: Tensor) -> Tensor:
    r"""Returns :math:`\log |J v| - \log |J w|` for fixed v and w, (B,), differentiable."""
    # For the extreme singular vectors its derivative is that of the log of the condition number:
    # d sigma = u^T (dJ) v (Stewart, Sun 1990, Matrix Perturbation Theory).
    lengths = linearization.jv(torch.stack((most, least))).flatten(2).norm(dim=2)
    return lengths[0].log() - lengths[1].log()


def _from_matrices(linearization: Linearization, x: Tensor) -> Stretched:
    matrices = linearization.matrix(x)
    finite = torch.isfinite(matrices).all(dim=(1, 2))
    directions = torch.zeros(2, len(x), x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    apart = matrices.new_full((len(x),), torch.nan)
    if finite.any():
        _, s, right = torch.linalg.svd(matrices[finite])
        directions[:, finite] = torch.stack((right[:, 0], right[:, -1])).to(x.dtype)
        apart[finite] = s[:, 0].log() - s[:, -1].log()
    most, least = directions.reshape(2, *x.shape)
    return Stretched(most, least, apart)


def _power(forward: Product, back: Product, v: Tensor) -> Tensor:
    """Returns the result of repeated v <- back(forward(v)), as unit vectors (1, B, n)."""
    for _ in range(POWER_STEPS):
        v = back(forward(v))
        v = v / v.norm(dim=2, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    return v


def _start(x: Tensor) -> Tensor:
    """Returns a fixed random direction for each point, (1, B, n)."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(x), x.shape[1:].numel())
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(x)
