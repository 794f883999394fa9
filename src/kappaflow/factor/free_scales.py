"""Lowers the condition numbers of the couplings of a small map over all blocks and scales at once.

The search works on unit couplings, and `rescale` then keeps the products of the scales of both
sides. One-scale couplings have one more free scale: the scales of the upper ones may have the
product h, and those of the lower ones 1/h. Maps with a large and a small singular value in one
half need it. Here all blocks and scales are unknowns, with the product as constraint.
`follow_with_free_scales` does this for maps on a path, each from the solution of the last.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from kappaflow.factor.budget import report, spend
from kappaflow.factor.coupling import Factor
from kappaflow.factor.paths import Path

POWERS = (4, 16, 64, 64)  # of smooth norms, which approach the largest singular value
STEPS = 200
NEWTON_STEPS = 6
CLOSE = 1e-2  # largest relative residual before Newton's method
ROUNDING = 1e-14  # relative residual that needs no improvement
STRIDE = 1.5  # what a step along a path adds to the logarithm of the largest condition number


def free_scales(factors: Sequence[Factor], matrix: np.ndarray) -> list[Factor]:
    """Returns factors of the matrix that are no worse conditioned than those with equal scales."""
    report("improving all scales")
    program = _Program(factors, matrix)
    return program.better(factors, program.solved())


def follow_with_free_scales(
    factors: Sequence[Factor], matrix: np.ndarray, first: Callable[[np.ndarray], Sequence[Factor]]
) -> list[Factor]:
    """Returns factors of the end of a path of maps, no worse conditioned than the given ones."""
    # `first` finds the factors of a map near the start of the path.
    path = Path(matrix)
    steps = max(1, int(np.ceil(np.log(path.condition) / (2 * STRIDE))))
    near, *maps = *(path.at(step / steps).matrix for step in range(1, steps)), matrix
    moved = free_scales(first(near), near)
    for step, following in enumerate(maps, start=2):
        report(f"following the path with all scales free, {step / steps:.0%}")
        solved = _Program(moved, following).solved()
        if solved is None:
            return list(factors)
        moved = solved
    return _Program(factors, matrix).better(factors, moved)


class _Program:
    """Unknowns: all weights, then the logarithms of all scales."""

    def __init__(self, factors: Sequence[Factor], matrix: np.ndarray) -> None:
        self.lower = [factor.lower for factor in factors]
        self.shapes = [factor.weight.shape for factor in factors]
        self.matrix, self.size = matrix, np.linalg.norm(matrix)
        scales = [np.log(factor.diagonal[0]) for factor in factors]
        self.start = np.concatenate([*(factor.weight.ravel() for factor in factors), scales])
        ends = np.cumsum([0, *(rows * columns for rows, columns in self.shapes)])
        self.parts = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]

    def factors(self, values: np.ndarray) -> list[Factor]:
        """Returns the couplings."""
        scales = np.exp(values[-len(self.lower) :])
        return [
            Factor(lower, values[part].reshape(shape), np.full(shape[0], scale))
            for lower, part, shape, scale in zip(
                self.lower, self.parts, self.shapes, scales, strict=True
            )
        ]

    def solved(self) -> list[Factor] | None:
        """Returns factors near a minimum of the largest cost, or None if none were found."""
        values = self.start
        for power in POWERS:
            spend(STEPS * len(values) ** 3)
            values = self.minimized(values, power)
        for _ in range(NEWTON_STEPS):
            residual, slope = self.residual(values), self.slope(values)
            if not np.linalg.norm(residual) < CLOSE:
                return None
            values = values - np.linalg.lstsq(slope, residual)[0]
        return self.factors(values)

    def better(self, factors: Sequence[Factor], trial: list[Factor] | None) -> list[Factor]:
        """Returns the trial if it is as accurate as the factors, and better conditioned."""
        if trial is None or not self._off(trial) <= max(self._off(factors), ROUNDING):
            return list(factors)
        worst, best = (
            max(factor.condition_number for factor in product) for product in (factors, trial)
        )
        return trial if best < worst else list(factors)

    def _off(self, factors: Sequence[Factor]) -> float:
        """Returns the relative residual of factors."""
        return float(np.linalg.norm(self.residual(_Program(factors, self.matrix).start)))

    def residual(self, values: np.ndarray) -> np.ndarray:
        """Returns the product minus the matrix, flat, in units of the norm of the matrix."""
        product = np.eye(len(self.matrix))
        for factor in self.factors(values):
            product = product @ factor.matrix
        return (product - self.matrix).ravel() / self.size

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Returns the derivative of the residual."""
        factors, n = self.factors(values), len(self.matrix)
        after = [np.eye(n)]
        for factor in factors[:0:-1]:
            after.append(factor.matrix @ after[-1])
        before, slope = np.eye(n), np.zeros((n * n, len(values)))
        for i, (factor, part, right) in enumerate(
            zip(factors, self.parts, after[::-1], strict=True)
        ):
            rows, read = factor.sides
            slope[:, part] = np.einsum("ac,kb->abck", before[:, rows], right[read]).reshape(
                n * n, -1
            )
            scaled = factor.diagonal[0] * before[:, rows] @ right[rows]
            slope[:, i - len(factors)] = scaled.ravel()
            before = before @ factor.matrix
        return slope / self.size

    def costs(self, values: np.ndarray, power: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns log(g + 1/g + |W|^2 / g) of each coupling with a smooth norm, and the slopes."""
        factors = self.factors(values)
        costs, slopes = np.zeros(len(factors)), np.zeros((len(factors), len(values)))
        for i, (factor, part) in enumerate(zip(factors, self.parts, strict=True)):
            left, sizes, right = np.linalg.svd(factor.weight)
            largest = max(sizes[0], 1e-100)
            total = np.sum((sizes / largest) ** (2 * power))
            square = largest**2 * total ** (1 / power)
            g = factor.diagonal[0]
            cost = g + 1 / g + square / g
            inner = 2 * square / total * (sizes / largest) ** (2 * power - 1) / largest
            costs[i] = np.log(cost)
            slopes[i, part] = ((left * inner) @ right).ravel() / (g * cost)
            slopes[i, i - len(factors)] = (g - 1 / g - square / g) / cost
        return costs, slopes

    def minimized(self, values: np.ndarray, power: int) -> np.ndarray:
        """Returns values near a minimum of the largest cost, which is one more unknown."""
        with np.errstate(all="ignore"):  # in trial steps that go too far
            return self._minimized(values, power)

    def _minimized(self, values: np.ndarray, power: int) -> np.ndarray:
        last = np.append(np.zeros(len(values)), 1.0)
        return minimize(
            lambda v: v[-1],
            np.append(values, self.costs(values, power)[0].max()),
            jac=lambda _: last,
            constraints=[
                {
                    "type": "eq",
                    "fun": lambda v: self.residual(v[:-1]),
                    "jac": lambda v: np.pad(self.slope(v[:-1]), ((0, 0), (0, 1))),
                },
                {
                    "type": "ineq",
                    "fun": lambda v: v[-1] - self.costs(v[:-1], power)[0],
                    "jac": lambda v: last - np.pad(self.costs(v[:-1], power)[1], ((0, 0), (0, 1))),
                },
            ],
            method="SLSQP",
            options={"maxiter": STEPS, "ftol": 1e-9},
        ).x[:-1]
