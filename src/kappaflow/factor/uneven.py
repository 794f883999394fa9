"""Couplings for parts of different sizes, with positive diagonals, by numerical continuation.

All blocks and diagonals are unknowns here, and a step solves a dense (n^2, n^2) system, so n must
be small. For halves d and d, or d and d + 1, `continuation` is faster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError, norm
from scipy.linalg import cho_factor, cho_solve, schur

from kappaflow.errors import NumericalError
from kappaflow.factor.budget import report, spend
from kappaflow.factor.coupling import Factor

ATTEMPTS = 6
FIRST_STEP = 0.1  # first step, as a share of the path
SHORTEST = 1e-4
NEWTON_STEPS = 5
ON_THE_PATH = 1e-2
POLISH = 1e-12
SMALL = 1e-10  # largest residual of a result
SHRINK = 0.2  # fraction by which each step shrinks the blocks, as far as the product allows
SHRINKING_STEPS = 25
LARGEST = 48  # largest n; twice as many would need 20 GB of memory
START = 0.7  # approximate norm of the first blocks


@dataclass(frozen=True)
class _Coupling:
    """A factor whose diagonal is positive and stored as a logarithm, (changed,)."""

    lower: bool
    weight: np.ndarray
    log_scale: np.ndarray

    @property
    def factor(self) -> Factor:
        return Factor(self.lower, self.weight, np.exp(self.log_scale))

    @property
    def matrix(self) -> np.ndarray:
        return self.factor.matrix

    def after(self, step: np.ndarray, log_step: np.ndarray) -> "_Coupling":
        """Returns the product of a coupling close to the identity and this one."""
        weight = step + np.exp(log_step)[:, None] * self.weight
        return _Coupling(self.lower, weight, self.log_scale + log_step)


def enough_couplings(first: int, second: int) -> int:
    """Returns 2 ceil(larger / smaller) + 2, at least 6: enough for every map in our tests."""
    smaller, larger = sorted((first, second))
    return max(6, 2 * -(-larger // smaller) + 2)


def continue_uneven(
    matrix: np.ndarray, first: int, *, couplings: int | None = None, seed: int = 0
) -> list[Factor]:
    """Returns couplings of the first p features and the others with product T, det T > 0."""
    # Uses 8 n^4 bytes of memory and time proportional to n^6: minutes at 40 features.
    n = len(matrix)
    if n > LARGEST:
        raise NumericalError(
            f"{n} features in parts of {first} and {n - first} are too many for a search, which "
            f"handles up to {LARGEST} features. Use two halves, or "
            "method='svd' with couplings=None, a closed form at any size."
        )
    count = couplings or enough_couplings(first, n - first)
    trouble = ""
    for attempt in range(ATTEMPTS):
        try:
            pattern = _follow(_random(n, first, count, seed + attempt), matrix)
            pattern = _polished(pattern, matrix)
        except (LinAlgError, NumericalError) as error:
            trouble = str(error)
            continue
        residual = norm(_product(pattern) - matrix) / norm(matrix)
        if residual < SMALL:
            return [coupling.factor for coupling in pattern]
        trouble = f"the product has a residual of {residual:.1e}"
    raise NumericalError(
        f"found no {count} couplings of ({first}, {n - first}) features in {ATTEMPTS} "
        f"attempts: {trouble}. Likely causes: (a) too few couplings for this partition, "
        f"{enough_couplings(first, n - first)} were enough for other maps; (b) an "
        "ill-conditioned map; (c) unlucky starts: try another 'seed', or two couplings more."
    )


class _Step:
    """The derivative of the product, relative to the product, and its Gram matrix.

    An increment (w, s) of a coupling multiplies it by (1, 0; w, exp s) on the left.
    """

    def __init__(self, pattern: list[_Coupling]) -> None:
        n = sum(pattern[0].weight.shape)
        spend(n**6 / 3)
        self.parts = []
        before, back = np.eye(n), np.eye(n)
        gram = np.zeros((n * n, n * n))
        for coupling in pattern:
            changed, kept = coupling.factor.sides
            left, right = before[:, changed], back[kept]
            scaled = np.einsum("ic,cj->ijc", left, back[changed]).reshape(n * n, -1)
            gram += np.kron(left @ left.T, right.T @ right) + scaled @ scaled.T
            self.parts.append((left.copy(), right.copy(), scaled))
            before = before @ coupling.matrix
            back = np.linalg.solve(coupling.matrix, back)
        gram.flat[:: len(gram) + 1] += 1e-14 * np.trace(gram) / len(gram)
        self._factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)

    def moved(
        self, pattern: list[_Coupling], defect: np.ndarray, shrink: float
    ) -> list[_Coupling]:
        """Returns the couplings after a step of least norm that removes a defect and shrinks."""
        along = sum(
            left @ coupling.weight @ right + (scaled @ coupling.log_scale).reshape(defect.shape)
            for coupling, (left, right, scaled) in zip(pattern, self.parts, strict=True)
        )
        r = cho_solve(self._factor, (defect + shrink * along).ravel(), check_finite=False)
        square = r.reshape(defect.shape)
        return [
            coupling.after(
                left.T @ square @ right.T - shrink * coupling.weight,
                scaled.T @ r - shrink * coupling.log_scale,
            )
            for coupling, (left, right, scaled) in zip(pattern, self.parts, strict=True)
        ]


def _product(pattern: list[_Coupling]) -> np.ndarray:
    result = pattern[0].matrix
    for coupling in pattern[1:]:
        result = result @ coupling.matrix
    return result


def _random(n: int, first: int, count: int, seed: int) -> list[_Coupling]:
    """Returns random couplings with unit diagonals, L first."""
    generator, pattern = np.random.default_rng(seed), []
    size = START * (6 / count) ** 0.5  # so that longer products are equally well conditioned
    for position in range(count):
        shape = (first, n - first) if position % 2 else (n - first, first)
        weight = generator.standard_normal(shape) * size / max(shape) ** 0.5
        pattern.append(_Coupling(position % 2 == 0, weight, np.zeros(shape[0])))
    return pattern


def _between(start: np.ndarray, end: np.ndarray) -> Callable[[float], np.ndarray]:
    """Returns a path of invertible matrices: O^t S^t start, where O S start is the end."""
    left, values, right = np.linalg.svd(np.linalg.solve(start.T, end.T).T)
    form, basis = schur(left @ right, output="complex")[:2]
    # Eigenvalues come in conjugate pairs except -1, which has probability zero here.
    angles = np.angle(np.diagonal(form))

    def at(t: float) -> np.ndarray:
        turn = ((basis * np.exp(1j * t * angles)) @ basis.conj().T).real
        return turn @ (right.T * values**t) @ right @ start

    return at


def _follow(pattern: list[_Coupling], end: np.ndarray) -> list[_Coupling]:
    """Returns couplings for (nearly) the end of the path that begins at their product."""
    path, t, stride = _between(_product(pattern), end), 0.0, FIRST_STEP
    while t < 1:
        report(f"following the path, {t:.0%}")
        t_next = min(1.0, t + stride)
        trial = _newton(pattern, path(t_next), SHRINK * min(1.0, stride / FIRST_STEP))
        if trial is None:
            stride /= 2
            if stride < SHORTEST:
                raise NumericalError(f"the search lost the path at {t:.3f} of its length")
            continue
        pattern, t, stride = trial, t_next, 1.5 * stride
    return pattern


def _newton(
    pattern: list[_Coupling], target: np.ndarray, shrink: float, *, least: int = 0
) -> list[_Coupling] | None:
    """Returns nearby couplings with nearly the target as product, or None."""
    last = len(target) ** 0.5
    for taken in range(NEWTON_STEPS):
        defect = _defect(pattern, target)
        error = norm(defect)
        if error < ON_THE_PATH and taken >= least:
            return pattern
        if not error < max(last, (taken == 1) * len(target) ** 0.5):
            return None
        pattern = _Step(pattern).moved(pattern, defect, shrink)
        shrink, last = 0.0, error
    return None


def _polished(pattern: list[_Coupling], target: np.ndarray) -> list[_Coupling]:
    """Returns couplings of smaller norm for the end of the path, with an accurate product."""
    shrink = SHRINK
    for _ in range(SHRINKING_STEPS):
        trial = _newton(pattern, target, shrink, least=1)
        if trial is None:
            shrink /= 2
        else:
            pattern = trial
    for _ in range(10):
        defect = _defect(pattern, target)
        if norm(defect) < POLISH:
            break
        pattern = _Step(pattern).moved(pattern, defect, 0.0)
    return pattern


def _defect(pattern: list[_Coupling], target: np.ndarray) -> np.ndarray:
    """Returns T P^-1 - 1, where P is the product."""
    return np.linalg.solve(_product(pattern).T, target.T).T - np.eye(len(target))
