"""How many alternating linear couplings a linear map takes: what is proved, and what was found."""

from dataclasses import dataclass
from math import isqrt

from kappaflow._checks import positive_int


@dataclass(frozen=True)
class Bounds:
    """At least so many, at most so many (None: no bound is proved), and the argument for each."""

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

    `every`: enough for every invertible map (of positive determinant, if the diagonals are
    positive), in an order of one's choice; `least` is needed by some map in either order.
    `almost_every`: enough for an open and dense set of maps; with fewer than `least`, a whole open
    set of maps is out of reach. `guide`: what was enough wherever it was tried, no theorem.
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
    r"""Returns how many alternating linear couplings the maps of R^(first + second) take.

    A coupling keeps one part and maps the other to `diagonal * part + matrix @ kept part`.

    Args:
        first: Features in the first part.
        second: Features in the second part.
        positive: Whether all diagonals are positive, as where the scale is an exponential.

    Returns:
        Bounds for every map and for almost every map, with their reasons, and the guide.

    Note:
        Even halves of d >= 2: six are enough and needed. Sketch: six words L U L U L U reach T
        when a certain matrix of determinant 1 is a commutator, which all are; five cannot change
        the spectrum of a diagonal block of a block-diagonal T, and two such blocks may not fit.
        Uneven parts of p < q features: the block T22 is a diagonal matrix plus p ranks for each L
        that has a U to its right. A q-cycle is q - 1 ranks away from every diagonal matrix, and q
        ranks from every positive one if the product of its entries is negative. When T is block
        diagonal the outermost coupling does not help: :math:`2 \lceil q / p \rceil + 2` are needed
        (q - 1 for any signs). For almost every T, diagonal plus rank r must fill the q x q
        matrices, :math:`(q - r)^2 \le q`, and the parameters the n x n ones.
        The whole derivation is the page "Six couplings" of the documentation.

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
    """Returns the counts for two features, where a coupling is a shear of the plane."""
    if positive:
        return (
            Bounds(4, 4, "-I is no product of three shears with positive diagonals"),
            Bounds(3, 3, "L U L if T12 is not zero; two need a positive T11 or T22"),
        )
    return (
        Bounds(3, 3, "the swap is no product of two, as its diagonal is zero"),
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
    """Returns the counts for parts of p and q features, p != q: lower bounds only."""
    small, large, n = min(p, q), max(p, q), p + q
    spectrum = 6 if positive or large > 2 else 5
    far = large if positive else large - 1  # ranks between a cycle and such a diagonal
    ranks = 2 * -(-far // small) + 2
    every = Bounds(
        max(spectrum, ranks),
        None,
        "ranks of a cycle above its diagonal" if ranks >= spectrum else "spectra of the blocks",
    )
    generic_ranks = 2 * -(-(large - isqrt(large)) // small)
    parameters = -(-(n * n - n) // (p * q))
    almost = Bounds(
        max(generic_ranks, parameters),
        None,
        "ranks of a block above its diagonal" if generic_ranks > parameters else "parameters",
    )
    return every, almost
