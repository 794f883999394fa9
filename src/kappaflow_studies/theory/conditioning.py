"""How well conditioned the couplings of a linear map can be: bounds from below and from above."""

import numpy as np
from numpy.linalg import cond, inv, norm, slogdet, svd

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.factor.problem import square_floats
from kappaflow_studies.theory.exact import Array


def scaled_lower_bound(matrix: object, couplings: int) -> float:
    r"""Returns a lower bound for the largest condition number of m couplings with one scale each.

    At determinant 1 it is :math:`\max(|T|, |T^{-1}|)^{2/m}`, at least the
    :math:`\kappa(T)^{1/m}` of `min_condition_number`.

    Args:
        matrix: T, (n, n) with even n, invertible; it is divided by :math:`|\det T|^{1/n}`.
        couplings: The number m of couplings, which alternate between equal halves.

    Raises:
        ArgumentError: The matrix is not square, has odd size, or is singular.

    Source:
        Ours.

    Example:
        >>> round(scaled_lower_bound(np.diag([1.0, 1.0, 1.0, 1e-4]), 6), 6)  # kappa = 1e4
        10.0
    """
    values = svd(_unit(matrix), compute_uv=False)
    return float(max(values[0], 1 / values[-1])) ** (2 / positive_int("couplings", couplings))


def additive_lower_bound(matrix: object, couplings: int) -> float:
    r"""Returns a lower bound for the largest condition number of m additive couplings.

    With an L on the left and a U on the right it is :math:`\max(|T_{11}|,
    |(T^{-1})_{22}|)^{2/(m-2)}` for even m, since the outer two leave these blocks unchanged; with
    exchanged halves likewise. The smaller bound of the two orders is returned.

    Args:
        matrix: T, (n, n) with even n, of determinant 1 after division by its scale.
        couplings: The number m of couplings, even and at least 4.

    Raises:
        ArgumentError: The matrix is not square, has odd size, or is singular; or m is odd, or
            below 4.

    Source:
        Ours.

    Example:
        >>> t = 1e4  # the smallest singular values are in both halves
        >>> T = np.diag([1.0, 1.0, 1.0, 1 / t, 1.0, 1.0, 1.0, 1 / t])
        >>> round(additive_lower_bound(T, 6) / t ** (3 / 8), 9)
        1.0
    """
    if positive_int("couplings", couplings) < 4 or couplings % 2:
        raise ArgumentError(f"'couplings' should be even and at least 4, got {couplings}.")
    unit = _unit(matrix)
    inverse, d = inv(unit), len(unit) // 2
    lower_first = max(norm(unit[:d, :d], 2), norm(inverse[d:, d:], 2))
    upper_first = max(norm(unit[d:, d:], 2), norm(inverse[:d, :d], 2))
    return max(1.0, float(min(lower_first, upper_first))) ** (2 / (couplings - 2))


def outlier_lower_bound(matrix: object, couplings: int = 6) -> float:
    r"""Returns a lower bound for the largest condition number of m couplings with one scale each.

    The first and the last coupling only scale some columns of T or :math:`T^{-1}` and keep some
    rows. So the condition numbers of these halves are at most :math:`\kappa^{m-1}`, and the norm
    of the block that they share is at most :math:`\kappa^{(3m-4)/2}` times the smallest singular
    values of both. The bound is larger than `scaled_lower_bound` if T has a large and a small
    singular value in the same half. The smaller bound of the two orders is returned.

    Args:
        matrix: T, (n, n) with even n, invertible.
        couplings: The number m of couplings, at least 2.

    Raises:
        ArgumentError: The matrix is not square, has odd size, or is singular; or m is below 2.

    Source:
        Ours.

    Example:
        >>> round(outlier_lower_bound(np.diag([1e-7, 1e7, 1e-7, 1e7])), 6)
        1000.0
    """
    return min(ordered_outlier_bounds(matrix, couplings))


def ordered_outlier_bounds(matrix: object, couplings: int = 6) -> tuple[float, float]:
    """Returns the bounds of `outlier_lower_bound` with an L, and with a U, on the left."""
    if positive_int("couplings", couplings) < 2:
        raise ArgumentError(f"'couplings' should be at least 2, got {couplings}.")
    unit = _unit(matrix)
    inverse, d = inv(unit), len(unit) // 2
    halves = slice(None, d), slice(d, None)

    def bound(rows: int) -> float:
        columns = rows if couplings % 2 == 0 else 1 - rows
        sides = (unit, rows, columns), (inverse, 1 - columns, 1 - rows)
        largest, corner = 1.0, 1.0
        for matrix, i, j in sides:
            kept, scaled = matrix[halves[i]], matrix[:, halves[j]]
            least = svd(kept, compute_uv=False)[-1] * svd(scaled, compute_uv=False)[-1]
            largest = max(largest, cond(kept), cond(scaled))
            corner = max(corner, norm(kept[:, halves[j]], 2) / least)
        return float(max(largest ** (1 / (couplings - 1)), corner ** (2 / (3 * couplings - 4))))

    return bound(0), bound(1)


def positive_definite_bound(matrix: object) -> float:
    r"""Returns an upper bound for six additive couplings of a positive definite map.

    It is :math:`(4 \tau^2 + 1)^2` with :math:`\tau = \max(|T|, |T^{-1}|)` at determinant 1, in
    any dimension.

    Raises:
        ArgumentError: The matrix is not square, has odd size, or is singular.

    Source:
        Ours.

    Example:
        >>> positive_definite_bound(np.eye(4))
        25.0
    """
    values = svd(_unit(matrix), compute_uv=False)
    return float(4 * max(values[0], 1 / values[-1]) ** 2 + 1) ** 2


def _unit(matrix: object) -> Array:
    """Returns the matrix, scaled to |det| = 1; raises ArgumentError if it is singular."""
    array = square_floats(matrix)
    if len(array) % 2:
        raise ArgumentError(f"'matrix' should be of even size, got {len(array)}.")
    sign, log_abs_det = slogdet(array)
    if sign == 0:
        raise ArgumentError("'matrix' should be invertible.")
    return array / np.exp(log_abs_det / len(array))
