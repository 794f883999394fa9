"""Extreme singular values of the Jacobian of a bijection, and with them its condition number."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kappaflow._checks import one_of, positive_float, positive_int
from kappaflow.bijection import Bijection
from kappaflow.conditioning.jacobian import dense, flat, largest
from kappaflow.conditioning.lanczos import golub_kahan
from kappaflow.conditioning.points import checked_points, measuring
from kappaflow.conditioning.wide import in_float64
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization

# Dimensions above which "auto" forms no matrix. Measured on 8 couplings with hidden layers of 128,
# dense to Lanczos in ms: 64 dimensions, 1, 16 and 128 points, 4:15, 21:27, 287:72; 128 dimensions
# 8:16, 65:33, 635:108; 256 dimensions 25:17, 333:45, 2900:196.
MATRIX_FREE_ABOVE = 128
DENSE_UP_TO = 500  # dimensions up to which it is bearable to form one where nothing else will do

Status = Literal["exact", "converged", "not converged", "not finite"]
Directions = tuple[Tensor, Tensor]  # (B, k, n) each: those stretched most, and those least


class Extremes(NamedTuple):
    """Singular values at both ends, (B, k) each, how they were found, and their directions."""

    top: Tensor
    bottom: Tensor
    status: Status
    directions: Directions


@dataclass(frozen=True)
class Spectrum:
    """The extreme singular values of dz/dx at B points.

    Attributes:
        sigma_max: The largest (B,), or the k largest in descending order (B, k); latent units per
            data unit.
        sigma_min: The smallest (B,), or the k smallest in ascending order (B, k). Always from the
            inverse map, where it is the reciprocal of a largest singular value: read off the
            Jacobian itself it is lost to rounding once the condition number passes 1 / eps.
        status: "exact" (dense), "converged" (to the tolerance), "not converged", or "not finite".
        method: "dense" or "lanczos".
    """

    sigma_max: Tensor
    sigma_min: Tensor
    status: Status
    method: str

    @property
    def condition_number(self) -> Tensor:
        """sigma_max / sigma_min, a pure number >= 1, (B,)."""
        if self.sigma_max.dim() == 1:
            return self.sigma_max / self.sigma_min
        return self.sigma_max[:, 0] / self.sigma_min[:, 0]


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
        bijection: What is measured, exactly as given: units included.
        x: Points, (B, *event).
        context: (B, C), where the bijection is conditional.
        k: How many values at each end.
        method: "dense" (all singular values, by n products each way), "lanczos" (no matrix is
            formed), or "auto": dense up to 128 dimensions.
        tolerance: Relative accuracy asked of "lanczos".
        max_steps: Most steps of "lanczos"; a result that needs more says "not converged".

    Returns:
        The values in float64, with a status.

    Raises:
        ArgumentError: An argument is out of its range, x or context cannot be measured at, or a
            flow was given instead of a bijection.

    Note:
        Measured in evaluation mode, by a copy in float64 at the same points: rounding of a
        narrower type moves nothing. Where there can be no copy, or none in float64, the bijection
        itself is measured in its own type. Its mode and state are left as they were.

    Source:
        Golub, Kahan 1965 for the matrix-free route.

    Example:
        >>> import math
        >>> from kappaflow import ElementwiseAffine
        >>> stretch = ElementwiseAffine(2, log_scale=[math.log(8.0), math.log(0.5)])
        >>> spectrum(stretch, torch.zeros(1, 2)).condition_number.round(decimals=4)
        tensor([16.], dtype=torch.float64)
    """
    if not isinstance(bijection, Bijection):
        raise ArgumentError(
            f"'bijection' should be a Bijection, got {type(bijection).__name__}: "
            "of a flow, pass flow.bijection, or flow.core to leave the units of the data out."
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
    return Spectrum(top, bottom, status, method)


def _dense(linearization: Linearization, x: Tensor, k: int) -> tuple[Tensor, Tensor, Status]:
    top = largest(dense(linearization.jv, x), k)
    bottom = 1 / largest(dense(linearization.inverse_jv, linearization.value), k)
    return top, bottom, "exact" if _finite(top, bottom) else "not finite"


def extremes_by_lanczos(
    linearization: Linearization,
    x: Tensor,
    k: int = 1,
    tolerance: float = 1e-3,
    max_steps: int = 100,
    near: Directions | None = None,
) -> Extremes:
    """Returns the k largest (B, k) and the k smallest (B, k) singular values, and how it went.

    Args:
        linearization: Of the map at the points.
        x: The points.
        k: How many values at each end.
        tolerance: As for `golub_kahan`; so is max_steps.
        max_steps: At most so many steps.
        near: The directions of another map at these points, which is much like this one.

    Returns:
        Values, status, and the directions of x that they belong to.
    """
    settings = {"k": k, "tolerance": tolerance, "max_steps": max_steps}
    stretched, squeezed = (None, None) if near is None else near
    z, like = linearization.value, x.flatten(1)
    top = golub_kahan(
        flat(linearization.jv, x), flat(linearization.vjp, z), like, near=stretched, **settings
    )
    # Of the transpose of the inverse, whose vectors belong to x as those of the map itself do.
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
