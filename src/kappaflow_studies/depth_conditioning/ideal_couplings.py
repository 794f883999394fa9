r"""How fast couplings make a covariance the identity, one ideal layer after another.

The distance is the loss of a Gaussian with this covariance against the standard normal, in nats,
:math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)`.
"""

import math

import torch
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.errors import ArgumentError


def non_standardness(covariance: Tensor) -> Tensor:
    r"""Returns :math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)` in nats.

    Args:
        covariance: Symmetric and positive definite matrices, (..., n, n).

    Returns:
        The loss in nats, (...,); zero only for the identity.

    Raises:
        ArgumentError: The input is not a stack of square matrices, or not positive definite.

    Source:
        The divergence of N(0, covariance) from N(0, I). The name is from Draxler, Schnoerr,
        Koethe 2022.

    Example:
        >>> round(non_standardness(torch.tensor([[2.0, 0.0], [0.0, 0.5]])).item(), 6)
        0.25
    """
    factor, failed = torch.linalg.cholesky_ex(_checked(covariance))
    if failed.any():
        raise ArgumentError("'covariance' should be positive definite, it is not.")
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (trace - covariance.shape[-1]) / 2 - diagonal.log().sum(-1)


def after_ideal_coupling(covariance: Tensor, kept: int) -> Tensor:
    r"""Returns the covariance after the best affine coupling: the one nearest to the identity.

    The shift subtracts from the changed part what the kept part predicts of it. This leaves the
    Schur complement, and the two parts are then uncorrelated. The scale gives each changed feature
    unit variance. The kept features are scaled too, as by an `ActNorm`.

    Args:
        covariance: Covariance matrices, (..., n, n).
        kept: Number of kept features (the first ones), at least 1 and fewer than n.

    Returns:
        Covariances of two blocks with unit diagonals, (..., n, n).

    Raises:
        ArgumentError: The input has no matrices, or nothing is kept or changed.

    Example:
        >>> after_ideal_coupling(torch.tensor([[4.0, 2.0], [2.0, 5.0]]), 1)
        tensor([[1., 0.],
                [0., 1.]])
    """
    n = _checked(covariance).shape[-1]
    natural_int("kept", kept)
    if not 0 < kept < n:
        raise ArgumentError(f"'kept' should be from 1 to {n - 1}, got {kept}.")
    first, across = covariance[..., :kept, :kept], covariance[..., :kept, kept:]
    left = covariance[..., kept:, kept:] - across.mT @ torch.linalg.solve(first, across)
    blocks = torch.zeros_like(covariance)
    blocks[..., :kept, :kept], blocks[..., kept:, kept:] = first, (left + left.mT) / 2
    scale = blocks.diagonal(dim1=-2, dim2=-1).rsqrt()
    return blocks * scale[..., :, None] * scale[..., None, :]


def expected_non_standardness(eigenvalues: Tensor, kept: int) -> Tensor:
    r"""Returns a bound on the expected S after a random rotation and an ideal coupling.

    For eigenvalues of mean 1 and variance v, with p features kept and q changed,

    .. math:: E S' \le S + \frac q2 \log\Bigl(1 - \frac{n p}{(n - 1)(n + 2)}
        \frac{v}{\lambda_{\max}}\Bigr).

    Args:
        eigenvalues: Eigenvalues of the covariance, with mean 1, (..., n).
        kept: Number of features that the coupling keeps, p.

    Returns:
        The bound in nats, (...,).

    Raises:
        ArgumentError: An eigenvalue is not positive, or their mean is not 1.

    Source:
        Draxler, Schnoerr, Koethe 2022; derived independently on the page about whitening.

    Example:
        >>> bound = expected_non_standardness(torch.tensor([0.5, 1.5]), 1)
        >>> round(bound.item(), 4), round(-0.5 * math.log(0.5 * 1.5), 4)
        (0.1003, 0.1438)
    """
    n = eigenvalues.shape[-1]
    if not (eigenvalues > 0).all() or ((eigenvalues.mean(-1) - 1).abs() > 1e-6).any():
        raise ArgumentError("'eigenvalues' should be positive, with a mean of 1.")
    positive_int("kept", kept)
    largest, variance = eigenvalues.amax(-1), eigenvalues.var(-1, correction=0)
    taken = n * kept / ((n - 1) * (n + 2)) * variance / largest
    return -eigenvalues.log().sum(-1) / 2 + (n - kept) / 2 * torch.log1p(-taken)


def whitening_factor(loss: float, features: int, kept: int) -> float:
    r"""Returns a bound on the expected factor by which a rotated ideal coupling reduces S.

    It depends on S alone. With :math:`g = e^{-2 S / n}`, the geometric mean of the eigenvalues,
    and :math:`h = \sqrt{1 - g^n}`, the term :math:`v / \lambda_{\max}` is at least
    :math:`2 (1 - g) (1 - h) / (1 + h)`. The factor grows with S, so m layers reduce S in
    expectation at least by its m-th power.

    Args:
        loss: S in nats, above 0.
        features: Number of features, n.
        kept: Number of features that the coupling keeps, p.

    Returns:
        The factor, below 1.

    Raises:
        ArgumentError: `loss` is not positive.

    Source:
        Draxler, Schnoerr, Koethe 2022; derived independently on the page about whitening.

    Example:
        >>> round(whitening_factor(1e-6, 16, 8), 4), round(whitening_factor(5.0, 16, 8), 4)
        (0.5273, 1.0)
    """
    if not 0 < loss < math.inf:
        raise ArgumentError(f"'loss' should be a positive number of nats, got {loss}.")
    n, geometric = features, math.exp(-2 * loss / features)
    root = math.sqrt(-math.expm1(-2 * loss))
    least = 2 * -math.expm1(-2 * loss / n) * (geometric**n / (1 + root)) / (1 + root)
    taken = n * kept / ((n - 1) * (n + 2)) * least
    return 1 + (n - kept) / 2 * math.log1p(-taken) / loss


def last_whitening_factor(features: int, kept: int) -> float:
    r"""Returns the exact factor of a rotated ideal coupling close to the identity.

    .. math:: \lim_{S \to 0} E S' / S = \frac{p (p - 1) + q (q - 1)}{(n - 1)(n + 2)},

    It is below one half for halves, and zero in the plane.

    Args:
        features: Number of features, n.
        kept: Number of features that the coupling keeps, p; q = n - p.

    Returns:
        The factor, below 1.

    Source:
        Ours: close to the identity, S is a quarter of the squared distance from it. A coupling
        leaves the off-diagonal entries within the two parts.

    Example:
        >>> last_whitening_factor(2, 1), round(last_whitening_factor(16, 8), 4)
        (0.0, 0.4148)
    """
    n, changed = features, features - kept
    return (kept * (kept - 1) + changed * (changed - 1)) / ((n - 1) * (n + 2))


def _checked(covariance: Tensor) -> Tensor:
    if covariance.dim() < 2 or covariance.shape[-1] != covariance.shape[-2]:
        raise ArgumentError(
            f"'covariance' should be (..., n, n), got {tuple(covariance.shape)}: square matrices."
        )
    return covariance
