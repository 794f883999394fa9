"""The one equation that couplings of a map satisfy (theorem E), and Newton's method for it.

Take three neighbors L(A1) U(X1) L(A2) out of a product of couplings, with N before and N' after
them. A matrix M of determinant 1 whose upper right block M12 has full row rank is
L(A1) U(X1) L(A2) exactly when M12 + (M^-1)12 = 0. So with M = N^-1 T N'^-1 the product is T
exactly when

    (N^-1 T N'^-1)12 + (N' T^-1 N)12 = 0.

These are d^2 equations without an inverse of an unknown. The unknowns are the blocks of N and N'.
They determine X1 = M12, A1 = (M22 - 1) X1^+ and A2 = X1^+ (M11 - 1), with
X1^+ = X1^T (X1 X1^T)^-1. This holds for halves d and d. It also holds for halves d and d + 1 if
M11 and (M^-1)11 are invertible; A2 then has an additional term beyond the rows of X1, made of
((M^-1)22 - 1) X1^+.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.factor.budget import OutOfBudget, spend
from kappaflow.factor.kronecker import KroneckerMap, NormalEquations, Pair

Blocks = Sequence[np.ndarray]

SMALLEST_DAMPING = 1 / 64
INEXACT = 1e-2  # tolerance of the linear systems: each step still gains two digits
ROUNDS = 3
MOST_ROUNDS = 9  # largest number of rounds, if each one gains a digit
STEPS = 100
ENOUGH = 1e-3  # relative tolerance of a round; the next round reduces the remainder


@dataclass(frozen=True)
class FactorTarget:
    """A map of determinant 1, (n, n), and its inverse; the first half has n // 2 features."""

    matrix: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True)
class Pattern:
    """A product L U L ... of four or more couplings; in it three dependent couplings L U L.

    The number of couplings before the dependent three is even. Their blocks come first among the
    unknowns.
    """

    couplings: int
    before: int

    def sides(self, features: int) -> tuple[list, list]:
        """Returns which half each unknown coupling changes and keeps, for N and for N'."""
        first, second = slice(0, features // 2), slice(features // 2, features)
        lower, upper = (second, first), (first, second)
        after = self.couplings - 3 - self.before
        return (
            [(upper if position % 2 else lower) for position in range(self.before)],
            [(lower if position % 2 else upper) for position in range(after)],
        )

    def unknowns(self, blocks: Blocks) -> list[np.ndarray]:
        """Returns all blocks except those of the dependent three."""
        return [*blocks[: self.before], *blocks[self.before + 3 :]]

    def all(self, three: Blocks, values: Blocks) -> list[np.ndarray]:
        """Returns all blocks in the order of the product."""
        return [*values[: self.before], *three, *values[self.before :]]


def sweep(pattern: Pattern, matrix: np.ndarray, values: Blocks, *, sign: int) -> list[np.ndarray]:
    """Returns the stages of N^-1 T N'^-1 (sign -1, of T), or of N' T^-1 N (sign 1, of T^-1)."""
    states = [matrix]
    for index, by_rows, changed, kept in _order(pattern, len(matrix), sign):
        state, block = states[-1].copy(), values[index]
        if by_rows:
            state[changed] += sign * block @ state[kept]
        else:
            state[:, kept] += sign * state[:, changed] @ block
        states.append(state)
    return states


def sweep_adjoint(
    pattern: Pattern, states: Blocks, values: Blocks, by: np.ndarray, *, sign: int
) -> list[np.ndarray]:
    """Returns the gradient for the blocks from the last state's gradient, which is overwritten."""
    gradients = [np.zeros_like(block) for block in values]
    order = list(_order(pattern, len(by), sign))
    for (index, by_rows, changed, kept), state in zip(order[::-1], states[-2::-1], strict=True):
        block = values[index]
        if by_rows:
            gradients[index] = sign * by[changed] @ state[kept].T
            by[kept] += sign * block.T @ by[changed]
        else:
            gradients[index] = sign * state[:, changed].T @ by[:, kept]
            by[:, changed] += sign * by[:, kept] @ block.T
    return gradients


def _order(pattern: Pattern, features: int, sign: int) -> Iterator[tuple[int, bool, slice, slice]]:
    """Yields the couplings from the ends of the product inwards."""
    before, after = pattern.sides(features)
    for index, (changed, kept) in enumerate(before):
        yield index, sign < 0, changed, kept
    for index, (changed, kept) in reversed(list(enumerate(after))):
        yield pattern.before + index, sign > 0, changed, kept


def right_inverse(x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns X^+ with X X^+ = 1, and S such that S X has orthonormal rows."""
    # For a square X both are X^-1. Otherwise S makes the left square of S X symmetric and
    # positive, so that S X hardly depends on X.
    if len(x1) == x1.shape[1]:
        inverse = np.linalg.inv(x1)
        return inverse, inverse
    rows, triangle = np.linalg.qr(x1.T)
    left, _, right = np.linalg.svd(rows[: len(x1)])
    scale = np.linalg.inv(triangle).T
    return rows @ scale, left @ right @ scale


def all_blocks(pattern: Pattern, target: FactorTarget, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings in the order of the product."""
    rest = sweep(pattern, target.matrix, values, sign=-1)[-1]
    back = sweep(pattern, target.inverse, values, sign=1)[-1] if len(rest) % 2 else None
    return pattern.all(middle_blocks(rest, back), values)


def middle_blocks(rest: np.ndarray, back: np.ndarray | None) -> list[np.ndarray]:
    """Returns A1, X1, A2 of M = L(A1) U(X1) L(A2), from M and, for odd n, its inverse."""
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


@dataclass(frozen=True)
class Linearized:
    """The equation at a point, scaled so that X1 has orthonormal rows, and its derivative."""

    defect: np.ndarray
    derivative: KroneckerMap
    # The direction that no step can reach: if blocks are square, det M12 = det -(M^-1)12 always.
    missed: np.ndarray | None

    @property
    def error(self) -> float:
        return float(norm(self.defect))

    def equations(self) -> NormalEquations:
        return NormalEquations(self.derivative, self.missed)


def defect(pattern: Pattern, target: FactorTarget, values: Blocks) -> np.ndarray:
    """Returns S (M12 + (M^-1)12), which is zero if the couplings make the map."""
    d = len(target.matrix) // 2
    x1 = sweep(pattern, target.matrix, values, sign=-1)[-1][:d, d:]
    other = sweep(pattern, target.inverse, values, sign=1)[-1][:d, d:]
    return right_inverse(x1)[1] @ (x1 + other)


def linearize(pattern: Pattern, target: FactorTarget, values: Blocks) -> Linearized:
    """Returns the equation (theorem E) and its derivative, two Kronecker products a block."""
    n, d = len(target.matrix), len(target.matrix) // 2
    rest = sweep(pattern, target.matrix, values, sign=-1)[-1]
    back = sweep(pattern, target.inverse, values, sign=1)[-1]
    off = rest[:d, d:] + back[:d, d:]
    inverse, scale = right_inverse(rest[:d, d:])
    e = np.eye(n - d) - inverse @ off  # S changes as well, so that S X1 stays constant
    before, after = pattern.sides(n)
    # From the L U L outwards on both sides. On the left, M and its inverse exchange roles.
    first = _outwards(before[::-1], values[: pattern.before][::-1], (back, rest), sign=-1)
    last = _outwards(after, values[pattern.before :], (rest, back), sign=1)
    terms = []
    for left, back_left, right, back_right in first[::-1]:
        terms.append(((-scale @ left, back_right @ e), (scale @ back_left, right)))
    for left, back_left, right, back_right in last:
        terms.append(((-scale @ back_left, right @ e), (scale @ left, back_right)))
    missed = np.linalg.inv(e).T if n % 2 == 0 else None
    return Linearized(scale @ off, KroneckerMap(terms), missed)


def move(values: Blocks, step: Blocks, length: float = 1.0) -> list[np.ndarray]:
    """Returns values + length * step."""
    return [block + length * change for block, change in zip(values, step, strict=True)]


def newton(
    pattern: Pattern, target: FactorTarget, values: Blocks, *, tolerance: float, steps: int
) -> tuple[list[np.ndarray], float, int]:
    """Returns a solution near a point by damped Newton steps, its error, and their number."""
    values, taken = list(values), 0
    equation = linearize(pattern, target, values)
    while equation.error > tolerance and taken < steps:
        step = equation.equations().least_norm(-equation.defect, tolerance=INEXACT)
        trial = _damped(pattern, target, values, step, equation.error)
        if trial is None:
            break
        values, equation = trial
        taken += 1
    return values, equation.error, taken


def _damped(
    pattern: Pattern, target: FactorTarget, values: Blocks, step: Blocks, error: float
) -> tuple[list[np.ndarray], Linearized] | None:
    """Returns the first point along a step at which the error has decreased enough, or None."""
    length = 1.0
    while length >= SMALLEST_DAMPING:
        trial = move(values, step, length)
        try:
            equation = linearize(pattern, target, trial)
        except LinAlgError:
            length /= 2
            continue
        if equation.error < (1 - length / 4) * error:
            return trial, equation
        length /= 2
    return None


def _outwards(
    sides: Sequence, values: Blocks, ends: Pair, *, sign: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Returns the left and right factors of the derivative with respect to each coupling."""
    # Let G be the product of the couplings between the L U L and this one, inverted on the left
    # side (sign -1). The factors are the top rows of G and of the first end times G, and the right
    # columns of G^-1 and of G^-1 times the other end, at the half that this coupling changes or
    # keeps.
    n, d = len(ends[0]), len(ends[0]) // 2
    rows, rows_end = np.eye(n)[:d], ends[0][:d].copy()
    columns, columns_end = np.eye(n)[:, d:], ends[1][:, d:].copy()
    parts = []
    for (changed, kept), block in zip(sides, values, strict=True):
        left, right = (rows, rows_end), (columns, columns_end)
        parts.append((*[r[:, changed].copy() for r in left], *[c[kept].copy() for c in right]))
        for r in left:
            r[:, kept] += sign * r[:, changed] @ block
        for c in right:
            c[changed] -= sign * block @ c[kept]
    return parts


def refine(blocks: Sequence[np.ndarray], matrix: np.ndarray) -> list[np.ndarray]:
    """Returns blocks of unit couplings, L first, whose product is nearer to a map T.

    The equation may be ill-conditioned although the couplings are not, and then its solution is
    less accurate than rounding allows. This is Newton's method in all blocks together: each
    coupling M_i is multiplied by a small N_i after it. With R_i the product of the couplings after
    M_i, conjugate gradients solve P^-1 T - I = sum of R_i^-1 (N_i - I) R_i for the N_i of least
    norm. Returns the blocks of the best round; the given ones if no round improves them.
    """
    best, error = [block.copy() for block in blocks], np.inf
    trial = best
    for done in range(MOST_ROUNDS + 1):
        after, inverses = _suffixes(trial)
        product = _dense(trial, 0) @ after[0]
        left = norm(product - matrix)
        if not left < error:
            break
        gains, best, error = 10 * left < error, trial, left
        if done >= ROUNDS and not gains:
            break
        relative = inverses[0] @ _dense(_negative(trial), 0) @ (matrix - product)
        # Unit couplings do not change the determinant: to first order they contribute no trace.
        relative -= np.trace(relative) / len(relative) * np.eye(len(relative))
        try:
            steps = _least_norm_steps(after, inverses, relative)
        except OutOfBudget:
            break
        trial = [block + step for block, step in zip(best, steps, strict=True)]
    return best


def _least_norm_steps(
    after: Sequence[np.ndarray], inverses: Sequence[np.ndarray], relative: np.ndarray
) -> list[np.ndarray]:
    """Returns the smallest changes of the blocks that have this relative effect on the product."""
    d = len(relative) // 2
    halves = [(slice(d, None), slice(d)), (slice(d), slice(d, None))]
    parts = [
        (back[:, halves[i % 2][0]], front[halves[i % 2][1]])
        for i, (back, front) in enumerate(zip(inverses, after, strict=True))
    ]

    def pulled(y: np.ndarray) -> list[np.ndarray]:
        return [back.T @ y @ front.T for back, front in parts]

    def pushed(steps: Sequence[np.ndarray]) -> np.ndarray:
        terms = [back @ s @ front for (back, front), s in zip(parts, steps, strict=True)]
        return np.sum(terms, axis=0)

    solution, rest = np.zeros_like(relative), relative.copy()
    direction, size = rest.copy(), np.sum(rest**2)
    goal = ENOUGH**2 * size
    for _ in range(STEPS):
        spend(8 * len(parts) * len(relative) ** 2 * d)
        image = pushed(pulled(direction))
        curvature = np.sum(direction * image)
        if not curvature > 0:
            break
        length = size / curvature
        solution += length * direction
        rest -= length * image
        size, last = np.sum(rest**2), size
        if size <= goal:
            break
        direction = rest + size / last * direction
    return pulled(solution)


def _suffixes(blocks: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the product of the couplings after each coupling, and its inverse."""
    n = sum(blocks[0].shape)
    products, inverses = [np.eye(n)], [np.eye(n)]
    for i in range(len(blocks) - 1, 0, -1):
        products.append(_dense(blocks, i) @ products[-1])
        inverses.append(inverses[-1] @ _dense(_negative(blocks), i))
    return products[::-1], inverses[::-1]


def _negative(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [-block for block in blocks]


def _dense(blocks: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Returns a coupling as a matrix: the first one changes the last half."""
    block = blocks[number]
    n, d = sum(block.shape), sum(block.shape) // 2
    dense = np.eye(n)
    if number % 2:
        dense[:d, d:] = block
    else:
        dense[d:, :d] = block
    return dense
