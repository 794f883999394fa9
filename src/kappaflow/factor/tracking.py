r"""Six or more well-conditioned couplings of any map, by following the path from a rotation."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError

from kappaflow.errors import NumericalError
from kappaflow.factor.descent import descend
from kappaflow.factor.newton import Target, Word, all_blocks, move, newton
from kappaflow.factor.rotation import rotation_start
from kappaflow.factor.six import six_blocks

Blocks = Sequence[np.ndarray]
NUDGE = 1e-2
ON_THE_PATH = 1e-6
STRIDE = 2.0
SHORTEST = 1e-3


class Path:
    """T(t) = O S^t from the rotation O of T = O S to T itself."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._left, values, self._right = np.linalg.svd(matrix)
        self._logs = np.log(values)
        self.rotation = self._left @ self._right
        self.length = self._logs[0] - self._logs[-1]

    def at(self, t: float) -> Target:
        scales = np.exp(t * self._logs)
        return Target((self._left * scales) @ self._right, (self._right.T / scales) @ self._left.T)


def follow(word, path: Path, values: Blocks, *, inner: int = 5, power: int = 2, log=None) -> list[np.ndarray]:
    t, stride = 0.0, min(1.0, STRIDE / path.length if path.length > 0 else 1.0)
    values, _, _ = newton(word, path.at(0.0), values)
    while t < 1:
        there = min(1.0, t + stride)
        target = path.at(there)
        trial, error, taken = newton(word, target, values, tolerance=ON_THE_PATH, steps=8)
        if error > ON_THE_PATH:
            stride /= 2
            if stride < SHORTEST: raise NumericalError("lost")
            continue
        t, values = there, descend(word, target, trial, power=power, steps=inner)
        if log: log(t, taken, target, values)
        if taken <= 5: stride *= 1.5
    return values

def start(word, path, seed=0, nudge=NUDGE):
    generator = np.random.default_rng(seed)
    six = six_blocks(path.rotation, *rotation_start(path.rotation))
    d = len(six[0]); k = word.couplings
    values = list(six) + [np.zeros((d, d)) for _ in range(word.couplings - 6)]
    if word.start:
        values = values[6:] + values[:6]
    values = values[:word.before]+values[word.before+3:]
    return move(values, [nudge * generator.standard_normal((d, d)) / d**0.5 for _ in values])
