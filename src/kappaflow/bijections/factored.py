"""Learned linear layers in factored form, which cannot become singular: LU, QR, SVD."""

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


def reflections_of(rotation: Floats) -> Floats:
    r"""Returns vectors v_1 to v_k with :math:`H_1 \cdots H_k` equal to a rotation.

    Args:
        rotation: Orthogonal, (n, n), of determinant 1.

    Returns:
        (k, n), k being n or n - 1, whichever is even; reflections that are not needed come in
        equal pairs, which cancel.

    Source:
        Householder 1958: the QR decomposition of an orthogonal matrix, whose R is the identity
        where each reflection takes a column to an axis, not to its negative.

    Example:
        >>> reflections_of(np.array([[0.0, -1.0], [1.0, 0.0]])).shape
        (2, 2)
    """
    n = len(rotation)
    rest, found = rotation.copy(), []
    for k in range(n):
        column = rest[k:, k]
        length, below = np.linalg.norm(column), column[1:] @ column[1:]
        if below <= (np.finfo(float).eps * length) ** 2 and column[0] > 0:
            continue  # the axis already
        vector = np.zeros(n)
        vector[k:] = column
        # column[0] - length, without cancellation.
        vector[k] = -below / (column[0] + length) if column[0] > 0 else column[0] - length
        rest -= np.outer(2 * vector / (vector @ vector), vector @ rest)
        found.append(vector)
    number = n // 2 * 2
    if len(found) % 2:
        raise ArgumentError("'rotation' should have determinant 1, got a reflection.")
    pairs = np.repeat(np.eye(n), 2, axis=0)[: number - len(found)]
    return np.concatenate([np.reshape(found, (-1, n)), pairs])


REACHED = 0.95  # of the bound on logarithms, by numbers that are given


@register("LULinear")
class LULinear(LinearMap):
    r"""z = P L U x + shift, the same at each place: a fixed permutation, two learned triangles.

    L has ones on its diagonal, U positive numbers. Both are the identity at the start.

    Args:
        features: Number of features, n: dimension 1 of the points.
        seed: Of a random permutation P; the identity if left out.

    Attributes:
        triangles: (n, n): below the diagonal that of L, above it that of U, on it the logarithm of
            the diagonal of U.

    Note:
        Not every matrix is of this form: the leading minors of P^T M are positive. The random P of
        a seed is there to start elsewhere, not to be learned.

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
        lower = triangles.tril(-1) + torch.eye(self.features).to(triangles)
        return Product([
            Reordering(self.permutation.index),
            Triangular(lower, upper=False, log_det=triangles.new_zeros(())),
            _positive_triangle(triangles),
        ])


@register("QRLinear")
class QRLinear(LinearMap):
    r"""z = Q R x + shift, the same at each place: reflections Q, a triangle R.

    Q is an even number of Householder reflections, so that it is a rotation, and R has a positive
    diagonal. At the start equal reflections cancel in pairs, and R is the identity.

    Args:
        features: Number of features, n: dimension 1 of the points.
        reflections: How many, an even number. If left out n, or n - 1 where that is odd: with
            these every rotation can be had.

    Attributes:
        triangle: (n (n + 1) / 2,): the rows of R, with the logarithms of its diagonal on it.
        reflections: (reflections, n): a vector for each reflection, of any length but zero.

    Note:
        To first order at the start, n reflections turn in about three quarters of all planes, and
        2 (n - 1) in all of them.

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
    r"""z = Q_1 D Q_2 x + shift, the same at each place: a positive diagonal between reflections.

    The singular values are the numbers of D, whatever the reflections are: the condition number is
    their ratio. The identity at the start: D is, and in Q_1 and Q_2 equal reflections cancel in
    pairs.

    Args:
        features: Number of features, n: dimension 1 of the points.
        reflections: How many on either side, an even number. If left out n, or n - 1 where that is
            odd: with these every matrix of positive determinant can be had.
        condition_bound: The largest condition number that training can reach, 1 or more: numbers
            of D lie between its square root and the reciprocal of that. 1 is a rotation. None for
            no bound.
        free_scale: Leave the geometric mean of D free, and bound the ratios to it alone.

    Attributes:
        left: (reflections, n): the vectors of Q_1, of any length but zero.
        log_scale: (n,): logarithms of the diagonal, before they are bounded.
        right: (reflections, n): the vectors of Q_2.

    Note:
        With N(0, 0.3) added to all parameters at the start, 16 features, the condition number has
        the median 2.8 here, 9.8 for `QRLinear`, 27.5 for `LULinear` and 31.8 for `Linear`.

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
        """Returns a layer of bounded condition number with a matrix, or with the nearest one.

        Singular values outside condition_bound^(-0.475) to condition_bound^0.475 are moved to
        these: a little inside the bound, so that training can move them in both directions.

        Args:
            matrix: M (n, n), of positive determinant.
            shift: (n,); zeros if left out.
            condition_bound: The largest condition number that training can reach, above 1.

        Returns:
            The layer, of the type of the matrix.

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
                "'matrix' should have a positive determinant, which products of a rotation, "
                "positive numbers and a rotation have: put a permutation that exchanges two "
                "features before the layer, and exchange two columns of the matrix."
            )
        if np.linalg.det(left) < 0:  # the last pair of vectors is turned round
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
        """Returns the logarithms of D."""
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
    """Returns M (K, n, n) and log|det M| (K,) of K layers of one size, as `dense` of each.

    A few operations on stacks, where one layer after the other takes K times as many.
    """
    order, lower, upper, log_det = triangles_together(layers, dtype)
    product = lower @ upper
    return product.gather(1, order[:, :, None].expand_as(product)), log_det


def triangles_together(
    layers: Sequence[LULinear], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns P as an order (K, n), L and U (K, n, n), log|det| (K,) of K layers of one size."""
    triangles = torch.stack([layer.triangles for layer in layers]).to(dtype)
    logs = triangles.diagonal(dim1=1, dim2=2)
    lower = triangles.tril(-1) + torch.eye(triangles.shape[1]).to(triangles)
    upper = triangles.triu(1) + logs.exp().diag_embed()
    order = torch.stack([layer.permutation.index for layer in layers])
    return order, lower, upper, logs.sum(1)


def _positive_triangle(packed: Tensor) -> Triangular:
    """Returns the upper triangle whose diagonal is given by its logarithms."""
    logs = packed.diagonal()
    return Triangular(packed.triu(1) + logs.exp().diag(), upper=True, log_det=logs.sum())


def _paired_reflections(features: int, count: int | None) -> nn.Parameter:
    """Returns vectors of reflections along the axes, each twice in a row: together nothing."""
    number = features // 2 * 2 if count is None else natural_int("reflections", count)
    if number % 2:
        raise ArgumentError(
            f"'reflections' should be even, got {number}: equal ones cancel in pairs at the start."
        )
    axes = torch.arange(number) // 2 % features
    # The reflections of a single feature have no freedom.
    return nn.Parameter(torch.eye(features)[axes], requires_grad=number > 0 and features > 1)
