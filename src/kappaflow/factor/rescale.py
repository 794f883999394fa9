"""Rescales the factors of a linear map to minimize their worst condition number.

Inserting diag(alpha, beta) and its inverse between two factors does not change the product. It
multiplies the weights by ratios and gives each factor a scale g. The condition number of
(1, 0; w, g) satisfies cond + 1/cond = g + 1/g + w^2/g, a posynomial in g and w. So the best scales
solve a geometric program, which is convex in their logarithms and has one unknown for each factor.
The same program distributes the scale of the whole map over the factors.
"""

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import minimize

from kappaflow.factor.coupling import Factor

TIE_BREAK = 1e-3  # weight of the mean cost: it fixes the scales of all factors but the worst
STEPS = 300


def rescale(
    factors: Sequence[Factor],
    *,
    scale: float = 1.0,
    limit: float = np.inf,
    free: Collection[int] = (),
) -> list[Factor]:
    """Returns better-conditioned factors of `scale` times the product of the given ones."""
    # No condition number exceeds `limit`, except those in `free` or above it at first. A
    # geometric program: Boyd, Kim, Vandenberghe, Hassibi 2007.
    problem = _ScaleProgram(factors, limit, free)
    return _scaled(factors, np.exp(problem.solved(np.log(scale))))


class _ScaleProgram:
    """The geometric program: log-costs of the factors and their slopes, in y = log g."""

    def __init__(
        self, factors: Sequence[Factor], limit: float = np.inf, free: Collection[int] = ()
    ) -> None:
        self.lower = np.array([f.lower for f in factors])
        sizes = [np.abs(f.diagonal) for f in factors]
        self.high = np.log([size.max() for size in sizes])
        self.low = np.log([size.min() for size in sizes])
        self.norms = np.log([_norm(f.weight) for f in factors])
        self.inverse_norms = np.log([_norm(f.weight / f.diagonal[:, None]) for f in factors])
        # Exponents of the scales in the ratio alpha / beta before each factor.
        sides = np.where(self.lower, -1.0, 1.0)
        self.ratio = np.tril(np.outer(-sides, sides), -1)
        self.limits = np.full(len(factors), np.log(limit + 1 / limit) if limit < np.inf else limit)
        self.limits[list(free)] = np.inf

    def costs(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns log(cond + 1/cond) of each factor, (m,), and its derivatives, (m, m)."""
        # An upper bound if a diagonal has entries of different sizes: |M|^2 <= 1 + max d^2 +
        # |W|^2.
        eye, value, slope = np.eye(len(y)), np.zeros(len(y)), np.zeros((len(y), len(y)))
        for size, norm, sign in ((self.high, self.norms, 1), (-self.low, self.inverse_norms, -1)):
            weight_slope = self.ratio - (eye if sign < 0 else 0)
            terms = np.stack([0 * y, 2 * (size + sign * y), 2 * (norm + weight_slope @ y)])
            total = np.logaddexp.reduce(terms)
            shares = np.exp(terms - total)[:, :, None]
            value = value + total / 2
            slope = slope + sign * shares[1] * eye + shares[2] * weight_slope
        return value, slope

    def solved(self, log_scale: float) -> np.ndarray:
        """Returns the y with the smallest worst cost, given the scale of the whole map."""
        m = len(self.lower)
        sides = np.stack([self.lower, ~self.lower]).astype(float)
        start = log_scale * (sides / np.maximum(sides.sum(1, keepdims=True), 1)).sum(0)
        if min(sides.sum(1)) == 0:
            return start
        costs = self.costs(start)[0]
        limits = np.where(costs <= self.limits, self.limits, np.inf)
        bounded = np.flatnonzero(np.isfinite(limits))
        constraints = [
            _linear(np.c_[sides, np.zeros(2)], np.full(2, -log_scale)),
            {
                "type": "ineq",
                "fun": lambda v: v[m] - self.costs(v[:m])[0],
                "jac": lambda v: np.c_[-self.costs(v[:m])[1], np.ones(m)],
            },
        ]
        if len(bounded):
            constraints.append({
                "type": "ineq",
                "fun": lambda v: (limits - self.costs(v[:m])[0])[bounded],
                "jac": lambda v: np.c_[-self.costs(v[:m])[1], np.zeros(m)][bounded],
            })
        solution = minimize(
            lambda v: v[m] + TIE_BREAK * self.costs(v[:m])[0].mean(),
            np.append(start, costs.max()),
            jac=lambda v: np.append(TIE_BREAK * self.costs(v[:m])[1].mean(0), 1.0),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": STEPS, "ftol": 1e-10},
        ).x[:m]
        for side in sides:  # satisfy the constraints exactly
            solution = solution + side * (log_scale - side @ solution) / side.sum()
        better = np.isfinite(solution).all() and self.costs(solution)[0].max() < costs.max()
        return solution if better else start


def _norm(weight: np.ndarray) -> float:
    """Returns the largest singular value, or a tiny number so that the logarithm exists."""
    return max(float(np.linalg.norm(weight, 2)), 1e-100) if weight.size else 1e-100


def _linear(matrix: np.ndarray, offset: np.ndarray) -> dict:
    """Returns the constraint `matrix @ v + offset = 0` for scipy."""
    return {"type": "eq", "fun": lambda v: matrix @ v + offset, "jac": lambda _: matrix}


def _scaled(factors: Sequence[Factor], scales: np.ndarray) -> list[Factor]:
    """Returns the factors with these scales in their diagonals and adjusted weights."""
    upper = lower = 1.0  # the current diag(alpha, beta)
    changed = []
    for factor, g in zip(factors, scales, strict=True):
        ratio = upper / lower if factor.lower else lower / upper
        changed.append(Factor(factor.lower, factor.weight * ratio, factor.diagonal * g))
        if factor.lower:
            lower *= g
        else:
            upper *= g
    return changed
