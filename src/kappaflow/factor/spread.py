r"""Positive scalar diagonals that make the worst-conditioned factor as good as they can.

Between two factors one may put diag(alpha, beta) and its inverse. That multiplies weights by
ratios and gives each factor a scale g. The condition number of (1, 0; w, g) satisfies
cond + 1/cond = g + 1/g + w^2/g, a posynomial in g and w: the best scales are a geometric program,
convex in their logarithms, with one unknown a factor. It also spreads the scale of the whole map.
"""

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import minimize

from kappaflow.factor.factors import Factor

TASTE = 1e-3  # weight of the mean in an objective that is the worst: it settles the others
STEPS = 300


def spread(
    factors: Sequence[Factor],
    *,
    scale: float = 1.0,
    limit: float = np.inf,
    free: Collection[int] = (),
) -> list[Factor]:
    """Returns factors of `scale` times the product of the given ones, better conditioned.

    Args:
        factors: Lower and upper ones, in the order of the product.
        scale: Of the whole map, above 0.
        limit: No factor may be worse than this, if it is within it at the start and not among the
            free ones, which have to do with that.
        free: Numbers of factors that may be worse than the limit.

    Returns:
        Factors with the same product, times `scale`.

    Source:
        Ours. Geometric programs: Boyd, Kim, Vandenberghe, Hassibi 2007.
    """
    problem = _Problem(factors, limit, free)
    return _scaled(factors, np.exp(problem.solved(np.log(scale))))


class _Problem:
    """The logarithms of the costs, and their slopes, as functions of y = log g."""

    def __init__(
        self, factors: Sequence[Factor], limit: float = np.inf, free: Collection[int] = ()
    ) -> None:
        self.lower = np.array([f.lower for f in factors])
        sizes = [np.abs(f.diagonal) for f in factors]
        self.high = np.log([size.max() for size in sizes])
        self.low = np.log([size.min() for size in sizes])
        self.norms = np.log([_norm(f.weight) for f in factors])
        self.inverse_norms = np.log([_norm(f.weight / f.diagonal[:, None]) for f in factors])
        # The ratio alpha / beta before a factor: how often each scale went into it.
        sides = np.where(self.lower, -1.0, 1.0)
        self.ratio = np.tril(np.outer(-sides, sides), -1)
        self.limits = np.full(len(factors), np.log(limit + 1 / limit) if limit < np.inf else limit)
        self.limits[list(free)] = np.inf

    def costs(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns log(cond + 1/cond) of each factor (m,), and the slopes (m, m).

        For a diagonal of several sizes it is a bound: |M|^2 <= 1 + max d^2 + |W|^2, and the same
        of the inverse, whose blocks are 1/d and -W/d.
        """
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
        """Returns the best y: the worst cost is least, the scales make up the whole."""
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
        found = minimize(
            lambda v: v[m] + TASTE * self.costs(v[:m])[0].mean(),
            np.append(start, costs.max()),
            jac=lambda v: np.append(TASTE * self.costs(v[:m])[1].mean(0), 1.0),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": STEPS, "ftol": 1e-10},
        ).x[:m]
        for side in sides:  # exactly
            found = found + side * (log_scale - side @ found) / side.sum()
        better = np.isfinite(found).all() and self.costs(found)[0].max() < costs.max()
        return found if better else start


def _norm(weight: np.ndarray) -> float:
    """Returns the largest singular value, or a number that has a logarithm."""
    return max(float(np.linalg.norm(weight, 2)), 1e-100) if weight.size else 1e-100


def _linear(matrix: np.ndarray, offset: np.ndarray) -> dict:
    """Returns the constraint matrix v + offset = 0."""
    return {"type": "eq", "fun": lambda v: matrix @ v + offset, "jac": lambda _: matrix}


def _scaled(factors: Sequence[Factor], scales: np.ndarray) -> list[Factor]:
    """Returns the factors with these scales in their diagonals and what that does to weights."""
    upper = lower = 1.0  # diag(alpha, beta) so far
    changed = []
    for factor, g in zip(factors, scales, strict=True):
        ratio = upper / lower if factor.lower else lower / upper
        changed.append(Factor(factor.lower, factor.weight * ratio, factor.diagonal * g))
        if factor.lower:
            lower *= g
        else:
            upper *= g
    return changed
