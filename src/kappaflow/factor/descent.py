"""Descent within the set of solutions, to couplings that are better conditioned.

The objective is a smooth norm that approximates the largest block norm. Its gradient is computed
by hand. A quasi-Newton method minimizes it on the set of solutions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.factor.algebra import (
    FactorTarget,
    Pattern,
    all_blocks,
    defect,
    linearize,
    middle_blocks,
    move,
    right_inverse,
    sweep,
    sweep_adjoint,
)
from kappaflow.factor.budget import OutOfBudget, spend

Blocks = Sequence[np.ndarray]

MEMORY = 20  # stored pairs of a step and a change of the gradient
SUFFICIENT = 1e-4  # Armijo's constant
FEASIBLE = 3e-3  # largest mean defect of a row during the descent
CORRECTIONS = 4
SHORTEST = 1e-4
PATIENCE = 10  # steps within which the objective has to decrease
LOOSE = 5e-2  # tolerance of the linear systems of a correction; the next one removes the rest
PROJECTED = 1e-3  # tolerance of the projection, whose errors would spoil the memory
STRAIGHT = 1e-8  # cosine below which a change of the gradient carries no curvature


def smooth_norm(blocks: Blocks, power: int) -> float:
    """Returns the logarithm of the Schatten norm of order 2 `power` of all blocks together."""
    # It exceeds the logarithm of the largest singular value by at most log(values) / (2 power).
    return _with_gradient(blocks, power)[0]


def smooth_norm_gradient(
    pattern: Pattern, target: FactorTarget, values: Blocks, power: int
) -> tuple[float, list[np.ndarray]]:
    """Returns `smooth_norm` of all blocks, and its gradient with respect to the unknown ones."""
    rest = sweep(pattern, target.matrix, values, sign=-1)
    back = sweep(pattern, target.inverse, values, sign=1) if len(target.matrix) % 2 else None
    three = middle_blocks(rest[-1], back[-1] if back else None)
    value, by_block = _with_gradient([*three, *values], power)
    by_rest, by_back = _middle_adjoint(rest[-1], back[-1] if back else None, by_block[:3])
    gradient = list(
        map(np.add, by_block[3:], sweep_adjoint(pattern, rest, values, by_rest, sign=-1))
    )
    if back and by_back is not None:
        gradient = list(
            map(np.add, gradient, sweep_adjoint(pattern, back, values, by_back, sign=1))
        )
    return value, gradient


def _with_gradient(blocks: Blocks, power: int) -> tuple[float, list[np.ndarray]]:
    """Returns the logarithm of the norm and its gradient with respect to each block."""
    spend(4 * power.bit_length() * len(blocks) * len(blocks[0]) ** 3)
    size = max(np.linalg.norm(block) for block in blocks)  # so that high powers do not overflow
    total, gradients = 0.0, []
    for block in blocks:
        gradient = block / size
        square = gradient.T @ gradient
        for _ in range(power.bit_length() - 1):  # (B^T B)^(1 + 2 + 4 + ...)
            gradient, square = gradient @ square, square @ square
        total += np.trace(square)
        gradients.append(gradient)
    value = float(np.log(total) / (2 * power) + np.log(size))
    return value, [gradient / (total * size) for gradient in gradients]


def _middle_adjoint(
    rest: np.ndarray, back: np.ndarray | None, by_three: Blocks
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the gradients for M and its inverse, from the gradients for `middle_blocks`."""
    by_a1, by_x1, by_a2 = by_three
    d = len(rest) // 2
    x1, small, large = rest[:d, d:], np.eye(d), np.eye(len(rest) - d)
    inverse = right_inverse(x1)[0]
    by_rest, by_back = np.zeros_like(rest), None
    by_rest[:d, :d], by_rest[d:, d:] = inverse.T @ by_a2, by_a1 @ inverse.T
    by_inverse = (rest[d:, d:] - large).T @ by_a1 + by_a2 @ (rest[:d, :d] - small).T
    by_x1 = by_x1.copy()
    if back is not None:
        beyond, other = large - inverse @ x1, back[d:, d:] - large  # beyond the rows of X1
        by_back = np.zeros_like(back)
        by_back[d:, d:] = beyond @ by_a2 @ inverse.T
        by_beyond = by_a2 @ (other @ inverse).T
        by_inverse += other.T @ beyond @ by_a2 - by_beyond @ x1.T
        by_x1 += inverse.T @ (inverse @ by_inverse.T @ beyond - by_beyond)
    by_rest[:d, d:] = by_x1 - inverse.T @ by_inverse @ inverse.T
    return by_rest, by_back


def descend(
    pattern: Pattern,
    target: FactorTarget,
    values: Blocks,
    *,
    power: int,
    steps: int,
    least_gain: float = 3e-3,
) -> tuple[list[np.ndarray], int]:
    """Returns a nearby solution whose blocks have a smaller smooth norm, and how many steps."""
    # Limited-memory BFGS (Nocedal 1980) on the gradient projected to the set of solutions. Newton
    # corrections bring each trial back to the set; polish the result with `newton`.
    try:
        state, memory = _State(pattern, target, list(values), power), _Memory()
    except OutOfBudget:
        return list(values), 0
    history = [state.value]
    for taken in range(steps):
        try:
            step, length, trial = _search(state, memory)
            if trial is None:
                return state.values, taken
            following = _State(pattern, target, trial, power, guess=state.multiplier)
        except OutOfBudget:
            return state.values, taken
        old, state = state, following
        change = [new - before for new, before in zip(state.gradient, old.gradient, strict=True)]
        memory.learn([length * s for s in step], change)
        history.append(state.value)
        if len(history) > PATIENCE and history[-1 - PATIENCE] - history[-1] < least_gain:
            return state.values, taken + 1
    return state.values, steps


class _State:
    """A point of the set of solutions, with the objective and the projected gradient."""

    def __init__(
        self,
        pattern: Pattern,
        target: FactorTarget,
        values: list[np.ndarray],
        power: int,
        guess: np.ndarray | None = None,
    ) -> None:
        self.pattern, self.target, self.values, self.power = pattern, target, values, power
        self.value, full = smooth_norm_gradient(pattern, target, values, power)
        linear = linearize(pattern, target, values)
        self.equations = linear.equations()
        jacobian = linear.derivative
        self.multiplier = self.equations.solve(jacobian(full), tolerance=PROJECTED, guess=guess)
        normal = jacobian.adjoint(self.multiplier)
        self.corrected = self.value - float(np.vdot(self.multiplier, linear.defect))
        self.gradient = [g - part for g, part in zip(full, normal, strict=True)]

    def feasible(self, values: list[np.ndarray]) -> tuple[list[np.ndarray], float] | None:
        """Returns a solution near a point and its objective, or None without convergence."""
        # Multiplier times defect corrects the objective to its value on the set.
        last = len(values[0]) ** 0.5 / 4
        for _ in range(CORRECTIONS + 1):
            try:
                off = defect(self.pattern, self.target, values)
            except LinAlgError:
                return None
            error = float(norm(off))
            if error <= FEASIBLE * len(off) ** 0.5:
                return values, self.value_at(values) - float(np.vdot(self.multiplier, off))
            if not error < last:
                return None
            values = move(values, self.equations.least_norm(-off, tolerance=LOOSE))
            last = error / 2
        return None

    def value_at(self, values: list[np.ndarray]) -> float:
        return smooth_norm(all_blocks(self.pattern, self.target, values), self.power)


class _Memory:
    """The inverse Hessian, approximated from recent steps and changes of the gradient."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Blocks, Blocks, float]] = []

    def learn(self, step: Blocks, change: Blocks) -> None:
        """Stores a step and the change of the gradient, if the gradient grew along the step."""
        curvature = _dot(step, change)
        if curvature > STRAIGHT * (_dot(step, step) * _dot(change, change)) ** 0.5:
            self.pairs = [*self.pairs[1 - MEMORY :], (step, change, curvature)]

    def direction(self, gradient: Blocks) -> list[np.ndarray]:
        """Returns the quasi-Newton step, by the two-loop recursion."""
        step, weights = [-g for g in gradient], []
        for s, y, curvature in reversed(self.pairs):
            weights.append(_dot(s, step) / curvature)
            step = move(step, y, -weights[-1])
        if self.pairs:
            _, y, curvature = self.pairs[-1]
            step = [curvature / _dot(y, y) * part for part in step]
        for (s, y, curvature), weight in zip(self.pairs, reversed(weights), strict=True):
            step = move(step, s, weight - _dot(y, step) / curvature)
        return step


def _search(
    state: _State, memory: _Memory
) -> tuple[list[np.ndarray], float, list[np.ndarray] | None]:
    """Returns a step, its length and its point; None if the objective is too high there."""
    while True:
        step = memory.direction(state.gradient)
        slope, length = _dot(step, state.gradient), 1.0
        while slope < 0 and length > SHORTEST:
            trial = state.feasible(move(state.values, step, length))
            enough = state.corrected + SUFFICIENT * length * slope
            if trial is not None and trial[1] < enough:
                return step, length, trial[0]
            length /= 2
        if not memory.pairs:
            return step, length, None
        memory.pairs = []  # the stored curvature does not apply here: try the gradient direction


def _dot(u: Blocks, v: Blocks) -> float:
    """Returns the inner product of two steps."""
    return float(sum(np.vdot(a, b) for a, b in zip(u, v, strict=True)))
