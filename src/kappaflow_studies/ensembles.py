"""Random matrices with positive determinant, reproducible by name, size and number."""

import itertools
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

Generator = np.random.Generator
SHARP = "three-cycle"
SHARP_FROM = 6  # least number of features


def draw(name: str, n: int, number: int) -> np.ndarray:
    """Returns T, (n, n), float64, of an ensemble by name and number, with det T > 0."""
    if name in NUMBERED:
        return np.eye(n)[list(_permutations(n, NUMBERED[name])[number])]
    generator = np.random.default_rng([number, n, zlib.crc32(name.encode())])
    return ENSEMBLES[name](n, generator)


def has_size(name: str, n: int) -> bool:
    """Returns whether an ensemble has maps of n features."""
    return n >= (SHARP_FROM if name == SHARP else 2)


def count(name: str, n: int) -> int | None:
    """Returns how many matrices a numbered ensemble has; None for a random one."""
    return len(_permutations(n, NUMBERED[name])) if name in NUMBERED else None


def gaussian(n: int, generator: Generator) -> np.ndarray:
    """Returns independent standard normal entries, conditional on det T > 0."""
    return _positive(generator.standard_normal((n, n)))


def orthogonal(n: int, generator: Generator) -> np.ndarray:
    """Returns a rotation, uniform in the Haar measure."""
    q, r = np.linalg.qr(generator.standard_normal((n, n)))
    return _positive(q * np.sign(np.diag(r)))


def permutation(n: int, generator: Generator) -> np.ndarray:
    """Returns a permutation, uniform among the even ones."""
    matrix = np.eye(n)[generator.permutation(n)]
    if np.linalg.slogdet(matrix)[0] < 0:
        matrix[[0, 1]] = matrix[[1, 0]]
    return matrix


def toeplitz(n: int, generator: Generator) -> np.ndarray:
    """Returns a Toeplitz matrix of independent standard normal entries, given that det T > 0."""
    entries = generator.standard_normal(2 * n - 1)
    matrix = entries[n - 1 + np.arange(n)[:, None] - np.arange(n)]
    return matrix if np.linalg.slogdet(matrix)[0] > 0 else toeplitz(n, generator)


def sharp(n: int, generator: Generator) -> np.ndarray:
    """Returns diag(I, C) with a cycle C of three, which no five couplings represent; n >= 6."""
    order = np.arange(n)
    order[-3:] = np.roll(order[-3:], 1)
    return np.eye(n)[order]


def geometric(condition: float) -> Callable[[int, Generator], np.ndarray]:
    """Returns an ensemble with singular values from 1 to 1 / condition in equal ratios."""

    def draw_matrix(n: int, generator: Generator) -> np.ndarray:
        scales = np.geomspace(1, 1 / condition, n)
        return orthogonal(n, generator) * scales @ orthogonal(n, generator)

    return draw_matrix


ENSEMBLES: dict[str, Callable[[int, Generator], np.ndarray]] = {
    "Gaussian": gaussian,
    "orthogonal": orthogonal,
    "permutation": permutation,
    "Toeplitz": toeplitz,
    SHARP: sharp,
    "geometric 1e2": geometric(1e2),
    "geometric 1e4": geometric(1e4),
    "geometric 1e6": geometric(1e6),
}
NUMBERED = {"even permutations": 1, "odd permutations": -1}


def _positive(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix, with its first row negated if its determinant is negative."""
    if np.linalg.slogdet(matrix)[0] < 0:
        matrix[0] *= -1
    return matrix


@cache
def _permutations(n: int, sign: int) -> list[tuple[int, ...]]:
    """Returns all permutations of a sign (1 for even, -1 for odd), in lexicographic order."""
    return [order for order in itertools.permutations(range(n)) if _sign(order) == sign]


def _sign(order: tuple[int, ...]) -> int:
    return (-1) ** sum(a > b for a, b in itertools.combinations(order, 2))
