"""The base of learned linear layers, and `Linear` with a dense matrix."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch, positive_int, real_numbers
from kappaflow.autograd.replay import without_autocast
from kappaflow.bijection import Bijection, at_each_place, log_det_dtype
from kappaflow.bijections.matrices import Dense, Matrix
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.registry import register

Numbers = Tensor | np.ndarray | Sequence


class LinearMap(Bijection):
    """Base of linear maps z = M x + shift on the features (dimension 1), the same at each pixel.

    A subclass returns M in `_form`. Products and solves use float32 or wider, even under autocast,
    so that the two directions are inverses of each other.
    """

    is_linear = True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.shift = nn.Parameter(torch.zeros(features))

    @abstractmethod
    def _form(self, dtype: torch.dtype) -> Matrix:
        """Returns M, computed from the parameters in a dtype."""

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """Returns the matrix M, (n, n), which acts on columns: z = M x + shift."""
        return self._columns(log_det_dtype(self.shift.dtype)).to(self.shift.dtype)

    @property
    def condition_number(self) -> float:
        """Ratio of the largest to the smallest singular value of M; nan if M is not finite."""
        with torch.no_grad():
            matrix = self._columns(torch.float64).cpu()
        if not torch.isfinite(matrix).all():
            return math.nan
        values = torch.linalg.svdvals(matrix)
        return (values[0] / values[-1]).item()

    def dense(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Returns M, (n, n), the shift, (n,), and log|det M| in a dtype, with their graphs."""
        form, shift = self._form(dtype), self.shift.to(dtype)
        return form.dense(shift), shift, form.log_det()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        dtype = self._dtype("x", x)
        with _full_precision(x):
            form, shift = self._form(dtype), self.shift.to(dtype)
            if x.dim() > 2:  # a dense product with the images is faster than many rows
                value = mixed(form.dense(shift), shift, x.to(dtype)).to(x.dtype)
            else:
                value = (form.times(x.to(dtype)) + shift).to(x.dtype)
            return value, _log_det(form, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        dtype = self._dtype("z", z)
        with _full_precision(z):
            form, shift = self._form(dtype), self.shift.to(dtype)
            value = _at_places(lambda rows: form.solve(rows - shift), z, dtype)
            return value, -_log_det(form, z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        dtype = self._dtype("x", x)
        with _full_precision(x):
            return _LinearMapLinearization(self._form(dtype), dtype, value, log_det)

    def _columns(self, dtype: torch.dtype) -> Tensor:
        unit = torch.eye(self.features, dtype=dtype, device=self.shift.device)
        with _full_precision(unit):
            return self._form(dtype).times(unit).mT.contiguous()

    def _dtype(self, name: str, x: Tensor) -> torch.dtype:
        """Returns the dtype of the computation, after checking the shape of x."""
        feature_batch(name, x, self.features)
        return torch.promote_types(log_det_dtype(x.dtype), self.shift.dtype)

    def extra_repr(self) -> str:
        return f"features={self.features}"


class _LinearMapLinearization(Linearization):
    """The derivative of a linear map is the map, without its shift."""

    def __init__(self, form: Matrix, dtype: torch.dtype, value: Tensor, log_det: Tensor) -> None:
        self.value, self.log_det = value, log_det
        self._form, self._transposed, self._dtype = form, form.transposed(), dtype

    def jv(self, v: Tensor) -> Tensor:
        return self._applied(self._form.times, v)

    def vjp(self, u: Tensor) -> Tensor:
        return self._applied(self._transposed.times, u)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._applied(self._form.solve, w)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._applied(self._transposed.solve, y)

    def _applied(self, product: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        points = vectors.reshape(-1, *self.value.shape[1:])
        with _full_precision(points):
            return _at_places(product, points, self._dtype).reshape(vectors.shape)


@register("Linear")
class Linear(LinearMap):
    """z = M x + shift with any matrix M, which starts as the identity.

    On images, (B, n, H, W), it is an invertible 1x1 convolution.

    Args:
        features: Number n of features (dimension 1 of the points); channels for images.

    Note:
        Training can make M singular, and the inverse then raises `NumericalError`. Each log_det
        and each inverse costs a factorization, O(n^3). `LULinear`, `QRLinear` and `SVDLinear`
        avoid both.

    Source:
        Kingma, Dhariwal 2018 (Glow), section 3.2.

    Example:
        >>> turn = Linear.of([[0.0, -1.0], [2.0, 0.0]], shift=[10.0, 0.0])
        >>> turn(torch.tensor([[3.0, 4.0]]))[0].detach()
        tensor([[6., 6.]])
        >>> turn.condition_number
        2.0
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.weight = nn.Parameter(torch.eye(features))

    @classmethod
    def of(cls, matrix: Numbers, shift: Numbers | None = None) -> "Linear":
        """Returns a layer with a given matrix and shift, which are saved like learned weights.

        Args:
            matrix: The matrix M, (n, n), which must be invertible. The layer has its dtype.
            shift: The shift, (n,); zeros by default.

        Raises:
            ArgumentError: A shape does not fit, a number is not finite, or the matrix is singular
                to the precision of its dtype.
        """
        weight, start = square_and_shift(matrix, shift)
        layer = Linear(len(weight)).to(weight)
        _check_rank(weight)
        layer.load_state_dict({"weight": weight, "shift": start})
        return layer

    def _form(self, dtype: torch.dtype) -> Matrix:
        return Dense(self.weight.to(dtype))


def _full_precision(x: Tensor) -> AbstractContextManager:
    return without_autocast(x.device.type)


def mixed(matrix: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    """Returns M r + shift for the features r at each pixel of x, (B, n, *places)."""
    flat = x.flatten(2)
    moved = torch.baddbmm(shift[:, None], matrix.expand(x.shape[0], -1, -1), flat)
    return moved.unflatten(2, x.shape[2:])


def _at_places(function: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a function of rows, (N, n), computed in `dtype` at each pixel of x, (B, n, ...)."""
    vectors = x.movedim(1, -1)
    rows = function(vectors.reshape(-1, x.shape[1]).to(dtype))
    return rows.reshape(vectors.shape).movedim(-1, 1).to(x.dtype)


def _log_det(form: Matrix, x: Tensor) -> Tensor:
    """Returns log|det M| times the number of pixels for each row of x, (B, n, ...)."""
    return at_each_place(form.log_det().to(x.device), x)


def square_and_shift(matrix: Numbers, shift: Numbers | None) -> tuple[Tensor, Tensor]:
    """Returns a checked matrix, (n, n), and shift, (n,), which is zeros by default."""
    weight = real_numbers("matrix", matrix)
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ArgumentError(f"'matrix' should be square, (n, n), got shape {tuple(weight.shape)}.")
    start = weight.new_zeros(len(weight)) if shift is None else real_numbers("shift", shift)
    if start.shape != (len(weight),):
        raise ArgumentError(
            f"'shift' should have shape ({len(weight)},), one number for each row of the "
            f"matrix, got {tuple(start.shape)}."
        )
    return weight, start


def _check_rank(matrix: Tensor) -> None:
    values = torch.linalg.svdvals(matrix.double())
    smallest = (values[-1] / values[0]).nan_to_num(0.0).item()
    if smallest <= len(matrix) * torch.finfo(matrix.dtype).eps:
        raise ArgumentError(
            "'matrix' should be invertible, but its smallest singular value is "
            f"{smallest:.2g} of the largest, which {matrix.dtype} cannot tell from zero: "
            "use a wider dtype if it has an inverse."
        )
