"""Extreme singular values and the condition number of the Jacobian of a bijection."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kappaflow._checks import one_of, positive_float, positive_int
from kappaflow.bijection import Bijection
from kappaflow.conditioning.lanczos import golub_kahan
from kappaflow.conditioning.points import checked_points, in_float64, measuring
from kappaflow.conditioning.round_trip import median_and_most
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization, Product
from kappaflow.summary import Facts, PlottedSummary

# Number of dimensions above which "auto" uses Lanczos. Milliseconds of dense : Lanczos on 8
# couplings with hidden layers of 128, at 1, 16 and 128 points: 64 dimensions 4:15, 21:27, 287:72;
# 128 dimensions 8:16, 65:33, 635:108; 256 dimensions 25:17, 333:45, 2900:196.
MATRIX_FREE_ABOVE = 128
DENSE_UP_TO = 500  # largest number of dimensions for callers that need a matrix

Status = Literal["exact", "converged", "not converged", "not finite"]
Directions = tuple[Tensor, Tensor]  # most and least stretched, (B, k, n) each


class Extremes(NamedTuple):
    """Singular values at both ends, (B, k) each, with a status and their directions."""

    top: Tensor
    bottom: Tensor
    status: Status
    directions: Directions


@dataclass(frozen=True, repr=False)
class Spectrum(PlottedSummary):
    """The extreme singular values of dz/dx at B points.

    Attributes:
        sigma_max: The largest (B,), or the k largest in descending order (B, k); latent units per
            data unit.
        sigma_min: The smallest (B,), or the k smallest in ascending order (B, k). They are always
            computed from the inverse map, as reciprocals of its largest singular values: in the
            Jacobian itself, rounding hides them once the condition number exceeds 1 / eps.
        status: "exact" (dense), "converged" (to the tolerance), "not converged", or "not finite".
        method: "dense" or "lanczos".
        dimensions: Number of singular values of dz/dx.
    """

    sigma_max: Tensor
    sigma_min: Tensor
    status: Status
    method: str
    dimensions: int

    @property
    def condition_number(self) -> Tensor:
        """sigma_max / sigma_min, a pure number >= 1, (B,)."""
        if self.sigma_max.dim() == 1:
            return self.sigma_max / self.sigma_min
        return self.sigma_max[:, 0] / self.sigma_min[:, 0]

    def _facts(self) -> Facts:
        rows = len(self.sigma_max)
        ends = [v.reshape(rows, -1)[:, 0] for v in (self.sigma_max, self.sigma_min)]
        return [
            (
                "measured",
                f"{self.dimensions} dimensions at {rows} rows, {self.status} by {self.method}",
            ),
            ("condition number", median_and_most(self.condition_number)),
            ("largest singular value", median_and_most(ends[0])),
            ("smallest singular value", median_and_most(ends[1])),
        ]


def spectrum(
    bijection: Bijection,
    x: Tensor,
    *,
    context: Tensor | None = None,
    k: int = 1,
    method: str = "auto",
    tolerance: float = 1e-3,
    max_steps: int = 100,
) -> Spectrum:
    """Returns the extreme singular values of the Jacobian dz/dx of a bijection at points x.

    Args:
        bijection: The bijection to measure, including any standardization it contains.
        x: Points, (B, *event).
        context: Contexts, (B, C), if the bijection is conditional.
        k: Number of values at each end.
        method: "dense" (all singular values, by n products in each direction), "lanczos" (without
            forming a matrix), or "auto": dense up to 128 dimensions.
        tolerance: Relative accuracy for "lanczos".
        max_steps: Largest number of steps for "lanczos"; the status is "not converged" if more are
            needed.

    Returns:
        The values in float64, with a status.

    Raises:
        ArgumentError: An argument is out of range, x or context does not fit, or a flow was given
            instead of a bijection.

    Note:
        Measures a float64 copy in evaluation mode at the same points, so that rounding in a
        narrower type has no effect. If the bijection cannot be copied, or not to float64, it is
        measured in its own type. Its mode and state do not change.

    Source:
        Golub, Kahan 1965 for the matrix-free route.

    Example:
        >>> import math
        >>> from kappaflow.bijections import ElementwiseAffine
        >>> stretch = ElementwiseAffine(2, log_scale=[math.log(8.0), math.log(0.5)])
        >>> spectrum(stretch, torch.zeros(1, 2)).condition_number.round(decimals=4)
        tensor([16.], dtype=torch.float64)
    """
    if not isinstance(bijection, Bijection):
        raise ArgumentError(
            f"'bijection' should be a Bijection, got {type(bijection).__name__}: "
            "for a flow, pass flow.bijection, or flow.core to leave out the standardization."
        )
    x, context = checked_points(bijection, x, context)
    n = x.shape[1:].numel()
    if positive_int("k", k) > n:
        raise ArgumentError(f"'k' should be at most {n}, the number of singular values, got {k}.")
    one_of("method", method, ("auto", "dense", "lanczos"))
    positive_float("tolerance", tolerance)
    positive_int("max_steps", max_steps)
    if method == "auto":
        method = "dense" if n <= MATRIX_FREE_ABOVE else "lanczos"

    def measure(
        bijection: Bijection, x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Status]:
        linearization = bijection.linearize(x, context)
        if method == "dense":
            return _dense(linearization, x, k)
        return extremes_by_lanczos(linearization, x, k, tolerance, max_steps)[:3]

    with measuring(bijection):
        top, bottom, status = in_float64(measure, bijection, x, context)
    if k == 1:
        top, bottom = top[:, 0], bottom[:, 0]
    return Spectrum(top, bottom, status, method, n)


def _dense(linearization: Linearization, x: Tensor, k: int) -> tuple[Tensor, Tensor, Status]:
    forward, back = linearization.matrices(x)
    top, bottom = largest(forward, k), 1 / largest(back, k)
    return top, bottom, "exact" if _finite(top, bottom) else "not finite"


def extremes_by_lanczos(
    linearization: Linearization,
    x: Tensor,
    k: int = 1,
    tolerance: float = 1e-3,
    max_steps: int = 100,
    near: Directions | None = None,
) -> Extremes:
    """Returns the k largest and the k smallest singular values, (B, k) each, with a status."""
    settings = {"k": k, "tolerance": tolerance, "max_steps": max_steps}
    stretched, squeezed = (None, None) if near is None else near
    z, like = linearization.value, x.flatten(1)
    top = golub_kahan(
        flat(linearization.jv, x), flat(linearization.vjp, z), like, near=stretched, **settings
    )
    # The transpose of the inverse has its vectors in the space of x, like the map itself.
    bottom = golub_kahan(
        flat(linearization.inverse_vjp, x),
        flat(linearization.inverse_jv, z),
        like,
        near=squeezed,
        **settings,
    )
    converged = bool((top.converged & bottom.converged).all())
    status: Status = "converged" if converged else "not converged"
    if not _finite(top.values, bottom.values):
        status = "not finite"
    return Extremes(top.values, 1 / bottom.values, status, (top.vectors, bottom.vectors))


def _finite(*values: Tensor) -> bool:
    return all(bool(torch.isfinite(value).all() and (value > 0).all()) for value in values)


def flat(product: Product, like: Tensor) -> Product:
    """Returns a product of vectors (K, B, *event) as a function of flat vectors, (K, B, n)."""
    return lambda vectors: product(vectors.reshape(len(vectors), *like.shape)).flatten(2)


def all_of_both(forward: Tensor, back: Tensor) -> Tensor:
    """Returns all singular values (B, n) of a map, descending, from its matrix and its inverse."""
    # The relative error is eps s_max / s in the map and eps s / s_min in the inverse; each value
    # comes from the more accurate one. A matrix, (B, n, n), that is not finite gives nan.
    large, small = largest(forward, forward.shape[1]), 1 / largest(back, back.shape[1]).flip(1)
    middle = large[:, :1].log() + small[:, -1:].log()  # twice the log of their geometric mean
    return torch.where(large.log() + small.log() >= middle, large, small)


def largest(matrices: Tensor, k: int = 1) -> Tensor:
    """Returns the k largest singular values (B, k), descending; nan for a non-finite matrix."""
    finite = torch.isfinite(matrices).all(dim=(1, 2))
    if finite.all():
        return torch.linalg.svdvals(matrices)[:, :k]
    values = matrices.new_full((len(matrices), k), torch.nan)
    if finite.any():
        values[finite] = torch.linalg.svdvals(matrices[finite])[:, :k]
    return values
