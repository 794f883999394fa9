r"""One small equation for any number of couplings.

Take three neighbours L(A1) U(X1) L(A2) out of a product of couplings, N before them and N' behind.
A matrix M whose upper right block M12 is invertible is L(A1) U(X1) L(A2) exactly when
M12 + (M^-1)12 = 0. So with M = N^-1 T N'^-1 the product is T exactly when

    (N^-1 T N'^-1)12 + (N' T^-1 N)12 = 0:

d^2 equations, no inverse of an unknown in them. The blocks of N and N' are the unknowns, and
X1 = M12, A2 = X1^-1 (M11 - 1), A1 = (M22 - 1) X1^-1 follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import solve

Blocks = Sequence[np.ndarray]


@dataclass(frozen=True)
class Target:
    """A map of determinant 1, (2d, 2d), beside its inverse."""

    matrix: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True)
class Word:
    """How many couplings there are, L first, and how many stand before the L U L that follows.

    Args:
        couplings: All of them, at least four.
        before: Those in front of the L U L, an even number; their blocks come first among the
            unknowns, then those behind.
    """

    couplings: int
    before: int

    def sides(self, features: int) -> tuple[list, list]:
        """Returns which half each unknown coupling changes and which it keeps: N, then N'."""
        first, second = slice(0, features // 2), slice(features // 2, features)
        lower, upper = (second, first), (first, second)
        behind = self.couplings - 3 - self.before
        return (
            [(upper if position % 2 else lower) for position in range(self.before)],
            [(lower if position % 2 else upper) for position in range(behind)],
        )

    def unknowns(self, blocks: Blocks) -> list[np.ndarray]:
        """Returns all blocks but those of the L U L."""
        return [*blocks[: self.before], *blocks[self.before + 3 :]]


def peel(word: Word, matrix: np.ndarray, values: Blocks) -> list[np.ndarray]:
    """Returns T, T without its first coupling and so on, then without its last: at the end M."""
    peeled = [matrix]
    before, behind = word.sides(len(matrix))
    for (changed, kept), block in zip(before, values, strict=False):
        rest = peeled[-1].copy()
        rest[changed] -= block @ rest[kept]
        peeled.append(rest)
    for (changed, kept), block in zip(behind[::-1], values[::-1], strict=False):
        rest = peeled[-1].copy()
        rest[:, kept] -= rest[:, changed] @ block
        peeled.append(rest)
    return peeled


def peeled_inverse(word: Word, inverse: np.ndarray, values: Blocks) -> np.ndarray:
    """Returns M^-1 = N' T^-1 N, without an inverse."""
    product = inverse.copy()
    before, behind = word.sides(len(inverse))
    for (changed, kept), block in zip(before, values, strict=False):
        product[:, kept] += product[:, changed] @ block
    for (changed, kept), block in zip(behind[::-1], values[::-1], strict=False):
        product[changed] += block @ product[kept]
    return product


def middle(rest: np.ndarray) -> list[np.ndarray]:
    """Returns A1, X1, A2 of M = L(A1) U(X1) L(A2), from all of M but M21."""
    d = len(rest) // 2
    x1, one = rest[:d, d:], np.eye(d)
    a1 = solve(x1.T, (rest[d:, d:] - one).T).T
    return [a1, x1, solve(x1, rest[:d, :d] - one)]


def all_blocks(word: Word, target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings in the order of the product."""
    three = middle(peel(word, target.matrix, values)[-1])
    return [*values[: word.before], *three, *values[word.before :]]


def product(blocks: Blocks) -> np.ndarray:
    """Returns L(first) U(second) L(third) and so on."""
    d = len(blocks[0])
    result = np.eye(2 * d)
    for position, block in enumerate(blocks):
        if position % 2:
            result[:, d:] += result[:, :d] @ block
        else:
            result[:, :d] += result[:, d:] @ block
    return result
