"""Linear systems with a sum of Kronecker products, solved without forming a large matrix."""

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.linalg import LinAlgError, eigh, norm
from scipy.linalg import cho_factor, cho_solve

from kappaflow.factor.budget import spend

Blocks = Sequence[np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]

ALWAYS_DENSE = 12  # largest d for which the d^2 x d^2 matrix is always formed
LARGEST_DENSE = 32  # largest d for which it is ever formed
FEW_ITERATIONS = 60  # iterations that cost as much as the dense matrix and its Cholesky factor
MOST_ITERATIONS = 400
SINGLE = 1e-4  # smallest tolerance for which iterations start in float32, at half the time
SHIFT = 4.0  # in units of the mean remainder; 1 to 10 need about the same number of iterations
JITTERS = (1e-14, 1e-11, 1e-8)  # added to zero eigenvalues, in units of the mean one


class KroneckerMap:
    """The map u_1, u_2, ... -> sum of a u_j b over the terms (a, b) of each j, about (d, d)."""

    def __init__(self, terms: Sequence[Sequence[Pair]]) -> None:
        self.terms = terms

    def __call__(self, step: Blocks) -> np.ndarray:
        together = zip(step, self.terms, strict=True)
        return np.add.reduce([a @ u @ b for u, terms in together for a, b in terms])

    def adjoint(self, r: np.ndarray) -> list[np.ndarray]:
        """Returns the image of r under the transpose."""
        return [np.add.reduce([a.T @ r @ b.T for a, b in terms]) for terms in self.terms]

    def astype(self, dtype: type[np.floating]) -> "KroneckerMap":
        return KroneckerMap([
            [(a.astype(dtype), b.astype(dtype)) for a, b in terms] for terms in self.terms
        ])

    def products(self) -> Pair:
        """Returns stacks A_t, B_t: the map times its transpose is r -> sum of A_t r B_t."""
        pairs = [(one, two) for terms in self.terms for one in terms for two in terms]
        left = np.stack([a @ c.T for (a, _), (c, _) in pairs])
        return left, np.stack([e.T @ b for (_, b), (_, e) in pairs])

    def gram(self) -> np.ndarray:
        """Returns the map times its transpose, dense, (p q, p q), for r (p, q) row by row."""
        left, right = self.products()
        p, q = left.shape[1], right.shape[1]
        mixed = left.reshape(-1, p * p).T @ right.transpose(0, 2, 1).reshape(-1, q * q)
        return mixed.reshape(p, p, q, q).transpose(0, 2, 1, 3).reshape(p * q, p * q)


class NormalEquations:
    """Solves J J^T r = b for a map J whose range misses at most one direction, `missed`."""

    # Conjugate gradients, preconditioned by `NearestInverse`. Up to d = 32 a dense Cholesky factor
    # replaces slow iterations; above, they start in float32 if few digits are needed.

    def __init__(self, derivative: KroneckerMap, missed: np.ndarray | None) -> None:
        self.derivative = derivative
        self._missed = None if missed is None else missed / norm(missed)
        self._factor = self._near = self._single = None
        if len(derivative.terms[0][0][0]) > ALWAYS_DENSE:
            self._near = NearestInverse(derivative)

    def solve(
        self, b: np.ndarray, *, tolerance: float, guess: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns r, (p, q), orthogonal to the missed direction, for the part of b in range."""
        if b.size == 1 and self._missed is not None:
            return np.zeros_like(b)  # n = 2: the missed direction is the only one
        b = self._reached(b)
        r = None
        if self._factor is None:
            goal = tolerance * float(norm(b))
            if len(b) > LARGEST_DENSE and tolerance >= SINGLE:
                guess = self._roughly(b, goal, guess)
            r = self._conjugate_gradients(b, goal, guess)
        return self._reached(self._dense(b) if r is None else r)

    def least_norm(self, b: np.ndarray, *, tolerance: float) -> list[np.ndarray]:
        """Returns the step of least norm that J maps to b."""
        return self.derivative.adjoint(self.solve(b, tolerance=tolerance))

    def _reached(self, b: np.ndarray) -> np.ndarray:
        return b if self._missed is None else b - self._missed * np.vdot(self._missed, b)

    def _applied(self, r: np.ndarray) -> np.ndarray:
        return self._reached(self.derivative(self.derivative.adjoint(r)))

    def _dense(self, b: np.ndarray) -> np.ndarray:
        if self._factor is None:
            spend(b.size**3 / 3)
            self._factor = _factor(self.derivative.gram(), self._missed)
        return cho_solve(self._factor, b.ravel(), check_finite=False).reshape(b.shape)

    def _roughly(self, b: np.ndarray, goal: float, guess: np.ndarray | None) -> np.ndarray | None:
        """Returns a better guess from iterations in float32; its accuracy is not guaranteed."""
        rest = b if guess is None else b - self._applied(guess)
        size = float(norm(rest))
        if size <= goal:
            return guess
        if self._single is None:
            self._single = self._in_single()
        unit = (rest / size).astype(np.float32)
        step = self._single._conjugate_gradients(unit, goal / size / 2, None)
        if step is None or not np.isfinite(step).all():
            return guess
        step = size * step.astype(float)
        return step if guess is None else guess + step

    def _in_single(self) -> "NormalEquations":
        """Returns the same equations in float32."""
        single = copy(self)
        single.derivative = self.derivative.astype(np.float32)
        single._missed = None if self._missed is None else self._missed.astype(np.float32)
        single._near = None if self._near is None else self._near.astype(np.float32)
        return single

    def _conjugate_gradients(
        self, b: np.ndarray, goal: float, guess: np.ndarray | None
    ) -> np.ndarray | None:
        """Returns the solution, or None if the dense way is faster; Hestenes, Stiefel 1952."""
        if self._near is None:
            return None
        small = len(b) <= LARGEST_DENSE
        solution = np.zeros_like(b) if guess is None else guess
        residual = b if guess is None else b - self._applied(guess)
        direction, last = np.zeros_like(b), 1.0
        for _ in range(FEW_ITERATIONS if small else MOST_ITERATIONS):
            if norm(residual) <= goal:
                return solution
            spend((16 * len(self.derivative.terms) + 8) * len(b) * b.size)
            smooth = self._near(residual)
            now = np.vdot(residual, smooth)
            direction = smooth + (now / last) * direction
            image = self._applied(direction)
            curvature = np.vdot(direction, image)
            if not curvature > 0:
                break  # rounding: the solution improves no further
            solution = solution + now / curvature * direction
            residual = residual - now / curvature * image
            last = now
        return None if small else solution


class NearestInverse:
    """r -> (A x B + shift)^-1 r for the Kronecker product A x B nearest to J J^T."""

    # The shift replaces all other terms. Source: Van Loan, Pitsianis 1993.

    def __init__(self, derivative: KroneckerMap) -> None:
        left, right = derivative.products()
        flat_left, flat_right = left.reshape(len(left), -1), right.reshape(len(right), -1)
        values, vectors = np.linalg.eig((flat_right @ flat_right.T) @ (flat_left @ flat_left.T))
        weights = np.real(vectors[:, int(np.argmax(np.real(values)))])
        a = np.tensordot(weights, left, 1)
        a *= np.sign(np.trace(a)) / norm(a)
        b = np.tensordot(flat_left @ a.ravel(), right, 1)
        a_values, self._a = eigh((a + a.T) / 2)
        b_values, self._b = eigh((b + b.T) / 2)
        # The nearest product to a positive matrix is positive: negative values are rounding.
        sizes = np.maximum(np.outer(a_values, b_values), 0)
        rest = np.einsum("tii,tjj->", left, right) - sizes.sum()
        self._sizes = sizes + max(SHIFT * rest, JITTERS[0] * sizes.sum()) / sizes.size

    def astype(self, dtype: type[np.floating]) -> "NearestInverse":
        inverse = copy(self)
        inverse._a, inverse._b = self._a.astype(dtype), self._b.astype(dtype)
        inverse._sizes = self._sizes.astype(dtype)
        return inverse

    def __call__(self, r: np.ndarray) -> np.ndarray:
        return self._a @ ((self._a.T @ r @ self._b) / self._sizes) @ self._b.T


def _factor(matrix: np.ndarray, missed: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """Returns a Cholesky factor of the matrix after filling in the missed direction."""
    # At the identity the map misses more directions: a small multiple of 1 is added for these.
    # The missed direction gets the size of the matrix, so that no digits are lost.
    size = np.trace(matrix) / len(matrix) + np.finfo(float).tiny
    if missed is not None:
        matrix += size * np.outer(missed, missed)
    diagonal = np.diagonal(matrix).copy()
    for jitter in JITTERS:
        try:
            matrix.flat[:: len(matrix) + 1] = diagonal + jitter * size
            return cho_factor(matrix, lower=True, check_finite=False)
        except LinAlgError:
            continue
    raise LinAlgError("the equations of a Newton step are not positive definite")
