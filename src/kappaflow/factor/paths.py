"""Paths of maps for numerical continuation, from a map with known couplings to the given map."""

import numpy as np
from numpy.linalg import norm
from scipy.linalg import expm

from kappaflow.factor.algebra import FactorTarget
from kappaflow.factor.rotation import rotation_solution, six_blocks

STRIDE = 1.0  # what a step adds to the log of the condition number while stretching
TURN_STRIDE = 0.5  # length of a step while turning, in radians
PARALLEL = 1e-8
DEGENERATE = 0.2  # norm below which a block counts as nearly zero
FIRST_STEPS = 4.0  # smallest number of steps, for blocks that grow from zero


class Path:
    """The path T(t) = O S^t, from the rotation O nearest to T = O S at t = 0, to T at t = 1.

    T, (n, n), has determinant 1. For odd n the closed form leaves the last feature alone. The path
    then begins at t = -1: until t = 0, a rotation in one plane turns (O', 0; 0, 1) into O.

    A twisted path begins at exp(K) O with a skew matrix K, and turns back while it stretches: T(t)
    = exp((1 - t) K) O S^t.

    `degenerate` tells whether a block of the closed form at the beginning is nearly zero, as for
    the identity, which is the O of each symmetric positive definite map. The equation is then
    degenerate at the start, and descent would make it worse.
    """

    nudge = 1e-2  # size of the step away from a degenerate start, such as the identity

    def __init__(self, matrix: np.ndarray, *, twisted: bool = False) -> None:
        self._left, values, self._right = np.linalg.svd(matrix)
        self._logs = np.log(values) - np.log(values).mean()
        self._rotation, self._twist = self._left @ self._right, None
        self.condition = float(values[0] / values[-1])
        self._turns = np.zeros((0, 2)), 0.0
        self.begin = 0.0
        if twisted:
            self._twist = _skew(len(matrix))
            self._rotation = expm(self._twist) @ self._rotation
        if len(matrix) % 2:
            self.begin = -1.0
            self._turns = _last_turn(self._rotation)
        self.degenerate = min(norm(block, 2) for block in self.blocks()) < DEGENERATE

    def at(self, t: float) -> FactorTarget:
        """Returns T(t) and its inverse, each computed from factors with known inverses."""
        if t < 0:
            rotation = self._turned_back(-t)
            return FactorTarget(rotation, rotation.T)
        scales = np.exp(t * self._logs)
        left = self._left if self._twist is None else expm((1 - t) * self._twist) @ self._left
        return FactorTarget((left * scales) @ self._right, (self._right.T / scales) @ left.T)

    def stride(self, t: float) -> float:
        """Returns the length of the first step from t."""
        length = np.log(self.condition) / STRIDE if t >= 0 else self._turns[1] / TURN_STRIDE
        twist = 0.0 if t < 0 or self._twist is None else norm(self._twist, 2) / TURN_STRIDE
        return 1.0 / max(length, twist, 1.0)

    def blocks(self) -> list[np.ndarray]:
        """Returns six blocks of the rotation at the beginning, in closed form."""
        start = self.at(self.begin).matrix
        d = len(start) // 2
        even = start[: 2 * d, : 2 * d]
        blocks = six_blocks(even, *rotation_solution(even))
        pad = len(start) - 2 * d
        lower, upper = ((0, pad), (0, 0)), ((0, 0), (0, pad))
        return [np.pad(b, upper if i % 2 else lower) for i, b in enumerate(blocks)]

    def _turned_back(self, part: float) -> np.ndarray:
        plane, angle = self._turns
        return _turn(plane, -part * angle) @ self._rotation


class FiveCouplingPath:
    """A path for five couplings, on which the upper right block stays invertible.

    With W = R - S Q^-1 P, the map, (2d, 2d), of determinant 1, consists of P, Q, S and W. P and S
    grow from zero; Q and W stretch from the rotations nearest to them.
    """

    begin = 0.0
    nudge = 0.1  # the start is always degenerate, since K and Z have the same planes

    def __init__(self, matrix: np.ndarray) -> None:
        d = len(matrix) // 2
        self._p, self._s = matrix[:d, :d], matrix[d:, d:]
        q = matrix[:d, d:]
        w = matrix[d:, :d] - self._s @ np.linalg.solve(q, self._p)
        self._q, self._w = np.linalg.svd(q), np.linalg.svd(w)
        self.condition = float(np.linalg.cond(matrix))
        self._length = max(np.ptp(np.log(self._q[1])), np.ptp(np.log(self._w[1])))

    def at(self, t: float) -> FactorTarget:
        """Returns T(t) and its inverse."""
        p, s = t * self._p, t * self._s
        (q, q_inverse), (w, w_inverse) = _stretched(self._q, t), _stretched(self._w, t)
        matrix = np.block([[p, q], [w + s @ q_inverse @ p, s]])
        left, right = -w_inverse @ s @ q_inverse, -q_inverse @ p @ w_inverse
        inverse = np.block([[left, w_inverse], [q_inverse - q_inverse @ p @ left, right]])
        return FactorTarget(matrix, inverse)

    def stride(self, t: float) -> float:
        """Returns the length of the first step."""
        return STRIDE / max(self._length, FIRST_STEPS)

    def blocks(self) -> list[np.ndarray]:
        """Returns five blocks of the rotation at the beginning, in closed form."""
        start = self.at(0.0).matrix
        return list(six_blocks(start, *rotation_solution(start))[:5])


def _stretched(factors: tuple, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns U s^t V and its inverse, from a singular value decomposition."""
    left, values, right = factors
    return (left * values**t) @ right, (right.T * values**-t) @ left.T


def _skew(n: int) -> np.ndarray:
    """Returns a fixed skew matrix of norm 1."""
    drawn = np.random.default_rng(0).standard_normal((n, n))
    skew = drawn - drawn.T
    return skew / norm(skew, 2)


def _last_turn(rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the plane (n, 2) and the angle that rotate the last unit vector to its image."""
    last = np.eye(len(rotation))[-1]
    image = rotation[:, -1]
    across = image - image[-1] * last
    if norm(across) < PARALLEL:
        across = np.eye(len(rotation))[0]
    angle = float(np.arctan2(norm(image[:-1]), image[-1]))
    return np.stack((last, across / norm(across)), 1), angle


def _turn(plane: np.ndarray, angle: float) -> np.ndarray:
    """Returns the rotation by an angle in a plane, from its first vector to its second."""
    cosine, sine = np.cos(angle), np.sin(angle)
    change = np.array([[cosine - 1, -sine], [sine, cosine - 1]])
    return np.eye(len(plane)) + plane @ change @ plane.T
