"""What the laws are measured with: dense Jacobians by plain autograd, and their tolerances."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow.conditioning import TRUSTED
from kappaflow.errors import KappaflowError

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
M = TypeVar("M", bound=nn.Module)

SAFETY = 10.0  # measured: the worst point of right flows needs 5


class ContractError(KappaflowError, AssertionError):
    """A law does not hold; the text names the law, the number and the tolerance."""


@dataclass(frozen=True)
class Reference:
    """One direction of a bijection at B points, and what rounding may do to it there.

    Attributes:
        points: (B, *event).
        value: (B, *event), the image of the points.
        log_det: As the bijection says, (B,).
        jacobian: By plain autograd, (B, n, n), in float64.
        singular_values: Of the Jacobian, descending, (B, n).
    """

    points: Tensor
    value: Tensor
    log_det: Tensor
    jacobian: Tensor
    singular_values: Tensor

    @property
    def eps(self) -> float:
        """Spacing of the floating-point type."""
        return torch.finfo(self.points.dtype).eps

    @property
    def condition_number(self) -> Tensor:
        """Largest over smallest singular value, (B,)."""
        return self.singular_values[:, 0] / self.singular_values[:, -1]

    @property
    def value_tolerance(self) -> Tensor:
        """For values: 10 eps sigma_max |x|, or 10 eps |z| where a shift makes it larger, (B,).

        At least that of the median point: one near zero has numbers of the size of the others' on
        its way.
        """
        size = torch.maximum(self._reach, norm(self.value))
        return SAFETY * self.eps * torch.maximum(size, size.median())

    @property
    def round_trip_tolerance(self) -> Tensor:
        """10 eps kappa |x|, or 10 eps |z| / sigma_min where a shift makes that larger, (B,)."""
        return self.value_tolerance / self.singular_values[:, -1]

    @property
    def log_det_tolerance(self) -> Tensor:
        """10 eps kappa (1 + sum |log s|) in nats, (B,)."""
        size = 1 + self.singular_values.log().abs().sum(1)
        return SAFETY * self.eps * self.condition_number * size

    @property
    def true_log_det(self) -> Tensor:
        """Log|det| of the dense Jacobian in nats, (B,)."""
        return torch.linalg.slogdet(self.jacobian).logabsdet  # not by sigma_min, which rounds

    @property
    def _reach(self) -> Tensor:
        return self.singular_values[:, 0] * norm(self.points)


def reference(name: str, function: Map, points: Tensor, context: Tensor | None) -> Reference:
    """Returns a function with its dense Jacobian at the points, if they are fit for testing.

    Args:
        name: Of the function, for the messages.
        function: `forward` or `inverse`.
        points: (B, *event).
        context: (B, C), or None.

    Returns:
        The reference.

    Raises:
        ContractError: A value is not finite, or rounding would hide every error at some point.
    """
    with torch.no_grad():
        value, log_det = function(points, context)
    for what, tensor in (("value", value), ("log_det", log_det)):
        require(
            torch.isfinite(tensor).all(), f"the {what} of {name} should be finite, got nan or inf"
        )
    jacobian = dense_jacobian(function, points, context)
    require(
        torch.isfinite(jacobian).all(), f"the Jacobian of {name} should be finite, got nan or inf"
    )
    found = Reference(points, value, log_det, jacobian, torch.linalg.svdvals(jacobian))
    worst = (found.condition_number * found.eps).nan_to_num(torch.inf).max().item()
    require(
        worst < TRUSTED,
        f"{name} is not testable in {points.dtype} at these points: eps * condition number is "
        f"{worst:.2g}, which should be below {TRUSTED:g}; take a wider type or other points",
    )
    return found


def dense_jacobian(function: Map, points: Tensor, context: Tensor | None) -> Tensor:
    """Returns the matrices (B, n, n) in float64, a row at a time, by plain autograd."""
    with torch.enable_grad():
        x = points.detach().clone().requires_grad_()
        return jacobian_of(function(x, context)[0], x).double()


def jacobian_of(value: Tensor, x: Tensor, *, differentiable: bool = False) -> Tensor:
    """Returns the matrices (B, n, n) of a value by x, whose rows do not depend on each other."""
    outputs = value.flatten(1).sum(0)
    rows = [gradient(output, x, differentiable=differentiable).flatten(1) for output in outputs]
    return torch.stack(rows, 1)


def gradient(output: Tensor, x: Tensor, *, differentiable: bool = False) -> Tensor:
    """Returns d output / d x, zero where there is no path."""
    if not output.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(
        output, x, retain_graph=True, create_graph=differentiable, allow_unused=True
    )[0]
    return torch.zeros_like(x) if found is None else found


def require(holds: bool | Tensor, law: str) -> None:
    """Raises `ContractError` with the law unless it holds."""
    if not holds:
        raise ContractError(f"{law}.")


def require_close(law: str, found: Tensor, wanted: Tensor, tolerance: Tensor) -> None:
    """Raises `ContractError` unless each row of `found` is within `tolerance` (B,) of `wanted`."""
    error = norm(found.double() - wanted.double())
    if (error <= tolerance).all():
        return
    row = int((error / tolerance).nan_to_num(torch.inf).argmax())
    raise ContractError(
        f"{law}: off by {error[row]:.3g} at row {row}, where {tolerance[row]:.3g} is allowed."
    )


def norm(x: Tensor) -> Tensor:
    """Returns the Euclidean norm of each row in float64, (B,)."""
    return x.double().reshape(len(x), -1).norm(dim=1)


def fingerprint(module: nn.Module) -> str:
    """Returns a digest of names and bytes of the state, and of the training flags."""
    sha = hashlib.sha256(repr([part.training for part in module.modules()]).encode())
    for name, tensor in module.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def jittered(module: M, *, seed: int = 0) -> M:
    """Returns the module, its parameters moved in place by noise: zero starts hide much."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.1 * noise.to(parameter)
    return module
