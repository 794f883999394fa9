"""The last digits of a factorization: Newton steps in all blocks at once.

The equation of `word` may be ill-conditioned where the couplings are not: what solves it is then
off by more than rounding. Here each coupling M_i gets a small one behind it, M_i N_i. With R_i the
product of the couplings behind, P^-1 T - I = sum of R_i^-1 (N_i - I) R_i is solved for the least
blocks of the N_i, by conjugate gradients.
"""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import norm

ROUNDS = 3
MOST_ROUNDS = 9  # while each gains a digit, as it does from far off
STEPS = 100
ENOUGH = 1e-3  # of a round: what is left is the business of the next one


def refined(blocks: Sequence[np.ndarray], matrix: np.ndarray) -> list[np.ndarray]:
    """Returns blocks of unit couplings, L first, whose product is nearer to a map.

    Args:
        blocks: Of couplings whose product is nearly T.
        matrix: T, (n, n).

    Returns:
        The blocks of the best round; the given ones where none is better.
    """
    best, error = [block.copy() for block in blocks], np.inf
    trial = best
    for done in range(MOST_ROUNDS + 1):
        behind, before = _behind(trial)
        product = _dense(trial, 0) @ behind[0]
        left = norm(product - matrix)
        if not left < error:
            break
        gains, best, error = 10 * left < error, trial, left
        if done >= ROUNDS and not gains:
            break
        relative = before[0] @ _dense(_negative(trial), 0) @ (matrix - product)
        # No couplings change a determinant: to the first order none of them makes a trace.
        relative -= np.trace(relative) / len(relative) * np.eye(len(relative))
        steps = _least(behind, before, relative)
        trial = [block + step for block, step in zip(best, steps, strict=True)]
    return best


def _least(
    behind: Sequence[np.ndarray], before: Sequence[np.ndarray], relative: np.ndarray
) -> list[np.ndarray]:
    """Returns the smallest blocks whose effect is the relative change that is wanted."""
    d = len(relative) // 2
    halves = [(slice(d, None), slice(d)), (slice(d), slice(d, None))]
    parts = [
        (back[:, halves[i % 2][0]], front[halves[i % 2][1]])
        for i, (back, front) in enumerate(zip(before, behind, strict=True))
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


def _behind(blocks: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the products of the couplings behind each, and the inverses of these."""
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
