r"""From one solution to a well-conditioned one: quasi-Newton descent within the solution set."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError

from kappaflow.factor.newton import Linearized, NormalEquations, Target, Word, all_blocks, defect, linearize, move
from kappaflow.factor.surrogate import power_norm, power_norm_gradient

Blocks = Sequence[np.ndarray]

MEMORY = 20  # pairs of step and change of gradient
SUFFICIENT = 1e-4  # Armijo's constant
FEASIBLE = 1e-3  # error of E that counts as on the solution set during the descent
CORRECTIONS = 4
SHORTEST = 1e-4
PATIENCE = 10  # steps over which the surrogate has to fall
TIGHT, LOOSE = 1e-8, 1e-2


def descend(
    word: Word, target: Target,
    values: Blocks,
    *,
    power: int,
    steps: int,
    least_gain: float = 2e-3,
) -> list[np.ndarray]:
    """Returns a point of the solution set, nearly, at which the blocks' power norm is smaller.

    Limited-memory BFGS (Nocedal 1980) on the gradient projected to the solution set; each trial
    goes back to the set by Newton corrections with the matrix of the point it started from.

    Args:
        target: The map.
        values: A solution X, K, Z and outer blocks.
        power: Order of the norm, halved.
        steps: At most so many.
        least_gain: Stop when so many steps as `PATIENCE` gain less than this.

    Returns:
        The point; polish it with `newton`.
    """
    state = _State(word, target, list(values), power)
    memory = _Memory()
    history = [state.value]
    for _ in range(steps):
        step = memory.direction(state.gradient)
        slope = _dot(step, state.gradient)
        if slope >= 0:
            memory = _Memory()
            step = [-g for g in state.gradient]
            slope = _dot(step, state.gradient)
        found = _search(state, step, slope)
        if found is None:
            if memory.empty:
                break
            memory = _Memory()
            continue
        values, length = found
        old = state
        state = _State(word, target, values, power, guess=old.multiplier)
        memory.learn([length * s for s in step], list(map(np.subtract, state.gradient, old.gradient)))
        history.append(state.value)
        if len(history) > PATIENCE and history[-1 - PATIENCE] - history[-1] < least_gain:
            break
    return state.values


class _State:
    """A point of the solution set with its surrogate and the projected gradient."""

    def __init__(
        self, word: Word, target: Target, values: list[np.ndarray], power: int, guess: np.ndarray | None = None
    ) -> None:
        self.word, self.target, self.values, self.power = word, target, values, power
        self.value, full = power_norm_gradient(word, target, values, power)
        self.linear: Linearized = linearize(word, target, values)
        self.equations: NormalEquations = self.linear.equations()
        jacobian = self.linear.derivative
        self.multiplier = self.equations.solve(jacobian(full), tolerance=LOOSE, guess=guess)
        self.gradient = list(map(np.subtract, full, jacobian.adjoint(self.multiplier)))


class _Memory:
    """The inverse Hessian as the last pairs saw it: the two-loop recursion."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Blocks, Blocks, float]] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is learnt yet."""
        return not self._pairs

    def learn(self, step: Blocks, change: Blocks) -> None:
        """Keeps a pair, if the gradient grew along the step."""
        curvature = _dot(step, change)
        if curvature > 1e-8 * (_dot(step, step) * _dot(change, change)) ** 0.5:
            self._pairs = [*self._pairs[1 - MEMORY :], (step, change, curvature)]

    def direction(self, gradient: Blocks) -> list[np.ndarray]:
        """Returns the quasi-Newton step."""
        step, weights = [-g for g in gradient], []
        for s, y, curvature in reversed(self._pairs):
            weights.append(_dot(s, step) / curvature)
            step = [a - weights[-1] * b for a, b in zip(step, y, strict=True)]
        if self._pairs:
            _, y, curvature = self._pairs[-1]
            step = [curvature / _dot(y, y) * a for a in step]
        for (s, y, curvature), weight in zip(self._pairs, reversed(weights), strict=True):
            shift = weight - _dot(y, step) / curvature
            step = [a + shift * b for a, b in zip(step, s, strict=True)]
        return step


def _search(state: _State, step: Blocks, slope: float) -> tuple[list[np.ndarray], float] | None:
    """Returns the first point along a step, halved as often as needed, that is low enough."""
    length = 1.0
    while length > SHORTEST:
        trial = _feasible(state, move(state.values, step, length))
        if trial is not None:
            value = power_norm(all_blocks(state.word, state.target, trial), state.power)
            if value < state.value + SUFFICIENT * length * slope:
                return trial, length
        length /= 2
    return None


def _feasible(state: _State, values: list[np.ndarray]) -> list[np.ndarray] | None:
    """Returns a point of the solution set near another, if chord steps lead there."""
    last = np.inf
    try:
        for _ in range(CORRECTIONS + 1):
            off = defect(state.word, state.target, values)
            error = np.linalg.norm(off)
            if error <= FEASIBLE:
                return values
            if not error < last / 2 or error > 1:
                return None
            values = move(values, state.equations.least_norm(-off, tolerance=LOOSE))
            last = error
    except LinAlgError:
        return None
    return None


def _dot(one: Blocks, other: Blocks) -> float:
    """Returns the inner product of two steps."""
    return float(sum(np.vdot(a, b) for a, b in zip(one, other, strict=True)))
