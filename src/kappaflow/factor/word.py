r"""One small equation for any number of couplings: theorem E.

Take three neighbours L(A1) U(X1) L(A2) out of a product of couplings, N before them and N' behind.
A matrix M of determinant 1 whose upper right block M12 has full row rank is L(A1) U(X1) L(A2)
exactly when M12 + (M^-1)12 = 0. So with M = N^-1 T N'^-1 the product is T exactly when

    (N^-1 T N'^-1)12 + (N' T^-1 N)12 = 0:

d^2 equations, no inverse of an unknown in them. The blocks of N and N' are the unknowns, and
X1 = M12, A1 = (M22 - 1) X1^+, A2 = X1^+ (M11 - 1) follow, with X1^+ = X1^T (X1 X1^T)^-1. This
is so for halves d and d; and for halves d and d + 1 where M11 and (M^-1)11 are invertible, A2
then having one more part, the one beyond the rows of X1, that of ((M^-1)22 - 1) X1^+.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Blocks = Sequence[np.ndarray]


@dataclass(frozen=True)
class Target:
    """A map of determinant 1, (n, n), beside its inverse; the first half has n // 2 features."""

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

    def all(self, three: Blocks, values: Blocks) -> list[np.ndarray]:
        """Returns all blocks in the order of the product."""
        return [*values[: self.before], *three, *values[self.before :]]


def sweep(word: Word, matrix: np.ndarray, values: Blocks, *, sign: int) -> list[np.ndarray]:
    """Returns what becomes of a matrix as N and N' are taken off, or put on its inverse.

    Args:
        word: Where the blocks stand.
        matrix: T with sign -1, its inverse with sign 1.
        values: The unknown blocks.
        sign: Which of the two.

    Returns:
        The matrix, what is left after each coupling, and at the end M or its inverse.
    """
    states = [matrix]
    for index, by_rows, changed, kept in _order(word, len(matrix), sign):
        state, block = states[-1].copy(), values[index]
        if by_rows:
            state[changed] += sign * block @ state[kept]
        else:
            state[:, kept] += sign * state[:, changed] @ block
        states.append(state)
    return states


def sweep_adjoint(
    word: Word, states: Blocks, values: Blocks, by: np.ndarray, *, sign: int
) -> list[np.ndarray]:
    """Returns the derivative by the blocks from that by the last state, which is overwritten."""
    gradients = [np.zeros_like(block) for block in values]
    order = list(_order(word, len(by), sign))
    for (index, by_rows, changed, kept), state in zip(order[::-1], states[-2::-1], strict=True):
        block = values[index]
        if by_rows:
            gradients[index] = sign * by[changed] @ state[kept].T
            by[kept] += sign * block.T @ by[changed]
        else:
            gradients[index] = sign * state[:, changed].T @ by[:, kept]
            by[:, changed] += sign * by[:, kept] @ block.T
    return gradients


def _order(word: Word, features: int, sign: int) -> Iterator[tuple[int, bool, slice, slice]]:
    """Yields the couplings from the ends of the product to the L U L."""
    before, behind = word.sides(features)
    for index, (changed, kept) in enumerate(before):
        yield index, sign < 0, changed, kept
    for index, (changed, kept) in reversed(list(enumerate(behind))):
        yield word.before + index, sign > 0, changed, kept


def right_inverse(x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns X^+ with X X^+ = 1, and S with S X of orthonormal rows: X^-1 both, if X is square.

    Of all such S it is the one that makes the left square of S X symmetric and positive, so that
    S X hardly moves with X.
    """
    if len(x1) == x1.shape[1]:
        inverse = np.linalg.inv(x1)
        return inverse, inverse
    rows, triangle = np.linalg.qr(x1.T)
    left, _, right = np.linalg.svd(rows[: len(x1)])
    scale = np.linalg.inv(triangle).T
    return rows @ scale, left @ right @ scale


def all_blocks(word: Word, target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings in the order of the product."""
    rest = sweep(word, target.matrix, values, sign=-1)[-1]
    back = sweep(word, target.inverse, values, sign=1)[-1] if len(rest) % 2 else None
    return word.all(middle(rest, back), values)


def middle(rest: np.ndarray, back: np.ndarray | None) -> list[np.ndarray]:
    """Returns A1, X1, A2 of M = L(A1) U(X1) L(A2), from M and, where n is odd, its inverse."""
    d = len(rest) // 2
    x1, small, large = rest[:d, d:], np.eye(d), np.eye(len(rest) - d)
    inverse = right_inverse(x1)[0]
    a2 = inverse @ (rest[:d, :d] - small)
    if back is not None:
        a2 += (large - inverse @ x1) @ (back[d:, d:] - large) @ inverse
    return [(rest[d:, d:] - large) @ inverse, x1, a2]


def product(blocks: Blocks) -> np.ndarray:
    """Returns L(first) U(second) L(third) and so on."""
    d = blocks[0].shape[1]
    result = np.eye(sum(blocks[0].shape))
    for position, block in enumerate(blocks):
        if position % 2:
            result[:, d:] += result[:, :d] @ block
        else:
            result[:, :d] += result[:, d:] @ block
    return result
