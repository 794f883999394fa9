r"""The path that is followed: from a rotation with closed-form couplings to the map itself."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import norm

from kappaflow.factor.rotation import rotation_start
from kappaflow.factor.six import six_blocks
from kappaflow.factor.word import Target

STRIDE = 1.0  # of the stretch, in units of log cond(T)
TURN_STRIDE = 0.5  # of the turn, in radians
PARALLEL = 1e-8


class Path:
    """T(t) = O S^t, from the rotation nearest to T = O S, at t = 0, to T at t = 1.

    For odd n the closed form leaves the last feature alone. Before, from t = -1 to 0, a rotation
    in one plane then turns (O', 0; 0, 1) into O.

    Args:
        matrix: T, (n, n), with determinant 1.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._left, values, self._right = np.linalg.svd(matrix)
        self._logs = np.log(values) - np.log(values).mean()
        self._rotation = self._left @ self._right
        self.condition = float(values[0] / values[-1])
        self._turns = np.zeros((0, 2)), 0.0
        self.begin = 0.0
        if len(matrix) % 2:
            self.begin = -1.0
            self._turns = _last_turn(self._rotation)

    def at(self, t: float) -> Target:
        """Returns T(t) and its inverse, both from factors that are known with their inverses."""
        if t < 0:
            rotation = self._turned_back(-t)
            return Target(rotation, rotation.T)
        scales = np.exp(t * self._logs)
        inverse = (self._right.T / scales) @ self._left.T
        return Target((self._left * scales) @ self._right, inverse)

    def stride(self, t: float) -> float:
        """Returns how long the first step from here should be."""
        length = np.log(self.condition) / STRIDE if t >= 0 else self._turns[1] / TURN_STRIDE
        return 1.0 / max(length, 1.0)

    def six(self) -> list[np.ndarray]:
        """Returns six blocks of the rotation at the beginning, in closed form."""
        start = self.at(self.begin).matrix
        d = len(start) // 2
        even = start[: 2 * d, : 2 * d]
        blocks = six_blocks(even, *rotation_start(even))
        pad = len(start) - 2 * d
        lower, upper = ((0, pad), (0, 0)), ((0, 0), (0, pad))
        return [np.pad(b, upper if i % 2 else lower) for i, b in enumerate(blocks)]

    def _turned_back(self, part: float) -> np.ndarray:
        plane, angle = self._turns
        return _turn(plane, -part * angle) @ self._rotation


def _last_turn(rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a plane (n, 2) and the angle that take the last unit vector to its image."""
    last = np.eye(len(rotation))[-1]
    image = rotation[:, -1]
    across = image - image[-1] * last
    if norm(across) < PARALLEL:
        across = np.eye(len(rotation))[0]
    return np.stack((last, across / norm(across)), 1), float(np.arctan2(norm(image[:-1]), image[-1]))


def _turn(plane: np.ndarray, angle: float) -> np.ndarray:
    """Returns the rotation by an angle in a plane, from its first vector to its second."""
    cosine, sine = np.cos(angle), np.sin(angle)
    change = np.array([[cosine - 1, -sine], [sine, cosine - 1]])
    return np.eye(len(plane)) + plane @ change @ plane.T
