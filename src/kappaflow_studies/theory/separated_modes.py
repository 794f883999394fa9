"""What two groups of rows with nothing between them demand of a flow: its Lipschitz constant."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial import KDTree
from scipy.special import ndtri
from scipy.stats import beta

from kappaflow._checks import finite_float
from kappaflow.errors import ArgumentError
from kappaflow_studies.theory.exact import Array

ROWS = 2_000  # most rows to group
SMALLEST = 0.05  # share of the rows in the smaller group
WIDTHS = np.linspace(0.05, 1.0, 20)  # tried distances of the regions, over that of the groups
CONFIDENCE = 0.95  # with which the share between the groups is below its bound


@dataclass(frozen=True)
class SeparatedModes:
    """Two groups of rows, and what a flow needs that leaves as little between them.

    Attributes:
        distance: Euclidean distance of the two regions.
        shares: Share of other rows in each region.
        between: Upper bound for the share of rows outside both, with 95 % confidence.
        lipschitz: The least Lipschitz constant of the flow, latent to data.
        groups: For each of the other rows 0 or 1, or -1 outside both regions.
    """

    distance: float
    shares: tuple[float, float]
    between: float
    lipschitz: float
    groups: Array


def least_lipschitz(share: float, between: float, distance: float) -> float:
    r"""Returns the least Lipschitz constant of a map from a normal distribution to two regions.

    By the Gaussian isoperimetric inequality, with mass a in a region, mass r outside both and
    distance D,

    .. math:: L \ge D / (\Phi^{-1}(a + r) - \Phi^{-1}(a)) .

    Args:
        share: The mass a of one region, above 0.
        between: The mass r outside both regions, above 0, with a + r below 1.
        distance: The distance D of the regions, in data units.

    Source:
        Borell 1975, Sudakov, Tsirelson 1974; the bound is ours, docs/theory/depth-bound.md.

    Example:
        >>> round(least_lipschitz(0.5, 0.001, 1.0))
        399
    """
    share, between = finite_float("share", share), finite_float("between", between)
    if not (share > 0 and between > 0 and share + between < 1):
        raise ArgumentError(
            "'share' and 'between' should be above 0, and their sum below 1, got "
            f"{share:g} and {between:g}."
        )
    return finite_float("distance", distance) / float(ndtri(share + between) - ndtri(share))


def separated_modes(rows: Array, others: Array) -> SeparatedModes | None:
    """Returns the two groups of rows with the widest gap; None if there are no two.

    The groups are those of single linkage, each with 5 % of the rows at least. `others` are rows
    that did not choose the groups; shares are counted on them.

    Args:
        rows: Rows, (N, D); the first 2,000 are used.
        others: Other rows, (M, D).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> def two(n):
        ...     return rng.normal(size=(n, 2)) * 0.1 + 2.0 * rng.integers(2, size=(n, 1))
        >>> separated_modes(two(500), two(500)).lipschitz > 100
        True
    """
    rows = rows[:ROWS]
    if len(rows) < 2 / SMALLEST:
        return None
    grouped, choosing = rows[::2], rows[1::2]
    merges, count = linkage(grouped, "single"), len(grouped)
    sizes = np.concatenate([np.ones(count), merges[:, 3]])
    smaller = np.minimum(*sizes[merges[:, :2].astype(int)].T)
    merged = np.flatnonzero(smaller >= SMALLEST * count)
    if not len(merged):
        return None
    last = merged[np.argmax(merges[merged, 2])]
    if merges[last, 2] == 0:  # equal rows
        return None
    first = np.zeros(count, dtype=bool)
    first[_leaves(merges, int(merges[last, 0]), count)] = True
    sides = _near(grouped[first], grouped[~first]), _along(grouped[first], grouped[~first])
    bounds = []
    for side in sides:
        tried = side(choosing)
        for distance in WIDTHS * 2 * np.median(np.abs(tried)):
            bounds.append((_bound(tried, distance).lipschitz, distance, side))
    _, distance, side = max(bounds, key=lambda bound: bound[0])
    modes = _bound(side(others), distance)
    return modes if modes.lipschitz > 0 else None


Side = Callable[[Array], Array]  # 1-Lipschitz, below 0 on the side of the first group


def _near(first: Array, second: Array) -> Side:
    """Returns half the difference of the distances to two groups."""
    trees = KDTree(first), KDTree(second)
    return lambda rows: (trees[0].query(rows)[0] - trees[1].query(rows)[0]) / 2


def _along(first: Array, second: Array) -> Side:
    """Returns the position along the line between the means of two groups."""
    means = first.mean(axis=0), second.mean(axis=0)
    line = (means[1] - means[0]) / np.linalg.norm(means[1] - means[0])
    return lambda rows: (rows - (means[0] + means[1]) / 2) @ line


def _bound(sides: Array, distance: float) -> SeparatedModes:
    """Returns the bound for the regions where the sides are beyond half of a distance."""
    groups = np.where(sides <= -distance / 2, 0, np.where(sides >= distance / 2, 1, -1))
    outside = int((groups < 0).sum())
    between = float(beta.ppf(CONFIDENCE, outside + 1, max(1, len(sides) - outside)))
    first, second = (float((groups == side).mean()) for side in (0, 1))
    least = 0.0
    if min(first, second) >= SMALLEST and max(first, second) + between < 1:
        least = max(least_lipschitz(share, between, distance) for share in (first, second))
    return SeparatedModes(distance, (first, second), between, least, groups)


def _leaves(merges: Array, node: int, count: int) -> list[int]:
    """Returns the rows below a node of the tree of single linkage."""
    stack, leaves = [node], list[int]()
    while stack:
        top = stack.pop()
        if top < count:
            leaves.append(top)
        else:
            stack += [int(merges[top - count, 0]), int(merges[top - count, 1])]
    return leaves
