"""The lower bound for uneven parts is met by its own hardest map: couplings found on a path."""

import numpy as np
import pytest
from scipy.linalg import block_diag, expm, logm, polar

from kappaflow_studies.theory import couplings_needed

SLOW = pytest.mark.slow  # its first paths end
STEPS = 10  # of Newton, before a step along the path is halved


class Pattern:
    """L U L U ... with unit diagonals, and positive diagonals in front, as one vector."""

    def __init__(self, first, second, length):
        self.first, self.n, self.length = first, first + second, length
        self.size = first * second
        self.parameters = length * self.size + self.n

    def couplings(self, vector):
        """Returns the unit couplings, and the diagonal."""
        made = []
        for i in range(self.length):
            block = vector[i * self.size : (i + 1) * self.size]
            coupling = np.eye(self.n)
            if i % 2 == 0:
                coupling[self.first :, : self.first] = block.reshape(-1, self.first)
            else:
                coupling[: self.first, self.first :] = block.reshape(self.first, -1)
            made.append(coupling)
        return made, np.exp(vector[self.length * self.size :])

    def product(self, vector):
        """Returns the map."""
        couplings, diagonal = self.couplings(vector)
        return np.linalg.multi_dot([np.diag(diagonal), *couplings])

    def jacobian(self, vector):
        """Returns the derivative of the entries of the map, a column a parameter."""
        couplings, diagonal = self.couplings(vector)
        before, after = [np.diag(diagonal)], [np.eye(self.n)]
        for left, right in zip(couplings, reversed(couplings), strict=True):
            before.append(before[-1] @ left)
            after.append(right @ after[-1])
        columns, a, b = [], slice(0, self.first), slice(self.first, self.n)
        for i, (left, right) in enumerate(zip(before, after[-2::-1], strict=False)):
            changed, kept = (b, a) if i % 2 == 0 else (a, b)
            both = np.einsum("ir,cj->ijrc", left[:, changed], right[kept])
            columns.append(both.reshape(self.n**2, -1))
        rows = np.einsum("ik,kj->ijk", np.eye(self.n), before[-1])
        return np.hstack([*columns, rows.reshape(self.n**2, -1)])

    def newton(self, vector, goal):
        """Returns the nearest parameters of a map, roughly, or None."""
        for _ in range(STEPS):
            missing = (goal - self.product(vector)).ravel()
            if np.linalg.norm(missing) < 1e-11 * np.linalg.norm(goal):
                return vector
            step = np.linalg.lstsq(self.jacobian(vector), missing, rcond=1e-11)[0]
            if not np.linalg.norm(step) < 1:
                return None
            vector = vector + step
        return None

    def smaller(self, vector, goal):
        """Returns parameters of the same map with smaller blocks."""
        down = 0.02 * (vector + vector**3)
        J = self.jacobian(vector)
        down -= J.T @ np.linalg.lstsq(J.T, down, rcond=1e-9)[0]
        down *= min(1, 0.3 / np.linalg.norm(down))
        found = self.newton(vector - down, goal)
        return vector if found is None else found


def follow(pattern, goal, seed):
    """Returns the parameters of a map, followed from random ones, or None."""
    start = np.random.default_rng(seed).standard_normal(pattern.parameters) * 0.5
    start[-pattern.n :] *= 0.2
    start[-pattern.n :] -= start[-pattern.n :].mean()
    origin = pattern.product(start)
    turn, stretch = polar(np.linalg.solve(origin, goal))
    angle, (values, basis) = logm(turn), np.linalg.eigh(stretch)
    vector, t, step = start, 0.0, 0.05
    while t < 1 and step > 1e-4:
        s = min(1.0, t + step)
        there = origin @ expm(s * angle.real) @ (basis * values**s) @ basis.T
        found = pattern.newton(vector, there)
        step = step / 2 if found is None else min(1.5 * step, 0.1)
        if found is not None:
            t, vector = s, pattern.smaller(pattern.smaller(found, there), there)
    return vector if t == 1 else None


@pytest.mark.parametrize(
    "parts",
    [(1, 2), (2, 3), (2, 4), (1, 3), (2, 6), (1, 4), (1, 5), pytest.param((3, 6), marks=SLOW)],
)
def test_the_hardest_map_is_reached_with_as_many_couplings_as_are_needed(parts):
    """A cycle whose weights multiply to -1: positive diagonals, no large condition number."""
    first, second = parts
    cycle = np.eye(second)[np.roll(np.arange(second), -1)]
    cycle[0] *= -1
    goal = block_diag(np.diag([np.linalg.det(cycle)] + [1] * (first - 1)), cycle)
    pattern = Pattern(first, second, couplings_needed(first, second).every.least)
    found = next(v for seed in range(4) if (v := follow(pattern, goal, seed)) is not None)
    np.testing.assert_allclose(pattern.product(found), goal, atol=1e-9)
    couplings, diagonal = pattern.couplings(found)
    assert max(map(np.linalg.cond, couplings)) < 30
    assert diagonal.max() < 30 * diagonal.min()


def test_the_derivative_is_that_of_the_product():
    """Against differences."""
    pattern = Pattern(2, 3, 5)
    vector, direction = np.random.default_rng(0).standard_normal((2, pattern.parameters)) / 2
    difference = pattern.product(vector + 1e-6 * direction) - pattern.product(
        vector - 1e-6 * direction
    )
    np.testing.assert_allclose(
        (pattern.jacobian(vector) @ direction).reshape(5, 5), difference / 2e-6, atol=1e-7
    )
