"""A triangular matrix as four couplings: two diagonals make two spectra equal."""

import numpy as np
from scipy.linalg import solve_triangular

from kappaflow._checks import positive_float
from kappaflow.errors import ArgumentError
from kappaflow.factor.matrices import square_floats
from kappaflow.theory.exact import Array

RATIO = 1.3  # of neighbouring eigenvalues; see triangular_couplings


def triangular_couplings(matrix: Array, *, lower: bool, ratio: float = RATIO) -> list[Array]:
    r"""Returns four couplings whose product is a triangular matrix with an even number of rows.

    With diagonals C and B split off, what is left is L U L U if :math:`C^{-1} T_{11}` and
    :math:`T_{22}^{-1} B` are similar. Both are triangular: C and B put the same distinct numbers
    on their diagonals, and matrices with the same distinct eigenvalues are similar. Eigenvectors
    of triangular matrices grow fast with their size, and so do these couplings.

    Args:
        matrix: Triangular, without a zero on its diagonal.
        lower: Whether it is lower triangular (L U L U) or upper triangular (U L U L).
        ratio: Of each of the chosen eigenvalues to the next. Near 1 the eigenvectors blow up, far
            from it the diagonals do; 1.3 is about best for random matrices of 8 to 64 rows.

    Returns:
        Matrices, in the order of the product; two if the matrix is diagonal.

    Raises:
        ArgumentError: The matrix is not of that kind, or the ratio not above 0 and apart from 1.

    Source:
        Ours; the source paper takes 13, in a way unknown to us.

    Example:
        >>> import numpy as np
        >>> T = np.tril(np.arange(1.0, 17.0).reshape(4, 4))
        >>> bool(np.allclose(np.linalg.multi_dot(triangular_couplings(T, lower=True)), T))
        True
    """
    if positive_float("ratio", ratio) == 1:
        raise ArgumentError("'ratio' should not be 1: the chosen eigenvalues must be distinct.")
    matrix = _checked(matrix, lower=lower)
    n = len(matrix)
    half = n // 2
    if not (matrix != np.diag(np.diag(matrix))).any():
        ones, diagonal = np.ones(half), np.diag(matrix)
        return [
            np.diag(np.concatenate((ones, diagonal[half:]))),
            np.diag(np.concatenate((diagonal[:half], ones))),
        ]
    if lower:
        return _four(matrix, lower_blocks=True, ratio=ratio)
    order = np.roll(np.arange(n), half)  # exchanging the halves makes it block lower triangular
    exchanged = matrix[np.ix_(order, order)]
    couplings = _four(exchanged, lower_blocks=False, ratio=ratio)
    return [coupling[np.ix_(order, order)] for coupling in couplings]


def _checked(matrix: object, *, lower: bool) -> Array:
    """Returns the matrix as floats, or says why it has no such factors."""
    given = square_floats(matrix)
    triangle = np.tril(given) if lower else np.triu(given)
    if len(given) % 2 or (given != triangle).any() or not np.diag(given).all():
        raise ArgumentError(
            f"'matrix' should be {'lower' if lower else 'upper'} triangular, of an even number of "
            "rows, without a zero on its diagonal."
        )
    return given


def _four(matrix: Array, *, lower_blocks: bool, ratio: float) -> list[Array]:
    """Returns L, U, L, U of [[F, 0], [R, G]] with triangular F and G, by Theorem A."""
    half = len(matrix) // 2
    F, R, G = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    wanted = ratio ** (np.arange(half)[::-1] - (half - 1) / 2)
    if not lower_blocks:
        wanted = wanted[::-1]
    C, B = np.diag(F) / wanted, np.diag(G) * wanted
    K = F / C[:, None]
    goal = solve_triangular(G, np.diag(B), lower=lower_blocks)
    here, there = (eigenvectors(M, lower=lower_blocks) for M in (K, goal))
    Z = there @ solve_triangular(here, np.eye(half), lower=lower_blocks)
    X1 = solve_triangular(Z, np.eye(half), lower=lower_blocks)
    A2 = Z @ (K - np.eye(half))
    X2 = -solve_triangular(K, X1, lower=lower_blocks)
    A1 = solve_triangular(K, (R / B[:, None] - A2).T, lower=lower_blocks, trans=1).T
    eye, zero = np.eye(half), np.zeros((half, half))
    return [
        np.block([[eye, zero], [B[:, None] * A1 / C, np.diag(B)]]),
        np.block([[np.diag(C), C[:, None] * X1], [zero, eye]]),
        np.block([[eye, zero], [A2, eye]]),
        np.block([[eye, X2], [zero, eye]]),
    ]


def eigenvectors(matrix: Array, *, lower: bool) -> Array:
    """Returns the eigenvectors, in columns with ones on the diagonal, of a triangular matrix.

    Args:
        matrix: Triangular, with distinct numbers on its diagonal.
        lower: Which triangle.

    Returns:
        A triangular matrix V with `matrix @ V = V @ diag(matrix)`, in the order of the diagonal.

    Source:
        Forward substitution.

    Example:
        >>> eigenvectors(np.array([[1.0, 0.0], [3.0, 2.0]]), lower=True).tolist()
        [[1.0, 0.0], [-3.0, 1.0]]
    """
    if not lower:
        return eigenvectors(matrix[::-1, ::-1], lower=True)[::-1, ::-1]
    vectors = np.eye(len(matrix))
    for j in range(len(matrix) - 1):
        rest = matrix[j + 1 :, j + 1 :] - matrix[j, j] * np.eye(len(matrix) - j - 1)
        vectors[j + 1 :, j] = -solve_triangular(rest, matrix[j + 1 :, j], lower=True)
    return vectors
