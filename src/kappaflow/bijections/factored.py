"""Learned linear layers in factored form (LU, QR, SVD), which cannot become singular."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow._checks import finite_float, natural_int
from kappaflow.bijections.linear import LinearMap, Numbers, square_and_shift
from kappaflow.bijections.matrices import (
    Diagonal,
    Matrix,
    Product,
    Reflections,
    Reordering,
    Triangular,
)
from kappaflow.bijections.permutation import Permutation
from kappaflow.errors import ArgumentError
from kappaflow.registry import register

Floats = np.ndarray
REACHED = 0.95  # largest part of the bound on logarithms that a given matrix may use


@register("LULinear")
class LULinear(LinearMap):
    r"""z = P L U x + shift with a fixed permutation P and learned triangles L and U.

    The diagonal of L is one, and the diagonal of U is positive. Both start as the identity.

    Args:
        features: Number n of features (dimension 1 of the points); channels for images.
        seed: Seed of a random permutation P; the identity by default.

    Attributes:
        triangles: The entries of L below the diagonal, those of U above it, and the logarithms of
            the diagonal of U on it, (n, n).

    Note:
        Not every matrix has this form, because the leading minors of P^T M are positive. A random
        P only changes the starting point; it is not learned.

    Source:
        Kingma, Dhariwal 2018 (Glow), section 3.2.

    Example:
        >>> layer = LULinear(3, seed=0)
        >>> layer(torch.tensor([[10.0, 20.0, 30.0]]))[0].detach()
        tensor([[30., 20., 10.]])
    """

    def __init__(self, features: int, seed: int | None = None) -> None:
        super().__init__(features)
        self.permutation = (
            Permutation(range(features))
            if seed is None
            else Permutation.random(features, seed=natural_int("seed", seed))
        )
        self.triangles = nn.Parameter(torch.zeros(features, features))

    def _form(self, dtype: torch.dtype) -> Matrix:
        triangles = self.triangles.to(dtype)
        lower = triangles.tril(-1) + torch.eye(
            self.features, dtype=triangles.dtype, device=triangles.device
        )
        return Product([
            Reordering(self.permutation.index),
            Triangular(lower, upper=False, log_det=triangles.new_zeros(())),
            _positive_triangle(triangles),
        ])


@register("QRLinear")
class QRLinear(LinearMap):
    r"""z = Q R x + shift with a learned rotation Q and a learned triangle R.

    Q is the product of an even number of Householder reflections, and R has a positive diagonal.
    At the start equal reflections cancel in pairs, and R is the identity.

    Args:
        features: Number n of features (dimension 1 of the points); channels for images.
        reflections: Number of reflections, which must be even. The default is n or n - 1,
            whichever is even, which is enough for every rotation.

    Attributes:
        triangle: The rows of R, with the logarithms of its diagonal, (n (n + 1) / 2,).
        reflections: The vector of each reflection, (reflections, n), of any length except zero.

    Note:
        At the start, n reflections can rotate in about three quarters of all planes to first
        order, and 2 (n - 1) reflections in all of them.

    Source:
        Hoogeboom, van den Berg, Welling 2019, Emerging convolutions for generative normalizing
        flows; reflections: Tomczak, Welling 2016, Householder flow.

    Example:
        >>> layer = QRLinear(3)
        >>> layer(torch.tensor([[10.0, 20.0, 30.0]]))[0].detach()
        tensor([[10., 20., 30.]])
    """

    def __init__(self, features: int, *, reflections: int | None = None) -> None:
        super().__init__(features)
        self.reflections = _paired_reflections(features, reflections)
        self.triangle = nn.Parameter(torch.zeros(features * (features + 1) // 2))

    def _form(self, dtype: torch.dtype) -> Matrix:
        n = self.features
        row, column = torch.triu_indices(n, n, device=self.triangle.device)
        empty = torch.zeros(n, n, dtype=dtype, device=self.triangle.device)
        packed = empty.index_put((row, column), self.triangle.to(dtype))
        return Product([Reflections(self.reflections.to(dtype)), _positive_triangle(packed)])


@register("SVDLinear")
class SVDLinear(LinearMap):
    r"""z = Q_1 D Q_2 x + shift with learned rotations Q_1 and Q_2 and a positive diagonal D.

    The singular values are the entries of D, so the condition number is the ratio of the largest
    to the smallest. The layer starts as the identity: D is the identity, and equal reflections
    cancel in pairs.

    Args:
        features: Number n of features (dimension 1 of the points); channels for images.
        reflections: Number of reflections in each of Q_1 and Q_2, which must be even. The default
            is n or n - 1, whichever is even, which is enough for every matrix with a positive
            determinant.
        condition_bound: Largest condition number that training can reach, 1 or more; None for no
            bound. The entries of D are between the square root of the bound and its reciprocal.
            With 1 the matrix is a rotation.
        free_scale: Whether the geometric mean of D is unbounded; only the ratios of its entries to
            the mean are then bounded.

    Attributes:
        left: The vectors of the reflections in Q_1, (reflections, n), of any length except zero.
        log_scale: Logarithms of the diagonal before the bound, (n,).
        right: The vectors of the reflections in Q_2, (reflections, n).

    Note:
        With N(0, 0.3) added to all parameters at the start and 16 features, the median condition
        number is 2.8 here, 9.8 for `QRLinear`, 27.5 for `LULinear` and 31.8 for `Linear`.

    Source:
        Zhang, Lei, Dhillon 2018, Stabilizing gradients for deep neural networks via efficient SVD
        parameterization.

    Example:
        >>> layer = SVDLinear(2)
        >>> with torch.no_grad():
        ...     layer.log_scale[0] = 0.6931471805599453
        >>> round(layer.condition_number, 6)
        2.0
    """

    def __init__(
        self,
        features: int,
        *,
        reflections: int | None = None,
        condition_bound: float | None = None,
        free_scale: bool = False,
    ) -> None:
        super().__init__(features)
        if condition_bound is not None and finite_float("condition_bound", condition_bound) < 1:
            raise ArgumentError(f"'condition_bound' should be at least 1, got {condition_bound}.")
        self.condition_bound, self.free_scale = condition_bound, free_scale
        self.left = _paired_reflections(features, reflections)
        learns = condition_bound != 1 or free_scale
        self.log_scale = nn.Parameter(torch.zeros(features), requires_grad=learns)
        self.right = _paired_reflections(features, reflections)

    @classmethod
    def of(
        cls, matrix: Numbers, shift: Numbers | None = None, *, condition_bound: float
    ) -> "SVDLinear":
        """Returns a layer with a bounded condition number whose matrix is M or the nearest one.

        Singular values are clipped to condition_bound^(-0.475) and condition_bound^0.475. This is
        a little inside the bound, so that training can move them in both directions.

        Args:
            matrix: The matrix M, (n, n), with a positive determinant.
            shift: The shift, (n,); zeros by default.
            condition_bound: Largest condition number that training can reach, above 1.

        Returns:
            The layer, with the dtype of the matrix.

        Raises:
            ArgumentError: A shape does not fit, a number is not finite, the determinant is not
                positive, or the bound is not above 1.

        Example:
            >>> layer = SVDLinear.of([[2.0, 0.0], [0.0, 1e-6]], condition_bound=100.0)
            >>> layer.matrix().round(decimals=2)
            tensor([[2.0000, 0.0000],
                    [0.0000, 0.1100]])
        """
        weight, start = square_and_shift(matrix, shift)
        if not finite_float("condition_bound", condition_bound) > 1:
            raise ArgumentError(f"'condition_bound' should be above 1, got {condition_bound}.")
        left, values, right = np.linalg.svd(weight.double().cpu().numpy())
        if np.linalg.det(left) * np.linalg.det(right) < 0 or not values[-1] > 0:
            raise ArgumentError(
                "'matrix' should have a positive determinant, because the layer is a product of "
                "rotations and a positive diagonal. Put a permutation that exchanges two features "
                "before the layer, and exchange the same two columns of the matrix."
            )
        if np.linalg.det(left) < 0:  # flip the sign of the last pair of singular vectors
            left[:, -1], right[-1] = -left[:, -1], -right[-1]
        layer = cls(len(weight), condition_bound=condition_bound).to(weight)
        half = math.log(condition_bound) / 2
        inside = (np.log(values) / half).clip(-REACHED, REACHED)
        numbers = {
            "left": reflections_of(left),
            "log_scale": half * np.arctanh(inside),
            "right": reflections_of(right),
        }
        state = {name: torch.from_numpy(value) for name, value in numbers.items()}
        layer.load_state_dict({"shift": start, **state})
        return layer

    def _form(self, dtype: torch.dtype) -> Matrix:
        return Product([
            Reflections(self.left.to(dtype)),
            Diagonal(self._bounded(self.log_scale.to(dtype))),
            Reflections(self.right.to(dtype)),
        ])

    def _bounded(self, log_scale: Tensor) -> Tensor:
        """Returns the bounded logarithms of D, (n,)."""
        if self.condition_bound is None:
            return log_scale
        middle = log_scale.mean() if self.free_scale else torch.zeros_like(log_scale)
        if self.condition_bound == 1:
            return middle.expand_as(log_scale)
        bound = math.log(self.condition_bound) / 2
        return middle + bound * torch.tanh((log_scale - middle) / bound)

    def extra_repr(self) -> str:
        bound = (
            "" if self.condition_bound is None else f", condition_bound={self.condition_bound:g}"
        )
        return f"{super().extra_repr()}{bound}" + (", free_scale=True" if self.free_scale else "")


def dense_together(layers: Sequence[LULinear], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns M, (K, n, n), and log|det M|, (K,), of K layers of one size."""
    order, lower, upper, log_det = triangles_together(layers, dtype)
    product = lower @ upper
    return product.gather(1, order[:, :, None].expand_as(product)), log_det


def triangles_together(
    layers: Sequence[LULinear], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns P as indices, (K, n), L and U, (K, n, n), and log|det M| of K layers."""
    triangles = torch.stack([layer.triangles for layer in layers]).to(dtype)
    logs = triangles.diagonal(dim1=1, dim2=2)
    lower = triangles.tril(-1) + torch.eye(
        triangles.shape[1], dtype=triangles.dtype, device=triangles.device
    )
    upper = triangles.triu(1) + logs.exp().diag_embed()
    order = torch.stack([layer.permutation.index for layer in layers])
    return order, lower, upper, logs.sum(1)


def reflections_of(rotation: Floats) -> Floats:
    r"""Returns vectors v_1 to v_k, k even, with :math:`H_1 \cdots H_k` equal to a rotation."""
    # The QR decomposition of Householder 1958: R is the identity if each reflection maps a column
    # to an axis and not to its negative. Unneeded reflections come in equal pairs, which cancel.
    n = len(rotation)
    rest, planes = rotation.copy(), []
    for k in range(n):
        column = rest[k:, k]
        length, below = np.linalg.norm(column), column[1:] @ column[1:]
        if below <= (np.finfo(float).eps * length) ** 2 and column[0] > 0:
            continue  # the column already is the axis
        vector = np.zeros(n)
        vector[k:] = column
        # column[0] - length, without cancellation.
        vector[k] = -below / (column[0] + length) if column[0] > 0 else column[0] - length
        rest -= np.outer(2 * vector / (vector @ vector), vector @ rest)
        planes.append(vector)
    number = n // 2 * 2
    if len(planes) % 2:
        raise ArgumentError("'rotation' should have determinant 1, got a reflection.")
    pairs = np.repeat(np.eye(n), 2, axis=0)[: number - len(planes)]
    return np.concatenate([np.reshape(planes, (-1, n)), pairs])


def _positive_triangle(packed: Tensor) -> Triangular:
    """Returns the upper triangle of a matrix that holds the logarithms of the diagonal."""
    logs = packed.diagonal()
    return Triangular(packed.triu(1) + logs.exp().diag(), upper=True, log_det=logs.sum())


def _paired_reflections(features: int, count: int | None) -> nn.Parameter:
    """Returns vectors of reflections along the axes; each comes twice, so that pairs cancel."""
    number = features // 2 * 2 if count is None else natural_int("reflections", count)
    if number % 2:
        raise ArgumentError(
            f"'reflections' should be even, got {number}: equal ones cancel in pairs at the start."
        )
    axes = torch.arange(number) // 2 % features
    # The reflections of a single feature have no freedom.
    return nn.Parameter(torch.eye(features)[axes], requires_grad=number > 0 and features > 1)
