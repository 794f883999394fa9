"""How well conditioned the couplings of a linear map can be: bounds from below and from above.

The constructions `commutator` and `two_block_factors` are those of the proofs in
docs/theory/conditioning.md.
"""

import numpy as np
from numpy.linalg import cond, inv, norm, qr, slogdet, svd

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.problem import square_floats
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import six_blocks
from kappaflow_studies.theory.exact import Array

IDENTITY_TOLERANCE = 1e-13  # relative size of N - I below which N counts as the identity


def scaled_lower_bound(matrix: object, couplings: int) -> float:
    r"""Returns a lower bound for the worst of m couplings with one scale each.

    At determinant 1 it is :math:`\max(|T|, |T^{-1}|)^{2/m}`, at least the
    :math:`\kappa(T)^{1/m}` of `min_condition_number`.

    Args:
        matrix: T, (n, n) with even n, invertible; it is divided by :math:`|\det T|^{1/n}`.
        couplings: The number m of couplings, which alternate between equal halves.

    Raises:
        ArgumentError: The matrix is not square, of odd size or singular.

    Source:
        Ours.

    Example:
        >>> round(scaled_lower_bound(np.diag([1.0, 1.0, 1.0, 1e-4]), 6), 6)  # kappa = 1e4
        10.0
    """
    values = svd(_unit(matrix), compute_uv=False)
    return float(max(values[0], 1 / values[-1])) ** (2 / positive_int("couplings", couplings))


def additive_lower_bound(matrix: object, couplings: int) -> float:
    r"""Returns a lower bound for the worst of m additive couplings, in either order.

    With an L on the left and a U on the right it is :math:`\max(|T_{11}|,
    |(T^{-1})_{22}|)^{2/(m-2)}` for even m, since the outer two leave these blocks unchanged; with
    exchanged halves likewise. The smaller of both is returned.

    Args:
        matrix: T, (n, n) with even n, of determinant 1 after division by its scale.
        couplings: The number m of couplings, even and at least 4.

    Raises:
        ArgumentError: The matrix is not square, of odd size or singular, or m is odd or below 4.

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
    back, d = inv(unit), len(unit) // 2
    lower_first = max(norm(unit[:d, :d], 2), norm(back[d:, d:], 2))
    upper_first = max(norm(unit[d:, d:], 2), norm(back[:d, :d], 2))
    return max(1.0, float(min(lower_first, upper_first))) ** (2 / (couplings - 2))


def outlier_lower_bound(matrix: object, couplings: int = 6) -> float:
    r"""Returns a lower bound for the worst of m couplings with one scale each, in either order.

    The first and the last coupling only scale some columns of T or :math:`T^{-1}` and keep some
    rows. So the condition numbers of these halves are at most :math:`\kappa^{m-1}`. This is more
    than `scaled_lower_bound` if T has a large and a small singular value in the same half. The
    smaller bound of both orders is returned.

    Args:
        matrix: T, (n, n) with even n, invertible.
        couplings: The number m of couplings, at least 2.

    Raises:
        ArgumentError: The matrix is not square, of odd size or singular, or m is below 2.

    Source:
        Ours.

    Example:
        >>> round(outlier_lower_bound(np.diag([1e-5, 1e5, 1e-5, 1e5])), 6)
        100.0
    """
    return min(ordered_outlier_bounds(matrix, couplings))


def ordered_outlier_bounds(matrix: object, couplings: int = 6) -> tuple[float, float]:
    """Returns the bounds of `outlier_lower_bound` with an L, and with a U, on the left."""
    if positive_int("couplings", couplings) < 2:
        raise ArgumentError(f"'couplings' should be at least 2, got {couplings}.")
    unit = _unit(matrix)
    back, d = inv(unit), len(unit) // 2
    halves = slice(None, d), slice(d, None)

    def bound(rows: int) -> float:
        columns = rows if couplings % 2 == 0 else 1 - rows
        parts = (
            unit[halves[rows]],
            unit[:, halves[columns]],
            back[halves[1 - columns]],
            back[:, halves[1 - rows]],
        )
        return float(max(map(cond, parts))) ** (1 / (couplings - 1))

    return bound(0), bound(1)


def positive_definite_bound(matrix: object) -> float:
    r"""Returns an upper bound for six additive couplings of a positive definite map.

    It is :math:`(4 \tau^2 + 1)^2` with :math:`\tau = \max(|T|, |T^{-1}|)` at determinant 1, in
    any dimension.

    Raises:
        ArgumentError: The matrix is not square, of odd size or singular.

    Source:
        Ours.

    Example:
        >>> positive_definite_bound(np.eye(4))
        25.0
    """
    values = svd(_unit(matrix), compute_uv=False)
    return float(4 * max(values[0], 1 / values[-1]) ** 2 + 1) ** 2


def _unit(matrix: object) -> Array:
    """Returns the matrix divided by its scale; raises ArgumentError if it has none."""
    array = square_floats(matrix)
    if len(array) % 2:
        raise ArgumentError(f"'matrix' should be of even size, got {len(array)}.")
    sign, log_size = slogdet(array)
    if sign == 0:
        raise ArgumentError("'matrix' should be invertible.")
    return array / np.exp(log_size / len(array))


def unit_minor_basis(matrix: Array) -> Array:
    r"""Returns a basis S in which all leading minors of a matrix N of determinant 1 are one.

    N is not a multiple of the identity other than the identity itself. Near the identity the
    condition number of S is bounded by a number that depends on the size of N alone.

    Raises:
        NumericalError: A Schur complement is a multiple of the identity other than the identity.

    Source:
        Sourour 1986; the bounded choice near the identity is ours.

    Example:
        >>> N = np.diag([2.0, 0.5])
        >>> S = unit_minor_basis(N)
        >>> bool(np.isclose((np.linalg.inv(S) @ N @ S)[0, 0], 1))
        True
    """
    d = len(matrix)
    deviation = matrix - np.eye(d)
    size = norm(deviation, 2)
    if d == 1 or size < IDENTITY_TOLERANCE:
        return np.eye(d)
    eye = np.eye(d)
    tried = [*eye, *((eye[i] + eye[j]) / 2**0.5 for i in range(d) for j in range(i))]
    first = max(tried, key=lambda v: norm(deviation @ v - (v @ deviation @ v) * v))
    second = deviation @ first / max(norm(deviation @ first), IDENTITY_TOLERANCE * size)
    if abs(first @ second) > 1 - IDENTITY_TOLERANCE:
        raise NumericalError("the matrix is a multiple of the identity, but not the identity.")
    rest = qr(np.stack([first, second], 1), mode="complete")[0][:, 2:]
    basis = np.column_stack([first, second, rest])
    moved = inv(basis) @ matrix @ basis
    basis[:, 1:] = basis[:, 1:] @ unit_minor_basis(
        moved[1:, 1:] - np.outer(moved[1:, 0], moved[0, 1:])
    )
    return basis


def commutator(matrix: Array) -> tuple[Array, Array]:
    """Returns K and Z with N = K^-1 Z K Z^-1, for a matrix N of determinant 1.

    Both are bounded near N = I and N = -I, in any fixed dimension, and K has distinct real
    eigenvalues. They are not the best conditioned ones.

    Raises:
        NumericalError: As for `unit_minor_basis`.

    Source:
        Ours. Existence: Thompson 1961.

    Example:
        >>> K, Z = commutator(np.array([[0.0, 1.0], [-1.0, 0.0]]))
        >>> N = np.linalg.inv(K) @ Z @ K @ np.linalg.inv(Z)
        >>> bool(np.allclose(N, [[0, 1], [-1, 0]]))
        True
    """
    d = len(matrix)
    sign = -1.0 if d % 2 == 0 and np.trace(matrix) < 0 else 1.0
    basis = unit_minor_basis(sign * matrix)
    minors_one = inv(basis) @ (sign * matrix) @ basis
    lower, upper = np.eye(d), minors_one.copy()
    for j in range(d - 1):  # elimination: all pivots are one
        lower[j + 1 :, j] = upper[j + 1 :, j] / upper[j, j]
        upper[j + 1 :] -= np.outer(lower[j + 1 :, j], upper[j])
    # K = D L^-1 and K N = sign D U have the eigenvalues D and sign D, which are the same set.
    values = np.arange(1.0, d + 1)
    if sign < 0:
        values = np.repeat(values[: d // 2], 2) * np.tile([1.0, -1.0], d // 2)
    k = values[:, None] * inv(lower)
    z = _eigenvectors(sign * values[:, None] * np.triu(upper)) @ inv(_eigenvectors(k))
    return basis @ k @ inv(basis), basis @ z @ inv(basis)


def _eigenvectors(matrix: Array) -> Array:
    """Returns eigenvectors, (d, d), in ascending order of the real eigenvalues."""
    values, vectors = map(np.real, np.linalg.eig(matrix))
    return vectors[:, np.argsort(values)]


def two_block_factors(matrix: Array) -> list[Factor]:
    r"""Returns six factors of a map with d singular values s and d singular values 1/s.

    With T = O1 diag(s I, I/s) O2 and well-conditioned upper left blocks of O1 and O2, the worst
    condition number is at most a constant times :math:`s^{1/3} = \kappa(T)^{1/6}`, the least
    possible order. The constant depends on the dimension and on these blocks.

    Args:
        matrix: T, (2d, 2d), of determinant 1, with an invertible T11.

    Raises:
        NumericalError: As for `unit_minor_basis`.

    Source:
        Ours, theorem C.

    Example:
        >>> turn = np.linalg.qr(np.vander([1.0, 2.0, 3.0, 4.0]))[0]
        >>> T = turn @ np.diag([1e3, 1e3, 1e-3, 1e-3]) @ turn
        >>> made = np.linalg.multi_dot([factor.matrix for factor in two_block_factors(T)])
        >>> bool(np.allclose(made, T))
        True
    """
    d, s = len(matrix) // 2, norm(matrix, 2)
    p, sh = matrix[:d, :d], inv(matrix)[d:, d:]
    k, z = commutator(inv(p) @ sh)
    x = inv(p) @ (s ** (2 / 3) * np.eye(d) - matrix[:d, d:])
    k *= s ** (1 / 3) / norm(k, 2)
    z *= s ** (1 / 6) / norm(z, 2)
    return rescale(unit_factors(six_blocks(matrix, x, k, z)))
