r"""How fast couplings make a covariance the identity, one ideal layer after another.

An ideal coupling has the best shift and scale for its partition. The distance S from the identity
is the loss of a Gaussian with this covariance against the standard normal, in nats,
:math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)`.
"""

import math

import torch
from torch import Tensor


def non_standardness(covariance: Tensor) -> Tensor:
    r"""Returns :math:`S(\Sigma) = \frac12 (\mathrm{tr} \Sigma - n - \log\det \Sigma)` in nats.

    It is the divergence of N(0, covariance) from N(0, I), (...,) for covariances (..., n, n); the
    name is from Draxler, Schnoerr, Koethe 2022.
    """
    diagonal = torch.linalg.cholesky(covariance).diagonal(dim1=-2, dim2=-1)
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (trace - covariance.shape[-1]) / 2 - diagonal.log().sum(-1)


def after_ideal_coupling(covariance: Tensor, kept: int) -> Tensor:
    """Returns the covariance after the best affine coupling: the one nearest to the identity.

    The shift subtracts what the kept features predict, which leaves the Schur complement and two
    uncorrelated parts. The scales, also of the kept features, give unit variances. The first
    `kept` features are kept.
    """
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
    """
    n = eigenvalues.shape[-1]
    largest, variance = eigenvalues.amax(-1), eigenvalues.var(-1, correction=0)
    taken = n * kept / ((n - 1) * (n + 2)) * variance / largest
    return -eigenvalues.log().sum(-1) / 2 + (n - kept) / 2 * torch.log1p(-taken)


def whitening_factor(loss: float, features: int, kept: int) -> float:
    r"""Returns a bound on the expected factor by which a rotated ideal coupling reduces S.

    It depends on S alone. With :math:`g = e^{-2 S / n}`, the geometric mean of the eigenvalues,
    and :math:`h = \sqrt{1 - g^n}`, the term :math:`v / \lambda_{\max}` is at least
    :math:`2 (1 - g) (1 - h) / (1 + h)`. The factor grows with S, so m layers reduce S in
    expectation at least by its m-th power. (Derived from `expected_non_standardness`.)
    """
    n, geometric = features, math.exp(-2 * loss / features)
    root = math.sqrt(-math.expm1(-2 * loss))
    least = 2 * -math.expm1(-2 * loss / n) * (geometric**n / (1 + root)) / (1 + root)
    taken = n * kept / ((n - 1) * (n + 2)) * least
    return 1 + (n - kept) / 2 * math.log1p(-taken) / loss


def last_whitening_factor(features: int, kept: int) -> float:
    r"""Returns the exact factor of a rotated ideal coupling close to the identity.

    .. math:: \lim_{S \to 0} E S' / S = \frac{p (p - 1) + q (q - 1)}{(n - 1)(n + 2)}

    with p of n features kept and q changed: below one half for halves, and zero in the plane.
    """
    n, changed = features, features - kept
    return (kept * (kept - 1) + changed * (changed - 1)) / ((n - 1) * (n + 2))
