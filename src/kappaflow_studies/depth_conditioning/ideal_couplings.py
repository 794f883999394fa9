r"""How fast couplings make a covariance the identity, one ideal layer after another.

An ideal coupling has the best shift and scale for its partition. The distance S from the identity
is the loss of a Gaussian with this covariance against the standard normal, in nats,
:math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)`.
"""

import math

import torch
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.errors import ArgumentError


def non_standardness(covariance: Tensor) -> Tensor:
    r"""Returns :math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)` in nats.

    It is the divergence of N(0, covariance) from N(0, I), (...,) for covariances (..., n, n); the
    name is from Draxler, Schnoerr, Koethe 2022.

    Raises:
        ArgumentError: The input is not a stack of square matrices, or not positive definite.

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
    """Returns the covariance after the best affine coupling: the one nearest to the identity.

    The shift subtracts what the kept features predict, which leaves the Schur complement and two
    uncorrelated parts. The scales, also of the kept features, give unit variances.

    The first `kept` of n features are kept, at least 1 and fewer than n. Covariances are
    (..., n, n); those returned have two blocks with unit diagonals.

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
    r"""Returns a bound in nats on the expected S after a random rotation and an ideal coupling.

    For eigenvalues (..., n) of mean 1 and variance v, with p features kept and q changed,

    .. math:: E S' \le S + \frac q2 \log\Bigl(1 - \frac{n p}{(n - 1)(n + 2)}
        \frac{v}{\lambda_{\max}}\Bigr).

    (Draxler, Schnoerr, Koethe 2022; derived independently in docs/theory/whitening.md.)

    Raises:
        ArgumentError: An eigenvalue is not positive, or their mean is not 1.

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
    expectation at least by its m-th power. (Derived from `expected_non_standardness`.)

    Raises:
        ArgumentError: `loss` (S in nats) is not positive.

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

    .. math:: \lim_{S \to 0} E S' / S = \frac{p (p - 1) + q (q - 1)}{(n - 1)(n + 2)}

    with p of n features kept and q changed: below one half for halves, and zero in the plane.
    Close to the identity, S is a quarter of the squared distance from it, and a coupling leaves
    the off-diagonal entries within the two parts.

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
