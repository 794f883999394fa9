"""A permutation as thirteen couplings: two involutions, each of three rounds of parallel swaps."""

from collections.abc import Iterable, Sequence

import numpy as np

from kappaflow.errors import ArgumentError
from kappaflow.theory.exact import Array

Pairs = list[tuple[int, int]]


def two_involutions(index: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns two involutions, first a then b, with b[a[i]] = index[i] for every i.

    A cycle is a rotation of a polygon, and a rotation is the product of two reflections.

    Args:
        index: Each of 0 to n - 1, once.

    Returns:
        The involutions, as lists like `index`. As matrices M(index) = M(a) M(b).

    Source:
        Classical.

    Example:
        >>> two_involutions([1, 2, 3, 0])
        ([0, 3, 2, 1], [1, 0, 3, 2])
    """
    first, second = list(range(len(index))), list(range(len(index)))
    seen: set[int] = set()
    for start in range(len(index)):
        cycle: list[int] = []
        at = start
        while at not in seen:
            seen.add(at)
            cycle.append(at)
            at = index[at]
        for k, element in enumerate(cycle):
            first[element] = cycle[-k % len(cycle)]
            second[element] = cycle[(1 - k) % len(cycle)]
    return first, second


def across(involution: Sequence[int]) -> tuple[Pairs, Pairs]:
    """Returns swaps E and M across the halves, each of disjoint pairs, with E M E the involution.

    Couplings swap only across. A pair inside a half is carried over: E exchanges one of the two
    with a feature of the other half, M swaps across, E takes it back. That feature is of a
    pair inside the other half, which also gets across so, or a fixed point: if pairs are left
    over, the other half has twice as many more of those.

    Args:
        involution: Each of 0 to n - 1, once, each its own image's image; n even.

    Returns:
        The pairs (of the first half, of the second half) that E swaps, and those that M swaps.

    Source:
        Ours.

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
    both = min(len(inside_first), len(inside_second))
    for (i, j), (k, m) in zip(inside_first, inside_second, strict=False):
        carried.append((j, k))
        moved += [(i, k), (j, m)]
    for i, j in inside_first[both:]:
        k = next(fixed_second)
        carried.append((j, k))
        moved.append((i, k))
    for k, m in inside_second[both:]:
        i = next(fixed_first)
        carried.append((i, m))
        moved.append((i, k))
    return carried, moved


def swap_couplings(pairs: Iterable[tuple[int, int]], features: int) -> list[Array]:
    """Returns three couplings L, U, L whose product swaps the pairs, all at once.

    Args:
        pairs: Disjoint pairs (of the first half, of the second half).
        features: How many there are in all.

    Returns:
        Matrices; the first has -1 in its diagonal for each pair, since a swap has determinant -1.
        None for no pairs.

    Source:
        Classical: the swap of two numbers by additions and subtractions.

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
    """Returns at most thirteen couplings whose product is a permutation of an even number.

    Args:
        index: The product maps x to x[index].

    Returns:
        Matrices, in the order of the product; neighbours that change the same half are one.

    Raises:
        ArgumentError: It is no permutation of an even number.

    Note:
        All entries are 0 or 1 in size but where two merge, whose blocks, of norm at most 2 beside
        diagonals of 1 and -1, give condition numbers of at most 3 + 2 sqrt(2) = 5.83 in any
        dimension. Six couplings do too, with positive diagonals; their proved bound is 13.6.

    Source:
        Koehler, Mehta, Risteski 2021 (two involutions of parallel swaps, 21 there); ours.

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
    """Returns couplings with the same product: neighbours on one half are one, identities none."""
    kept: list[tuple[bool, Array]] = []
    for matrix in couplings:
        half = len(matrix) // 2
        lower = not (matrix[:half] != np.eye(half, len(matrix))).any()
        if kept and kept[-1][0] == lower:
            matrix = kept.pop()[1] @ matrix
        if (matrix != np.eye(len(matrix))).any():
            kept.append((lower, matrix))
    return [matrix for _, matrix in kept]
