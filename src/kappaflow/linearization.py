"""The derivative of a bijection at points as four products, without forming a Jacobian."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kappaflow.autograd.checkpoint import twice_differentiable

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
Product = Callable[[Tensor], Tensor]
ROWS_AT_ONCE = 8192  # points times vectors in one product, to bound memory
SOFTMAX = {  # functions of torch that compute one
    getattr(home, name)
    for home in (torch, Tensor, functional)
    for name in (
        "softmax", "log_softmax", "logsumexp", "softmin", "gumbel_softmax",
        "scaled_dot_product_attention", "multi_head_attention_forward",
    )
    if hasattr(home, name)
}  # fmt: skip
ADJOINT_TOLERANCE = 1e-3  # relative; rounding errors are far below, missing derivatives far above


class Linearization(ABC):
    """The derivative J = dz/dx of z = f(x), and of its inverse, at the points x.

    The vectors v and y have the shape of x, (B, *event), or (K, B, *event) for K vectors per
    point. The vectors u and w have the shape of z, which may differ. The laws: `jv(v)` is J v and
    `vjp(u)` is J^T u; `inverse_jv(w)` is J^-1 w and `inverse_vjp(y)` is J^-T y, both computed from
    the inverse map at z. The products are differentiable.

    Attributes:
        value: The output z = f(x), (B, *event).
        log_det: log|det J| in nats, (B,).
    """

    value: Tensor
    log_det: Tensor

    @abstractmethod
    def jv(self, v: Tensor) -> Tensor:
        """Returns J v."""

    @abstractmethod
    def vjp(self, u: Tensor) -> Tensor:
        """Returns J^T u."""

    @abstractmethod
    def inverse_jv(self, w: Tensor) -> Tensor:
        """Returns J^-1 w."""

    @abstractmethod
    def inverse_vjp(self, y: Tensor) -> Tensor:
        """Returns J^-T y."""

    def matrix(self, x: Tensor) -> Tensor:
        """Returns J in float64, (B, n, n), without gradients; the entries of a point are in order.

        Args:
            x: The points.
        """
        return dense(self.jv, x)

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns J as `matrix` does, and J^-1."""
        return self.matrix(x), dense(self.inverse_jv, self.value)


def dense(product: Product, x: Tensor) -> Tensor:
    """Returns the float64 matrices (B, n, n) of a product with vectors shaped as x (B, *event).

    The result of the product may have another shape with n numbers; they are used in order.
    """
    basis = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    return columns(product, basis, x)


def columns(product: Product, vectors: Tensor, x: Tensor) -> Tensor:
    """Returns the float64 products (B, n, k) with flat vectors (k, n), the same at all points."""
    parts = []
    for some in vectors.split(max(1, ROWS_AT_ONCE // max(1, len(x)))):
        tangents = some.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
        parts.append(product(tangents).detach().flatten(2).double())
    return torch.cat(parts).permute(1, 2, 0)


class AutogradLinearization(Linearization):
    """The four products by automatic differentiation, in forward mode where it is supported."""

    def __init__(self, encode: Map, decode: Map, x: Tensor, context: Tensor | None) -> None:
        self._encode, self._decode = encode, decode
        self._x, self._context = x, context
        with twice_differentiable():
            self.value, self.log_det = encode(x, context)

    def jv(self, v: Tensor) -> Tensor:
        return pushed_forward(self._encode, self._x, self._context, v)

    def vjp(self, u: Tensor) -> Tensor:
        return pulled_back(self._encode, self._x, self._context, u, self.value)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return pushed_forward(self._decode, self.value, self._context, w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return pulled_back(self._decode, self.value, self._context, y, self._x)


class ElementwiseLinearization(Linearization):
    """Linearization of an elementwise map, whose Jacobian is diagonal.

    `slope` is dz/dx of each entry, in a shape that broadcasts with x, and `inverse_slope` is
    dx/dz, computed by the inverse map.
    """

    def __init__(
        self, value: Tensor, log_det: Tensor, slope: Tensor, inverse_slope: Tensor
    ) -> None:
        self.value, self.log_det = value, log_det
        self._slope, self._inverse_slope = slope, inverse_slope

    def jv(self, v: Tensor) -> Tensor:
        return (v * self._slope).to(v.dtype)

    def vjp(self, u: Tensor) -> Tensor:
        return (u * self._slope).to(u.dtype)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return (w * self._inverse_slope).to(w.dtype)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return (y * self._inverse_slope).to(y.dtype)


class ChainLinearization(Linearization):
    """Linearization of a composition, given its parts in the order of application."""

    def __init__(self, parts: list[Linearization], value: Tensor, log_det: Tensor) -> None:
        self.parts, self.value, self.log_det = parts, value, log_det

    def jv(self, v: Tensor) -> Tensor:
        for part in self.parts:
            v = part.jv(v)
        return v

    def vjp(self, u: Tensor) -> Tensor:
        for part in reversed(self.parts):
            u = part.vjp(u)
        return u

    def inverse_jv(self, w: Tensor) -> Tensor:
        for part in reversed(self.parts):
            w = part.inverse_jv(w)
        return w

    def inverse_vjp(self, y: Tensor) -> Tensor:
        for part in self.parts:
            y = part.inverse_vjp(y)
        return y

    def matrix(self, x: Tensor) -> Tensor:
        product = _identity(x)
        for part in self.parts:
            product, x = part.matrix(x) @ product, part.value
        return product

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        product, inverse = _identity(x), _identity(x)
        for part in self.parts:
            matrix, back = part.matrices(x)
            product, inverse, x = matrix @ product, inverse @ back, part.value
        return product, inverse


def _identity(x: Tensor) -> Tensor:
    n = x.shape[1:].numel()
    return torch.eye(n, dtype=torch.float64, device=x.device).expand(len(x), n, n)


class InverseLinearization(Linearization):
    """Linearization of the inverse map: the derivative of x as a function of z."""

    def __init__(self, inner: Linearization, value: Tensor, log_det: Tensor) -> None:
        self.inner, self.value, self.log_det = inner, value, log_det

    def jv(self, v: Tensor) -> Tensor:
        return self.inner.inverse_jv(v)

    def vjp(self, u: Tensor) -> Tensor:
        return self.inner.inverse_vjp(u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self.inner.jv(w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self.inner.vjp(y)

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        back, forward = self.inner.matrices(self.value)
        return forward, back


class RearrangedLinearization(Linearization):
    """Linearization of a map that rearranges entries, whose inverse is its transpose.

    `there` is the map, on (N, *event) for any N, and `back` its inverse.
    """

    def __init__(
        self, x: Tensor, forward: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> None:
        self.value = forward(x)
        self.log_det = x.new_zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32))
        self._there, self._back = forward, back
        self._dims = x.dim() - 1, self.value.dim() - 1

    def jv(self, v: Tensor) -> Tensor:
        return at_points(self._there, v, self._dims[0])

    def vjp(self, u: Tensor) -> Tensor:
        return at_points(self._back, u, self._dims[1])

    def inverse_jv(self, w: Tensor) -> Tensor:
        return at_points(self._back, w, self._dims[1])

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return at_points(self._there, y, self._dims[0])


def beside_features(numbers: Tensor, x: Tensor) -> Tensor:
    """Returns numbers, (C,), in a shape that broadcasts with the features of x, (B, C, ...)."""
    return numbers.view(-1, *(1,) * (x.dim() - 2))


def at_points(function: Callable[[Tensor], Tensor], vectors: Tensor, dims: int) -> Tensor:
    """Returns the result of a function of rows, (N, *event), at vectors with any leading shape."""
    lead = vectors.shape[: vectors.dim() - dims]
    pushed = function(vectors.reshape(-1, *vectors.shape[len(lead) :]))
    return pushed.reshape(*lead, *pushed.shape[1:])


def pushed_forward(function: Map, x: Tensor, context: Tensor | None, v: Tensor) -> Tensor:
    """Returns the derivative of `function` at x in the direction v, by forward-mode AD.

    If part of the function has no forward mode, or none that has derivatives where gradients are
    enabled, the derivative of the pullback is used. If part of
    it has only first derivatives, such as an inverse found by a search, the rows of the Jacobian
    are used.
    """
    rows, rows_context, vector, lead = _pair(x, context, v, x)
    _load_forward_mode()
    try:
        with twice_differentiable(), forward_ad.dual_level(), _refusing_softmax():
            value = function(forward_ad.make_dual(rows, vector), rows_context)[0]
            primal, tangent = forward_ad.unpack_dual(value)
            result = torch.zeros_like(primal) if tangent is None else tangent
    except RuntimeError:
        # Some functions have no forward mode; a genuine error is raised again on this path.
        result = _pushed_by_double_vjp(function, rows, rows_context, vector)
        if result is None:
            return _pushed_by_rows(function, x, context, v.reshape(-1, *x.shape), lead)
    return result.reshape(*lead, len(x), *result.shape[1:])


class _RefusingSoftmax(TorchFunctionMode):
    """Raises an error where torch computes a softmax.

    Its derivative in forward mode works in place, so that autograd cannot differentiate it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in SOFTMAX:
            raise RuntimeError(f"{func.__name__} has no differentiable forward mode")
        return func(*args, **(kwargs or {}))


def _refusing_softmax() -> AbstractContextManager[object]:
    return _RefusingSoftmax() if torch.is_grad_enabled() else nullcontext()


@cache
def _load_forward_mode() -> None:
    """Lets torch load its forward mode, which warns of a deprecated function that torch calls."""
    with warnings.catch_warnings(action="ignore"), forward_ad.dual_level():
        pass


def _pushed_by_double_vjp(
    function: Map, x: Tensor, context: Tensor | None, v: Tensor
) -> Tensor | None:
    """Returns J v as the derivative of the linear map u -> J^T u applied to v; None if wrong.

    Autograd silently leaves out a derivative that it cannot differentiate again. This is detected
    by comparing w . J v with v . J^T w for another vector w.
    """
    with torch.enable_grad(), twice_differentiable():
        point = x if x.requires_grad else x.detach().requires_grad_()
        value = function(point, context)[0]
        u = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, point, u, create_graph=True)[0]
        if not pulled.requires_grad:
            return None
        pushed = torch.autograd.grad(pulled, u, v, create_graph=True, allow_unused=True)[0]
        if pushed is None:
            return None
        w = torch.linspace(-1, 1, value[0].numel(), dtype=value.dtype, device=value.device) + 0.1
        w = w.reshape(value[0].shape).expand_as(value)
        back = torch.autograd.grad(value, point, w, retain_graph=True)[0]
    first, other = (w * pushed).flatten(1).detach(), (v * back).flatten(1)
    size = first.abs().sum(1) + other.abs().sum(1)
    agree = (first.sum(1) - other.sum(1)).abs() <= ADJOINT_TOLERANCE * size
    return pushed if bool((agree | ~torch.isfinite(size)).all()) else None


def _pushed_by_rows(
    function: Map, x: Tensor, context: Tensor | None, v: Tensor, lead: torch.Size
) -> Tensor:
    """Returns J v for vectors v, (K, B, *event), from the rows of J, with one pullback each."""
    with torch.enable_grad(), twice_differentiable():
        point = x.detach().requires_grad_()
        value = function(point, context)[0]
        entries = value.flatten(1)
        products = [
            (v * torch.autograd.grad(entry.sum(), point, retain_graph=True)[0]).flatten(2).sum(2)
            for entry in entries.unbind(1)
        ]
    return torch.stack(products, -1).reshape(*lead, *value.shape)


def pulled_back(
    function: Map, x: Tensor, context: Tensor | None, u: Tensor, value: Tensor
) -> Tensor:
    """Returns J^T u for the Jacobian J of `function` at x, given its value at x."""
    rows, rows_context, vector, lead = _pair(x, context, u, value)
    keep = torch.is_grad_enabled()
    with twice_differentiable(), torch.enable_grad():
        point = rows if rows.requires_grad else rows.detach().requires_grad_()
        image = function(point, rows_context)[0]
        pulled = torch.autograd.grad(image, point, vector, create_graph=keep)[0]
    return pulled.reshape(*lead, *x.shape)


def _pair(
    x: Tensor, context: Tensor | None, v: Tensor, like: Tensor
) -> tuple[Tensor, Tensor | None, Tensor, torch.Size]:
    """Returns points, contexts and vectors with the same number of rows, and their leading shape.

    For K vectors per point, points are repeated. `like` has the shape of x or of its image.
    """
    lead = v.shape[: v.dim() - like.dim()]
    if not lead:
        return x, context, v, lead
    rows = x.repeat(*lead, *[1] * (x.dim() - 1))
    rows_context = None if context is None else context.repeat(*lead, 1)
    return rows, rows_context, v.reshape(-1, *like.shape[1:]), lead
