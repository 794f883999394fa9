"""Lowers the condition numbers of the couplings of a small map over all blocks and scales at once.

The search works on unit couplings, and `rescale` then keeps the products of the scales of both
sides. One-scale couplings have one more free scale: the scales of the upper ones may have the
product h, and those of the lower ones 1/h. Maps with a large and a small singular value in one
half need it. Here all blocks and scales are unknowns, with the product as constraint.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from kappaflow.factor.budget import report, spend
from kappaflow.factor.coupling import Factor

POWERS = (4, 16, 64, 64)  # of smooth norms, which approach the largest singular value
STEPS = 200
NEWTON_STEPS = 6
CLOSE = 1e-2  # largest relative residual before Newton's method
ROUNDING = 1e-14  # relative residual that needs no improvement


def free_scales(factors: Sequence[Factor], matrix: np.ndarray) -> list[Factor]:
    """Returns factors of the matrix that are no worse conditioned than those with equal scales."""
    program = _Program(factors, matrix)
    values = program.start
    report("improving all scales")
    for power in POWERS:
        spend(STEPS * len(values) ** 3)
        values = program.minimized(values, power)
    for _ in range(NEWTON_STEPS):
        residual, slope = program.residual(values), program.slope(values)
        if not np.linalg.norm(residual) < CLOSE:
            return list(factors)
        values = values - np.linalg.lstsq(slope, residual)[0]
    trial = program.factors(values)
    worst, best = (
        max(factor.condition_number for factor in product) for product in (factors, trial)
    )
    left = np.linalg.norm(program.residual(values))
    accurate = left <= max(np.linalg.norm(program.residual(program.start)), ROUNDING)
    return trial if accurate and best < worst else list(factors)


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
