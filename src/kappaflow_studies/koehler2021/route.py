"""The route of the source paper, built anew: a permutation and two triangular matrices."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.linalg import lu

from kappaflow.errors import ArgumentError
from kappaflow.factor.matrices import square_floats
from kappaflow.theory.exact import Array
from kappaflow_studies.koehler2021.permutations import merged, permutation_couplings
from kappaflow_studies.koehler2021.triangular import RATIO, triangular_couplings

PAPER = {"permutation": 21, "lower triangular": 13, "upper triangular": 13}
"""The parts of the paper's 47. How it finds them is unknown to us but for this outline."""


@dataclass(frozen=True)
class PaperRoute:
    """Couplings of T = P L U, and how many each part took.

    Args:
        matrix: T.
        couplings: Matrices, in the order of the product; lower and upper ones alternate.
        counts: The number of couplings of each part, before the parts were joined.
        negative: How many -1's and other negative numbers stand in the diagonals.
    """

    matrix: Array
    couplings: tuple[Array, ...]
    counts: dict[str, int]
    negative: int

    @property
    def residual(self) -> float:
        """Returns |product - T| / |T| in Frobenius norms; the product has 64 bits of mantissa."""
        product = np.eye(len(self.matrix), dtype=np.longdouble)
        for coupling in self.couplings:
            product = product @ coupling
        off = ((product - self.matrix) ** 2).sum() / (self.matrix.astype(np.longdouble) ** 2).sum()
        return float(np.sqrt(off))

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


def paper_route(matrix: object, *, ratio: float = RATIO) -> PaperRoute:
    r"""Returns couplings on two halves whose product is T, along the outline of the source paper.

    T = P L U with a permutation, at most thirteen couplings, a unit lower triangular matrix, four,
    and an upper triangular one, four. Where the parts meet, two couplings on one half are one:
    nineteen. The baseline that six couplings are compared with.

    Args:
        matrix: T, invertible, with an even number of rows.
        ratio: Of neighbouring eigenvalues of the triangular parts, see `triangular_couplings`.

    Returns:
        The couplings, with the count of each part beside the paper's.

    Raises:
        ArgumentError: T is not square with an even number of rows, not finite, or singular; or
            the ratio cannot be used.

    Note:
        The diagonals are nonzero, of any sign: a swap has determinant -1. The condition numbers
        grow fast with n, through the eigenvectors of triangular matrices.

    Source:
        Koehler, Mehta, Risteski 2021, whose outline (two involutions of parallel swaps, two
        triangular matrices; 21 + 13 + 13 = 47) is all that we know of it. No match is claimed.

    Example:
        >>> route = paper_route([[0, 2, 1, 1], [1, 0, 3, 0], [2, 1, 1, 0], [0, 1, 0, 1]])
        >>> route.counts
        {'permutation': 9, 'lower triangular': 4, 'upper triangular': 4}
        >>> len(route.couplings), sum(PAPER.values())
        (15, 47)
    """
    given = _checked(matrix)
    permutation, lower, upper = cast(tuple[Array, Array, Array], lu(given))
    parts = {
        "permutation": permutation_couplings(permutation.argmax(axis=1).tolist()),
        "lower triangular": merged(triangular_couplings(lower, lower=True, ratio=ratio)),
        "upper triangular": merged(triangular_couplings(upper, lower=False, ratio=ratio)),
    }
    couplings = merged([coupling for part in parts.values() for coupling in part])
    counts = {name: len(part) for name, part in parts.items()}
    negative = sum(int((np.diag(coupling) < 0).sum()) for coupling in couplings)
    return PaperRoute(given, tuple(couplings), counts, negative)


def _checked(matrix: object) -> Array:
    """Returns the matrix as floats, or says why it has no such factors."""
    given = square_floats(matrix).copy()
    if len(given) % 2:
        raise ArgumentError(f"'matrix' should have an even number of rows, got {len(given)}.")
    if np.linalg.matrix_rank(given) < len(given):
        raise ArgumentError("'matrix' should be invertible, as every product of couplings is.")
    return given
