r"""From one solution to a well-conditioned one: quasi-Newton descent within the solution set."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.factor.newton import defect, linearize, move
from kappaflow.factor.surrogate import power_norm, power_norm_gradient
from kappaflow.factor.word import Target, Word, all_blocks

Blocks = Sequence[np.ndarray]

MEMORY = 20  # pairs of step and change of gradient
SUFFICIENT = 1e-4  # Armijo's constant
FEASIBLE = 3e-3  # of the defect, in the mean over rows: on the solution set, during the descent
CORRECTIONS = 4
SHORTEST = 1e-4
PATIENCE = 10  # steps over which the surrogate has to fall
LOOSE = 5e-2  # of the linear systems of a correction: the next one sees what is left
PROJECTED = 1e-3  # of those of the projection, whose errors the memory would learn
STRAIGHT = 1e-8  # cosine below which a change of gradient says nothing of curvature


def descend(
    word: Word,
    target: Target,
    values: Blocks,
    *,
    power: int,
    steps: int,
    least_gain: float = 3e-3,
) -> tuple[list[np.ndarray], int]:
    """Returns a point of the solution set, nearly, at which the blocks' power norm is smaller.

    Limited-memory BFGS on the gradient projected to the solution set; each trial goes back to
    the set by Newton corrections with the matrix of the point it started from.

    Args:
        word: Where the blocks stand.
        target: The map.
        values: A solution, nearly: the unknown blocks.
        power: Order of the norm, halved.
        steps: At most so many.
        least_gain: Stop when ten steps lower the logarithm of the norm by less than this.

    Returns:
        The point (polish it with `newton`), and how many steps were taken.

    Source:
        Nocedal 1980 for the quasi-Newton steps.
    """
    state, memory = _State(word, target, list(values), power), _Memory()
    history = [state.value]
    for taken in range(steps):
        step, length, trial = _search(state, memory)
        if trial is None:
            return state.values, taken
        old, state = state, _State(word, target, trial, power, guess=state.multiplier)
        change = [new - before for new, before in zip(state.gradient, old.gradient, strict=True)]
        memory.learn([length * s for s in step], change)
        history.append(state.value)
        if len(history) > PATIENCE and history[-1 - PATIENCE] - history[-1] < least_gain:
            return state.values, taken + 1
    return state.values, steps


class _State:
    """A point of the solution set with its surrogate and the projected gradient."""

    def __init__(
        self,
        word: Word,
        target: Target,
        values: list[np.ndarray],
        power: int,
        guess: np.ndarray | None = None,
    ) -> None:
        self.word, self.target, self.values, self.power = word, target, values, power
        self.value, full = power_norm_gradient(word, target, values, power)
        linear = linearize(word, target, values)
        self.equations = linear.equations()
        jacobian = linear.derivative
        self.multiplier = self.equations.solve(jacobian(full), tolerance=PROJECTED, guess=guess)
        normal = jacobian.adjoint(self.multiplier)
        self.corrected = self.value - float(np.vdot(self.multiplier, linear.defect))
        self.gradient = [g - part for g, part in zip(full, normal, strict=True)]

    def feasible(self, values: list[np.ndarray]) -> tuple[list[np.ndarray], float] | None:
        """Returns a point of the solution set near another, if chord steps lead there.

        Beside it stands the surrogate less multiplier times defect: what it is on the set itself.
        """
        last = len(values[0]) ** 0.5 / 4
        for _ in range(CORRECTIONS + 1):
            try:
                off = defect(self.word, self.target, values)
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
        """Returns the surrogate at another point."""
        return power_norm(all_blocks(self.word, self.target, values), self.power)


class _Memory:
    """The inverse Hessian as the last pairs of step and change of gradient saw it."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Blocks, Blocks, float]] = []

    def learn(self, step: Blocks, change: Blocks) -> None:
        """Keeps a pair, if the gradient grew along the step."""
        curvature = _dot(step, change)
        if curvature > STRAIGHT * (_dot(step, step) * _dot(change, change)) ** 0.5:
            self.pairs = [*self.pairs[1 - MEMORY :], (step, change, curvature)]

    def direction(self, gradient: Blocks) -> list[np.ndarray]:
        """Returns the quasi-Newton step: the two-loop recursion."""
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
    """Returns a step, its length and the point there, low enough; None if there is none."""
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
        memory.pairs = []  # what was learnt does not hold here: once more along the gradient


def _dot(one: Blocks, other: Blocks) -> float:
    """Returns the inner product of two steps."""
    return float(sum(np.vdot(a, b) for a, b in zip(one, other, strict=True)))
