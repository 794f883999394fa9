"""Properties of D M for all diagonal D, and whether one matrix is a scaling of another."""

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from kappaflow_studies.theory.exact import Array, Number, Numbers

MINORS_UP_TO = 8  # 2^8 principal minors are computed; for larger matrices only the diagonal

Signs = frozenset[int]
ANY_SIGN: Signs = frozenset({-1, 0, 1})


def components(matrix: Array) -> list[Array]:
    """Returns the diagonal blocks of a matrix whose spectra together are its spectrum.

    The blocks belong to the strongly connected components of the graph with an edge for every
    nonzero entry. D M has the same graph.
    """
    graph = csr_array((matrix != 0).astype(np.int8))
    count, label = connected_components(graph, directed=True, connection="strong")
    members = [np.flatnonzero(label == i) for i in range(count)]
    return [matrix[np.ix_(index, index)] for index in members]


def is_triangular(matrix: Array) -> bool:
    """Returns whether some order of the features makes the matrix triangular."""
    return all(len(block) == 1 for block in components(matrix))


def always_real(matrix: Array, positive: bool) -> str | None:
    """Returns why D M has only real eigenvalues for every D; None if no reason is known.

    For positive D, D M is similar to sqrt(D) M sqrt(D), which is symmetric if M is. 2 x 2 blocks
    with off-diagonal entries of the same sign are symmetric up to such a scaling.
    """
    blocks = components(matrix)
    if all(len(block) == 1 for block in blocks):
        if not (matrix != np.diag(np.diag(matrix))).any():
            return "diagonal"
        return "triangular up to the order of the features"
    if positive and all(len(block) == 1 or _symmetric(block) for block in blocks):
        return "symmetric, up to a scaling and an order, in its strongly connected blocks"
    return None


def always_not_real(matrix: Array, positive: bool) -> str | None:
    """Returns why D M has a non-real eigenvalue for every D; None if no reason is known.

    A k-cycle without loops has lambda^k = the product of its weights. A skew-symmetric matrix has
    imaginary eigenvalues, and D M has them too for positive D.
    """
    for block in components(matrix):
        size = len(block)
        if size == 1:
            continue
        cycle = ((block != 0).sum(axis=1) == 1).all()
        if cycle and size >= 3:
            return f"a {size}-cycle without loops, whose eigenvalues are the roots of one number"
        if positive and cycle and block[0, 1] * block[1, 0] < 0:
            return "a 2-cycle of opposite signs, so that two eigenvalues are imaginary"
        if positive and not (block != -block.T).any():
            return "a skew-symmetric block, so that its eigenvalues are imaginary"
    return None


def ranks_above_diagonal(matrix: Array, positive: bool) -> int:
    """Returns a lower bound for the rank of M - D over all D without zero entries.

    Without one row and one column, a k-cycle minus D is triangular with its weights on the
    diagonal, so its rank is at least k - 1. With them, det(D - M) is the product of the entries of
    D minus the product of the weights, which is not zero if one is positive and the other
    negative. The rank of a block triangular matrix is at least the sum of the ranks of its
    diagonal blocks.
    """
    total = 0
    for block in components(matrix):
        size = len(block)
        if ((block != 0).sum(axis=1) != 1).any():
            total += size == 1  # an entry of zero
            continue
        weights = block.sum(axis=1)
        opposite = positive and (weights < 0).sum() % 2
        total += size if opposite else size - 1
    return total


def coefficient_signs(matrix: Array, degree: int, positive: bool, numbers: Numbers) -> Signs:
    """Returns all signs that the coefficient e_k of D M can have, over all D (or a superset).

    The coefficient is the sum over k features of (product of their D) * (principal minor of M);
    e_1 is the trace, the last one the determinant.
    """
    features = range(len(matrix))
    signs = [
        numbers.sign(matrix[np.ix_(index, index)]) for index in combinations(features, degree)
    ]
    if None in signs:
        return ANY_SIGN
    present = [sign for sign in signs if sign]
    if not present:
        return frozenset({0})
    if positive:
        return ANY_SIGN if len(set(present)) == 2 else frozenset({present[0] or 0})
    return ANY_SIGN if len(present) > 1 else frozenset({-1, 1})


def pivot_signs(matrix: Array, numbers: Numbers) -> list[int] | None:
    """Returns the signs of the quotients of successive leading minors; None if one may be zero.

    With entries d_1 >> d_2 >> ... in D, the eigenvalues of D M come close to d_k times the k-th
    quotient. So some D gives any eigenvalues of these signs, if they are different enough.
    """
    if len(matrix) > MINORS_UP_TO:
        return None
    signs = [1] + [numbers.sign(matrix[:k, :k]) or 0 for k in range(1, len(matrix) + 1)]
    return [a * b for a, b in pairwise(signs)] if all(signs) else None


def degrees_to_look_at(size: int) -> range:
    """Returns the degrees of the coefficients that have few enough principal minors to compute."""
    return range(1, size + 1) if size <= MINORS_UP_TO else range(1, 2)


def _symmetric(block: Array) -> bool:
    """Returns whether a block is symmetric, or 2 x 2 and symmetric up to a positive scaling."""
    if len(block) == 2:
        return bool(block[0, 1] * block[1, 0] > 0)
    return not (block != block.T).any()


def rows_scaled(
    moved: Array, basis: Array, allowed: Callable[[Number], bool], numbers: Numbers
) -> bool:
    """Returns whether each row of `moved` is an allowed multiple of that of `basis`."""
    for new, old in zip(moved, basis, strict=True):
        if not old.any():
            if new.any():
                return False
            continue
        pivot = int(np.argmax(abs(old)))
        ratio = new[pivot] / old[pivot]
        if not allowed(ratio) or numbers.cleaned(new - ratio * old, new).any():
            return False
    return True


def scaled_alike(
    target: Array, matrix: Array, allowed: Callable[[Number], bool], numbers: Numbers
) -> bool:
    """Returns whether target = B M C for allowed diagonals, by a walk over nonzero entries."""
    if ((target != 0) != (matrix != 0)).any():
        return False
    rows: dict[int, Number] = {}
    columns: dict[int, Number] = {}
    for start in range(len(target)):
        if start in rows:
            continue
        rows[start], reached = 1, [start]
        while reached:
            i = reached.pop()
            for j in np.flatnonzero(matrix[i]):
                columns.setdefault(int(j), target[i, j] / matrix[i, j] / rows[i])
                for k in np.flatnonzero(matrix[:, j]):
                    if int(k) not in rows:
                        rows[int(k)] = target[k, j] / matrix[k, j] / columns[int(j)]
                        reached.append(int(k))
    return all(
        allowed(target[i, j] / matrix[i, j])
        and numbers.agree(target[i, j], rows[i] * matrix[i, j] * columns[j])
        for i, j in np.argwhere(matrix != 0).tolist()
    )
