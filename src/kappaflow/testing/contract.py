"""What `check_bijection` and `check_flow` compare with: Jacobians by plain autograd, tolerances.

A law is one property that they test, such as that log_det is log|det| of the Jacobian.
`bijections.py` and `flows.py` hold the laws; `require` and `require_close` raise their errors.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection
from kappaflow.conditioning import TRUSTED
from kappaflow.errors import KappaflowError

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
M = TypeVar("M", bound=nn.Module)

SAFETY = 10.0  # factor of all tolerances; the worst row of correct flows needs 5 (measured)
OUTPUTS_AT_ONCE = 64  # rows of a Jacobian in one backward pass


class ContractError(KappaflowError, AssertionError):
    """A law does not hold; the message names the law, the error and the tolerance."""


@dataclass(frozen=True)
class ReferenceJacobian:
    """One direction of a bijection at B points, with tolerances for rounding."""

    points: Tensor  # inputs (B, *event)
    value: Tensor
    log_det: Tensor  # as the bijection returns it, (B,)
    jacobian: Tensor  # by plain autograd, (B, n, n) in float64
    singular_values: Tensor  # of the Jacobian, descending, (B, n)

    @property
    def eps(self) -> float:
        """Machine epsilon of the dtype."""
        return torch.finfo(self.points.dtype).eps

    @property
    def condition_number(self) -> Tensor:
        """Largest over smallest singular value, (B,)."""
        return self.singular_values[:, 0] / self.singular_values[:, -1]

    @property
    def value_tolerance(self) -> Tensor:
        """Tolerance of values, (B,): 10 eps max(sigma_max |x|, |z|).

        A shift can make |z| the larger one. Each row has at least the tolerance of the median row,
        because a row near zero may have intermediate values as large as those of the others.
        """
        largest_product = self.singular_values[:, 0] * norm(self.points)
        size = torch.maximum(largest_product, norm(self.value))
        return SAFETY * self.eps * torch.maximum(size, size.median())

    @property
    def round_trip_tolerance(self) -> Tensor:
        """Tolerance of round trips, (B,): 10 eps max(kappa |x|, |z| / sigma_min)."""
        return self.value_tolerance / self.singular_values[:, -1]

    @property
    def log_det_tolerance(self) -> Tensor:
        """Tolerance of log_det in nats, (B,): 10 eps kappa (1 + sum |log s|)."""
        size = 1 + self.singular_values.log().abs().sum(1)
        return SAFETY * self.eps * self.condition_number * size

    @property
    def true_log_det(self) -> Tensor:
        """Log|det| of the dense Jacobian in nats, (B,)."""
        return torch.linalg.slogdet(self.jacobian).logabsdet  # sigma_min would add rounding


def reference_jacobian(
    name: str, function: Map, points: Tensor, context: Tensor | None
) -> ReferenceJacobian:
    """Returns values and dense Jacobians; raises ContractError if rounding could hide errors."""
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
    result = ReferenceJacobian(points, value, log_det, jacobian, torch.linalg.svdvals(jacobian))
    worst = (result.condition_number * result.eps).nan_to_num(torch.inf).max().item()
    require(
        worst < TRUSTED,
        f"{name} is not testable in {points.dtype} at these rows: eps * condition number is "
        f"{worst:.2g} and should be below {TRUSTED:g}; use a wider dtype or other rows",
    )
    return result


def dense_jacobian(function: Map, points: Tensor, context: Tensor | None) -> Tensor:
    """Returns the Jacobians (B, n, n) in float64 by plain autograd."""
    with torch.enable_grad():
        x = points.detach().clone().requires_grad_()
        return jacobian_of(function, x, context).double()


def jacobian_of(
    function: Map, x: Tensor, context: Tensor | None, *, differentiable: bool = False
) -> Tensor:
    """Returns the Jacobians (B, n, n) of the value by x, many outputs in one backward pass."""
    n, rows = x[0].numel(), []
    for outputs in torch.arange(n).split(OUTPUTS_AT_ONCE):
        k = len(outputs)
        copies = x.repeat(k, *[1] * (x.ndim - 1))
        value, _ = function(copies, None if context is None else context.repeat(k, 1))
        own = value.reshape(k, len(x), n)[torch.arange(k), :, outputs]
        derivative = gradient(own.sum(), copies, differentiable=differentiable)
        rows.append(derivative.reshape(k, len(x), n))
    return torch.cat(rows).transpose(0, 1)


def gradient(output: Tensor, x: Tensor, *, differentiable: bool = False) -> Tensor:
    """Returns d output / d x, zero if the output does not depend on x."""
    if not output.requires_grad:
        return torch.zeros_like(x)
    result = torch.autograd.grad(
        output, x, retain_graph=True, create_graph=differentiable, allow_unused=True
    )[0]
    return torch.zeros_like(x) if result is None else result


class LogDetGradients:
    """The gradients of the log_det of one direction, and the same gradients in two other ways.

    `own` are those by the inputs "x" and each parameter, by name, and `by_other` those of minus
    the log_det of the other direction at the output.
    """

    @torch.enable_grad()
    def __init__(
        self, bijection: Bijection, name: str, other: str, points: Tensor, context: Tensor | None
    ) -> None:
        self._name, self._context = name, context
        self._function = getattr(bijection, name)
        self._x = points.detach().clone().requires_grad_()
        parameters = {k: v for k, v in bijection.named_parameters() if v.requires_grad}
        self._leaves = {"x": self._x, **parameters}
        self.value, log_det = self._function(self._x, context)
        self.own = gradients_by(self._leaves, log_det)
        back_log_det = getattr(bijection, other)(self.value, context)[1]
        self.by_other = gradients_by(self._leaves, -back_log_det)

    @functools.cached_property
    def jacobian(self) -> Tensor:
        """The dense Jacobians (B, n, n), with their graph if there is one."""
        with torch.enable_grad():
            return jacobian_of(self._function, self._x, self._context, differentiable=True)

    @functools.cached_property
    def dense(self) -> dict[str, Tensor] | None:
        """Gradients of log|det| of the dense Jacobians; None if they have no derivative."""
        if not self.jacobian.requires_grad:
            return None
        try:
            with torch.enable_grad():
                log_det = torch.linalg.slogdet(self.jacobian).logabsdet
                return gradients_by(self._leaves, log_det)
        except RuntimeError:  # a function without second derivatives
            return None

    def breach(self, reference: dict[str, Tensor], allowed: float) -> str:
        """Returns a message if the gradients differ from a reference, else an empty text."""
        for leaf, expected in reference.items():
            error = (self.own[leaf] - expected).double().norm().item()
            limit = allowed * (1 + expected.double().norm().item())
            if not error <= limit:
                return (
                    f"the log_det of {self._name} should have the gradient of log|det| of its "
                    f"Jacobian with respect to {leaf}: off by {error:.3g}, where {limit:.3g} is "
                    "allowed. A log_det that is detached or computed under no_grad has none"
                )
        return ""


def gradients_by(leaves: dict[str, Tensor], output: Tensor) -> dict[str, Tensor]:
    """Returns the gradients of the sum of an output; zero for leaves it does not depend on."""
    gradients: Sequence[Tensor | None] = [None] * len(leaves)
    if output.requires_grad:
        gradients = torch.autograd.grad(
            output.sum(), list(leaves.values()), retain_graph=True, allow_unused=True
        )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), gradients, strict=True)
    }


def require(holds: bool | Tensor, law: str) -> None:
    """Raises `ContractError` with the law unless it holds."""
    if not holds:
        raise ContractError(f"{law}.")


def require_close(law: str, actual: Tensor, expected: Tensor, tolerance: Tensor) -> None:
    """Raises `ContractError` unless each row is within its tolerance (B,) of the expected one."""
    error = norm(actual.double() - expected.double())
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
    """Returns a digest of the state and the training flags of a module."""
    sha = hashlib.sha256(repr([part.training for part in module.modules()]).encode())
    for name, tensor in module.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def jittered(module: M, *, seed: int = 0) -> M:
    """Returns the module with noise on its parameters: a start at zero would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.1 * noise.to(parameter)
    return module
