"""The construction of Koehler, Mehta and Risteski (2021): couplings for a linear map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.linalg import lu, solve_triangular

from kappaflow._checks import positive_float
from kappaflow.errors import ArgumentError
from kappaflow.factor.problem import square_floats
from kappaflow_studies.theory.exact import Array

Pairs = list[tuple[int, int]]


def two_involutions(index: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns two involutions, first a then b, with b[a[i]] = index[i] for every i.

    A cycle is a rotation of a polygon, and a rotation is the product of two reflections. As
    matrices, M(index) = M(a) M(b).

    Example:
        >>> two_involutions([1, 2, 3, 0])
        ([0, 3, 2, 1], [1, 0, 3, 2])
    """
    first, second = list(range(len(index))), list(range(len(index)))
    seen: set[int] = set()
    for start in range(len(index)):
        cycle: list[int] = []
        position = start
        while position not in seen:
            seen.add(position)
            cycle.append(position)
            position = index[position]
        for k, element in enumerate(cycle):
            first[element] = cycle[-k % len(cycle)]
            second[element] = cycle[(1 - k) % len(cycle)]
    return first, second


def across(involution: Sequence[int]) -> tuple[Pairs, Pairs]:
    """Returns swaps E and M between the halves, of disjoint pairs, with E M E the involution.

    Couplings swap only between halves. To swap a pair inside a half, E exchanges one of the two
    with a feature of the other half, M swaps between the halves, and E takes it back. The feature
    is a fixed point, or part of a pair inside the other half, which is then swapped as well. If
    there are pairs left, the other half has at least twice as many fixed points.

    Example:
        >>> across([1, 0, 3, 2])
        ([(1, 2)], [(0, 2), (1, 3)])
        >>> across([1, 0, 2, 3])
        ([(1, 2)], [(0, 2)])
    """
    half = len(involution) // 2
    swapped = [(i, j) for i, j in enumerate(involution) if i < j]
    carried, moved = [], [(i, j) for i, j in swapped if i < half <= j]
    inside_first = [(i, j) for i, j in swapped if j < half]
    inside_second = [(i, j) for i, j in swapped if i >= half]
    fixed = [i for i, j in enumerate(involution) if i == j]
    fixed_first = iter([i for i in fixed if i < half])
    fixed_second = iter([i for i in fixed if i >= half])
    paired = min(len(inside_first), len(inside_second))
    for (i, j), (k, m) in zip(inside_first, inside_second, strict=False):
        carried.append((j, k))
        moved += [(i, k), (j, m)]
    for i, j in inside_first[paired:]:
        k = next(fixed_second)
        carried.append((j, k))
        moved.append((i, k))
    for k, m in inside_second[paired:]:
        i = next(fixed_first)
        carried.append((i, m))
        moved.append((i, k))
    return carried, moved


def swap_couplings(pairs: Iterable[tuple[int, int]], features: int) -> list[Array]:
    """Returns three couplings L, U, L whose product swaps all pairs; none if there are no pairs.

    The pairs (of the first half, of the second half) are disjoint. The first coupling has -1 in
    its diagonal for each pair, since a swap has determinant -1.

    Example:
        >>> first, second, third = swap_couplings([(0, 1)], 2)
        >>> (first @ second @ third).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    couplings = [np.eye(features) for _ in range(3)]
    pairs = list(pairs)
    for i, j in pairs:
        couplings[0][j, i], couplings[0][j, j] = 1, -1
        couplings[1][i, j] = 1
        couplings[2][j, i] = -1
    return couplings if pairs else []


def permutation_couplings(index: Sequence[int]) -> list[Array]:
    """Returns at most thirteen couplings whose product is a permutation of even size.

    The product maps x to x[index]; neighbors that change the same half are merged. All entries are
    0, 1 or -1, except where two couplings merge. The condition numbers are at most 3 + 2 sqrt(2) =
    5.83 in any dimension. (After Koehler, Mehta, Risteski 2021: two involutions.)

    Raises:
        ArgumentError: The input is not a permutation of an even number.

    Example:
        >>> import numpy as np
        >>> couplings = permutation_couplings([1, 2, 3, 0])
        >>> np.linalg.multi_dot(couplings).astype(int).argmax(axis=1).tolist()
        [1, 2, 3, 0]
    """
    if sorted(index) != list(range(len(index))) or len(index) % 2:
        raise ArgumentError(
            "'index' should hold each of 0 to n - 1 once, n even, got another list of "
            f"{len(index)}."
        )
    couplings: list[Array] = []
    for involution in two_involutions(index):
        carried, moved = across(involution)
        for pairs in (carried, moved, carried):
            couplings += swap_couplings(pairs, len(index))
    return merged(couplings)


def merged(couplings: Sequence[Array]) -> list[Array]:
    """Returns couplings with the same product, with neighbors merged and identities removed."""
    kept: list[tuple[bool, Array]] = []
    for matrix in couplings:
        half = len(matrix) // 2
        lower = not (matrix[:half] != np.eye(half, len(matrix))).any()
        if kept and kept[-1][0] == lower:
            matrix = kept.pop()[1] @ matrix
        if (matrix != np.eye(len(matrix))).any():
            kept.append((lower, matrix))
    return [matrix for _, matrix in kept]


RATIO = 1.3  # ratio of neighboring eigenvalues; see triangular_couplings


def triangular_couplings(matrix: Array, *, lower: bool, ratio: float = RATIO) -> list[Array]:
    """Returns four couplings whose product is a triangular matrix with an even number of rows.

    After diagonals C and B are split off, the rest is L U L U if :math:`C^{-1} T_{11}` and
    :math:`T_{22}^{-1} B` are similar. Both are triangular. C and B give them the same distinct
    diagonal entries, and matrices with the same distinct eigenvalues are similar. Eigenvectors of
    triangular matrices grow fast with their size, and so do these couplings. A lower triangular
    matrix gives L U L U, an upper one U L U L, a diagonal one two couplings. `ratio` is that of
    neighboring eigenvalues: near 1 the eigenvectors grow, far from 1 the diagonals do; 1.3 is
    about the best for random matrices of 8 to 64 rows. (Ours; how the source makes its 13
    couplings is unknown to us.)

    Raises:
        ArgumentError: The matrix is not of this kind, has a zero on its diagonal, or the ratio is
            not above 0 or too near 1.

    Example:
        >>> import numpy as np
        >>> T = np.tril(np.arange(1.0, 17.0).reshape(4, 4))
        >>> bool(np.allclose(np.linalg.multi_dot(triangular_couplings(T, lower=True)), T))
        True
    """
    if positive_float("ratio", ratio) == 1:
        raise ArgumentError("'ratio' should not be 1: the chosen eigenvalues must be distinct.")
    matrix = _triangular(matrix, lower=lower)
    n = len(matrix)
    half = n // 2
    if not (matrix != np.diag(np.diag(matrix))).any():
        ones, diagonal = np.ones(half), np.diag(matrix)
        return [
            np.diag(np.concatenate((ones, diagonal[half:]))),
            np.diag(np.concatenate((diagonal[:half], ones))),
        ]
    if lower:
        return _four_couplings(matrix, lower_blocks=True, ratio=ratio)
    order = np.roll(np.arange(n), half)  # exchanged halves make it block lower triangular
    exchanged = matrix[np.ix_(order, order)]
    couplings = _four_couplings(exchanged, lower_blocks=False, ratio=ratio)
    return [coupling[np.ix_(order, order)] for coupling in couplings]


def _triangular(matrix: object, *, lower: bool) -> Array:
    """Returns the matrix as floats; raises ArgumentError if it has no such factors."""
    array = square_floats(matrix)
    triangle = np.tril(array) if lower else np.triu(array)
    if len(array) % 2 or (array != triangle).any() or not np.diag(array).all():
        raise ArgumentError(
            f"'matrix' should be {'lower' if lower else 'upper'} triangular, of an even number of "
            "rows, without a zero on its diagonal."
        )
    return array


def _four_couplings(matrix: Array, *, lower_blocks: bool, ratio: float) -> list[Array]:
    """Returns L, U, L, U of [[F, 0], [R, G]] with triangular F and G, by Theorem A."""
    half = len(matrix) // 2
    F, R, G = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    expected = ratio ** (np.arange(half)[::-1] - (half - 1) / 2)
    if not lower_blocks:
        expected = expected[::-1]
    C, B = np.diag(F) / expected, np.diag(G) * expected
    K = F / C[:, None]
    goal = solve_triangular(G, np.diag(B), lower=lower_blocks)
    eigenvectors_k, eigenvectors_goal = (eigenvectors(M, lower=lower_blocks) for M in (K, goal))
    Z = eigenvectors_goal @ solve_triangular(eigenvectors_k, np.eye(half), lower=lower_blocks)
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
    """Returns the eigenvectors of a triangular matrix, as columns with unit diagonals.

    Forward substitution gives the triangular V with `matrix @ V = V @ diag(matrix)`.

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


PAPER = {"permutation": 21, "lower triangular": 13, "upper triangular": 13}
"""The parts of the 47 couplings in the paper. Only this outline of its method is known to us."""


@dataclass(frozen=True)
class KoehlerRoute:
    """Couplings of T = P L U, with the number for each part."""

    matrix: Array  #: the factored matrix, T
    couplings: tuple[Array, ...]  #: in the order of the product; lower and upper ones alternate
    counts: dict[str, int]  #: the number of couplings of each part, before parts were merged
    negative: int  #: the number of negative entries in the diagonals

    @property
    def residual(self) -> float:
        """Returns |product - T| / |T| in Frobenius norms, with a product of 64-bit mantissas."""
        product = np.eye(len(self.matrix), dtype=np.longdouble)
        for coupling in self.couplings:
            product = product @ coupling
        error = ((product - self.matrix) ** 2).sum()
        return float(np.sqrt(error / (self.matrix.astype(np.longdouble) ** 2).sum()))

    @property
    def condition_numbers(self) -> tuple[float, ...]:
        """Returns the condition number of each coupling."""
        return tuple(float(np.linalg.cond(coupling)) for coupling in self.couplings)

    def __str__(self) -> str:
        lines = [f"{'part':<18}{'here':>6}{'paper':>7}"]
        lines += [f"{part:<18}{self.counts[part]:>6}{PAPER[part]:>7}" for part in PAPER]
        joined = sum(self.counts.values()) - len(self.couplings)
        lines.append(f"{'merged':<18}{-joined:>6}{'':>7}")
        lines.append(f"{'together':<18}{len(self.couplings):>6}{sum(PAPER.values()):>7}")
        worst = max(self.condition_numbers, default=1.0)
        lines.append(f"largest condition number {worst:.3g}, residual {self.residual:.1e}")
        return "\n".join(lines)


def koehler_route(matrix: object, *, ratio: float = RATIO) -> KoehlerRoute:
    """Returns couplings on two halves with product T, along the outline of the source paper.

    T = P L U with a permutation (at most thirteen couplings), a unit lower triangular matrix
    (four), and an upper triangular matrix (four). Between parts, two couplings on one half are
    merged, which leaves nineteen. This is the baseline for the six couplings. Diagonals have any
    sign, and condition numbers grow fast with n. `ratio` is that of `triangular_couplings`. Only
    the outline of Koehler, Mehta, Risteski 2021 is known to us (two involutions of parallel swaps,
    two triangular matrices; 21 + 13 + 13 = 47), so details may differ.

    Raises:
        ArgumentError: T is not square with an even number of rows, not finite, or singular; or
            the ratio cannot be used.

    Example:
        >>> route = koehler_route([[0, 2, 1, 1], [1, 0, 3, 0], [2, 1, 1, 0], [0, 1, 0, 1]])
        >>> route.counts
        {'permutation': 9, 'lower triangular': 4, 'upper triangular': 4}
        >>> len(route.couplings), sum(PAPER.values())
        (15, 47)
    """
    T = _even_invertible(matrix)
    permutation, lower, upper = cast(tuple[Array, Array, Array], lu(T))
    parts = {
        "permutation": permutation_couplings(permutation.argmax(axis=1).tolist()),
        "lower triangular": merged(triangular_couplings(lower, lower=True, ratio=ratio)),
        "upper triangular": merged(triangular_couplings(upper, lower=False, ratio=ratio)),
    }
    couplings = merged([coupling for part in parts.values() for coupling in part])
    counts = {name: len(part) for name, part in parts.items()}
    negative = sum(int((np.diag(coupling) < 0).sum()) for coupling in couplings)
    return KoehlerRoute(T, tuple(couplings), counts, negative)


def _even_invertible(matrix: object) -> Array:
    """Returns the matrix as floats; raises ArgumentError if it has no such factors."""
    array = square_floats(matrix).copy()
    if len(array) % 2:
        raise ArgumentError(f"'matrix' should have an even number of rows, got {len(array)}.")
    if np.linalg.matrix_rank(array) < len(array):
        raise ArgumentError("'matrix' should be invertible, as every product of couplings is.")
    return array
