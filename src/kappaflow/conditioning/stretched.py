"""Condition numbers that can be derived by the weights, from the directions at both ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.jacobian import Product, dense, flat
from kappaflow.linearization import Linearization

MATRIX_UP_TO = 128  # dimensions up to which a matrix is formed
TURNS = 12  # of a power iteration above


@dataclass(frozen=True)
class Stretched:
    """The directions at each point that a map stretches most and least, and how far apart.

    Attributes:
        most: Unit vectors (B, *event).
        least: Unit vectors (B, *event).
        log_condition_number: log(sigma_max / sigma_min), (B,), float64; nan where the Jacobian is
            not finite.
    """

    most: Tensor
    least: Tensor
    log_condition_number: Tensor


@torch.no_grad()
def stretched(linearization: Linearization, x: Tensor) -> Stretched:
    r"""Returns the directions that a map stretches most and least at x.

    Up to 128 dimensions they are the outermost right singular vectors of its matrix; above, what
    :math:`v \leftarrow J^T J v` and :math:`v \leftarrow J^{-1} J^{-T} v` come to in twelve turns.

    Args:
        linearization: Of the map at x.
        x: Points, (B, *event).

    Returns:
        Both, with the condition number that they show: up to 128 dimensions right to eps times
        itself, above never more than what is true.

    Note:
        Made to be pushed at during training: what is reported is measured by
        `kappaflow.spectrum`, whose smallest singular value is right at any condition number.
    """
    if x.shape[1:].numel() <= MATRIX_UP_TO:
        return _from_matrices(linearization, x)
    z, start = linearization.value, _start(x)
    most = _power(flat(linearization.jv, x), flat(linearization.vjp, z), start)
    least = _power(flat(linearization.inverse_vjp, x), flat(linearization.inverse_jv, z), start)
    most, least = most.reshape(x.shape), least.reshape(x.shape)
    return Stretched(most, least, log_stretch(linearization, most, least).double())


def log_stretch(linearization: Linearization, most: Tensor, least: Tensor) -> Tensor:
    r"""Returns :math:`\log |J v| - \log |J w|` of directions v and w that are held fixed, (B,).

    Where they are singular vectors its derivative by anything J depends on is that of the log of
    the condition number: :math:`\partial \sigma = u^T (\partial J) v`.

    Args:
        linearization: Of a map at B points.
        most: v, (B, *event).
        least: w, (B, *event).

    Returns:
        The logarithm of the ratio, (B,); it can be derived.

    Source:
        The derivative of a singular value: Stewart, Sun 1990, Matrix Perturbation Theory.

    Example:
        >>> import kappaflow as kf
        >>> layer = kf.ElementwiseAffine(2, log_scale=[1.5, -0.5])
        >>> e = torch.eye(2)
        >>> log_stretch(layer.linearize(torch.zeros(1, 2)), e[:1], e[1:]).detach()
        tensor([2.])
    """
    lengths = linearization.jv(torch.stack((most, least))).flatten(2).norm(dim=2)
    return lengths[0].log() - lengths[1].log()


def _from_matrices(linearization: Linearization, x: Tensor) -> Stretched:
    matrices = dense(linearization.jv, x)
    finite = torch.isfinite(matrices).all(dim=(1, 2))
    found = torch.zeros(2, len(x), x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    apart = matrices.new_full((len(x),), torch.nan)
    if finite.any():
        _, s, right = torch.linalg.svd(matrices[finite])
        found[:, finite] = torch.stack((right[:, 0], right[:, -1])).to(x.dtype)
        apart[finite] = s[:, 0].log() - s[:, -1].log()
    most, least = found.reshape(2, *x.shape)
    return Stretched(most, least, apart)


def _power(there: Product, back: Product, v: Tensor) -> Tensor:
    """Returns what v <- back(there(v)) comes to, as unit vectors (1, B, n)."""
    for _ in range(TURNS):
        v = back(there(v))
        v = v / v.norm(dim=2, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    return v


def _start(x: Tensor) -> Tensor:
    """Returns a random direction for each point, (1, B, n), always the same."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(x), x.shape[1:].numel())
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(x)
