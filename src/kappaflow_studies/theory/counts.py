"""How many linear couplings a linear map needs, and how well conditioned they can be."""

from dataclasses import dataclass
from math import isqrt, sqrt

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError

ROTATION_BLOCK_NORMS = (2 + sqrt(2), 1.0, sqrt(2), 2.0, 2.0, 1.0)
"""Theorem B: upper bounds for the norms of the blocks A1, X1, A2, X2, A3, X3 of a rotation."""


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bound for a count, with the argument; `most` is None if none is proved."""

    least: int
    most: int | None
    why: str

    def __str__(self) -> str:
        if self.least == self.most:
            return f"exactly {self.least}"
        return f"at least {self.least}" + (f", at most {self.most}" if self.most else "")


@dataclass(frozen=True)
class CouplingsNeeded:
    """The counts for one partition.

    Attributes:
        every: Enough for every invertible map (of positive determinant, if the diagonals are
            positive), in a suitable order; some map needs `least` in either order.
        almost_every: Enough for an open and dense set of maps; fewer than `least` miss an open
            set of maps.
        guide: Enough for every map in our tests, without proof.
    """

    first: int
    second: int
    positive: bool
    every: Bounds
    almost_every: Bounds
    guide: int

    def __str__(self) -> str:
        diagonals = "positive diagonals" if self.positive else "diagonals of any sign"
        return (
            f"partition ({self.first}, {self.second}), {diagonals}: every map {self.every}; "
            f"almost every map {self.almost_every}; guide {self.guide}"
        )


def couplings_needed(first: int, second: int, *, positive: bool = True) -> CouplingsNeeded:
    r"""Returns how many alternating linear couplings the maps of R^(first + second) need.

    A coupling keeps one part and maps the other to `diagonal * part + matrix @ kept part`.

    Args:
        first: Number of features in the first part.
        second: Number of features in the second part.
        positive: Whether all diagonals are positive, for example exponentials.

    Returns:
        Bounds for every map and for almost every map, with their reasons, and the guide.

    Note:
        Halves of d >= 2 features, or of d and d + 1: six are enough and, with positive diagonals,
        needed. Sketch: L U L U L U represents T if a certain matrix of determinant 1 is a
        commutator, and every such matrix is one. Five cannot change the spectrum of a diagonal
        block of a block-diagonal T, and two such blocks may not fit. Other parts of p < q features: the block T22 is a diagonal matrix plus p ranks for
        each L with a U to its right. A q-cycle is q - 1 ranks away from every diagonal matrix,
        and q ranks from every positive one if the product of its entries is negative. If T is
        block diagonal, the outermost coupling does not help: :math:`2 \lceil q / p \rceil + 2` are
        needed (q - 1 for any signs). For almost every T, diagonal plus rank r must fill the q x q
        matrices, :math:`(q - r)^2 \le q`, and the parameters the n x n ones. The page "Six
        couplings" of the documentation has the proofs.

    Source:
        Koehler, Mehta, Risteski 2021 (at most 47, at least 5); Urschel 2023 (six, for unit
        diagonals); Thompson 1961 (commutators). Proofs, uneven parts and generic counts: ours.

    Example:
        >>> print(couplings_needed(8, 8))
        partition (8, 8), positive diagonals: every map exactly 6; almost every map exactly 5; guide 6
        >>> couplings_needed(1, 7).every.least
        16
    """  # noqa: E501
    p, q = positive_int("first", first), positive_int("second", second)
    if p == q == 1:
        every, almost = _plane(positive)
    elif p == q:
        every, almost = _halves(positive)
    else:
        every, almost = _uneven(p, q, positive)
    guide = every.most or max(6, every.least)
    return CouplingsNeeded(p, q, positive, every, almost, guide)


def _plane(positive: bool) -> tuple[Bounds, Bounds]:
    """Returns the counts for two features, for which a coupling is a shear of the plane."""
    if positive:
        return (
            Bounds(4, 4, "-I is not a product of three shears with positive diagonals"),
            Bounds(3, 3, "L U L if T12 is not zero; two need a positive T11 or T22"),
        )
    return (
        Bounds(3, 3, "the swap is not a product of two, since its diagonal is zero"),
        Bounds(2, 2, "L U if T11 is not zero; one coupling fixes a row"),
    )


def _halves(positive: bool) -> tuple[Bounds, Bounds]:
    """Returns the counts for halves of two or more features."""
    every = Bounds(6, 6, "commutators give six; the spectra of diag(I, 3-cycle) exclude five")
    if positive:
        return every, Bounds(
            5,
            5,
            "L U L U L if T12 is invertible; where signs of diagonals differ, traces exclude 4",
        )
    return every, Bounds(
        4, 4, "L U L U if the leading minors of T11 and (T^-1)22 are not zero; L U L is a null set"
    )


def _uneven(p: int, q: int, positive: bool) -> tuple[Bounds, Bounds]:
    """Returns the bounds for parts of p and q features, p != q."""
    small, large, n = min(p, q), max(p, q), p + q
    spectrum = 6 if positive or large > 2 else 5
    rank_distance = large if positive else large - 1  # ranks between a cycle and such a diagonal
    ranks = 2 * -(-rank_distance // small) + 2
    nearly_equal = large == small + 1  # theorem F
    every = Bounds(
        max(spectrum, ranks),
        6 if nearly_equal else None,
        "ranks of a cycle above its diagonal" if ranks >= spectrum else "spectra of the blocks",
    )
    generic_ranks = 2 * -(-(large - isqrt(large)) // small)
    parameters = -(-(n * n - n) // (p * q))
    almost = Bounds(
        max(generic_ranks, parameters),
        5 if nearly_equal else None,
        "ranks of a block above its diagonal" if generic_ranks > parameters else "parameters",
    )
    return every, almost


def unit_condition_number(norm: float) -> float:
    r"""Returns the condition number of a coupling with unit diagonal and a block of this norm.

    The singular values of :math:`\begin{pmatrix} I & 0 \\ A & I \end{pmatrix}` come in pairs
    :math:`\sigma, 1/\sigma` with :math:`\sigma - 1/\sigma = a`, one pair for each singular value a
    of A, so that :math:`\kappa = ((a + \sqrt{a^2 + 4}) / 2)^2` for the largest.

    Args:
        norm: The largest singular value of the block, at least 0.

    Returns:
        The condition number, a pure number >= 1.

    Raises:
        ArgumentError: `norm` is negative or not finite.

    Source:
        Singular values of a shear; ours in this form.

    Example:
        >>> unit_condition_number(0.0)
        1.0
        >>> round(unit_condition_number(1.0), 6)  # the square of the golden ratio
        2.618034
    """
    if norm != 0:
        positive_float("norm", norm)
    return ((norm + sqrt(norm * norm + 4)) / 2) ** 2


def rotation_bound() -> float:
    """Returns a bound for the condition number of each coupling of a rotation, in any dimension.

    Returns:
        The largest bound over the six blocks of theorem B.

    Source:
        Ours (Theorem B of the page "Six couplings").

    Example:
        >>> round(rotation_bound(), 4)
        13.5832
    """
    return max(map(unit_condition_number, ROTATION_BLOCK_NORMS))


def min_condition_number(condition_number: float, couplings: int) -> float:
    r"""Returns a lower bound for the worst of m factors: :math:`\kappa(T)^{1/m}`.

    Args:
        condition_number: Condition number of the product, at least 1.
        couplings: The number m of factors.

    Returns:
        The lower bound for the largest condition number of a factor; it holds for any factors.

    Raises:
        ArgumentError: The condition number is below 1.

    Source:
        The condition number of a product is at most the product of the condition numbers.

    Example:
        >>> round(min_condition_number(1e6, 6), 12)
        10.0
    """
    count = positive_int("couplings", couplings)
    if positive_float("condition_number", condition_number) < 1:
        raise ArgumentError(
            f"'condition_number' should be at least 1, got {condition_number}: it is the largest "
            "singular value divided by the smallest."
        )
    return float(condition_number) ** (1 / count)
