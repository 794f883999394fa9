r"""Linear systems whose matrix is a sum of Kronecker products, without ever forming a large one."""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

Blocks = Sequence[np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]

LARGEST_DENSE = 32  # d up to which the d^2 x d^2 matrix is formed
MOST_ITERATIONS = 3000
JITTER = 1e-14  # of the mean eigenvalue: what rounding makes of a zero one
SHIFT = 3.0  # added to the nearest product: between the least eigenvalues and their bulk


class KroneckerMap:
    """u_1, u_2, ... -> the sum of a u_j b over all terms (a, b) of each j, with d x d matrices.

    Args:
        terms: For each u_j its terms (a, b).
    """

    def __init__(self, terms: Sequence[Sequence[Pair]]) -> None:
        self.terms = terms

    def __call__(self, step: Blocks) -> np.ndarray:
        """Returns the image of a step."""
        image = np.zeros_like(step[0])
        for u, terms in zip(step, self.terms, strict=True):
            for a, b in terms:
                image += a @ u @ b
        return image

    def adjoint(self, r: np.ndarray) -> list[np.ndarray]:
        """Returns the image of r under the transpose."""
        return [np.add.reduce([a.T @ r @ b.T for a, b in terms]) for terms in self.terms]

    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns A_t and B_t, stacked: the map times its transpose is r -> sum of A_t r B_t."""
        pairs = [(one, two) for terms in self.terms for one in terms for two in terms]
        left = np.stack([a @ c.T for (a, _), (c, _) in pairs])
        return left, np.stack([e.T @ b for (_, b), (_, e) in pairs])

    def gram(self) -> np.ndarray:
        """Returns the map times its transpose, dense, (d^2, d^2), for r row by row."""
        left, right = self.products()
        d = left.shape[1]
        mixed = left.reshape(-1, d * d).T @ right.transpose(0, 2, 1).reshape(-1, d * d)
        return mixed.reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)


class NormalEquations:
    """Solves J J^T r = b for a map J that misses exactly one direction.

    Dense (Cholesky) up to d = 32; beyond, conjugate gradients, preconditioned by the nearest
    Kronecker product plus a multiple of the identity.

    Args:
        derivative: J.
        missed: The direction, (d, d): J^T gives zero on it.
    """

    def __init__(self, derivative: KroneckerMap, missed: np.ndarray) -> None:
        self.derivative = derivative
        self._missed = missed / np.linalg.norm(missed)
        self.iterations = 0
        if len(missed) <= LARGEST_DENSE:
            direction = self._missed.ravel()
            matrix = derivative.gram()
            # Of the matrix's own size, so that no digits are lost beside it.
            size = np.trace(matrix) / len(matrix)
            matrix += size * np.outer(direction, direction)
            matrix.flat[:: len(matrix) + 1] += JITTER * size
            self._factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        else:
            self._factor = None
            self._near = nearest_inverse(derivative)

    def solve(
        self, b: np.ndarray, *, tolerance: float = 1e-10, guess: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns r, for the part of b that J can reach.

        Args:
            b: Right side, (d, d).
            tolerance: Of the residual, relative to b; conjugate gradients only.
            guess: Where they start.

        Returns:
            r, (d, d), without a part in the missed direction.
        """
        b = self._reached(b)
        if self._factor is None:
            return self._conjugate_gradients(b, tolerance, guess)
        r = cho_solve(self._factor, b.ravel(), check_finite=False).reshape(b.shape)
        return self._reached(r)

    def least_norm(self, b: np.ndarray, *, tolerance: float = 1e-10) -> list[np.ndarray]:
        """Returns the step of least norm that J takes to b."""
        return self.derivative.adjoint(self.solve(b, tolerance=tolerance))

    def _reached(self, b: np.ndarray) -> np.ndarray:
        return b - self._missed * np.vdot(self._missed, b)

    def _conjugate_gradients(
        self, b: np.ndarray, tolerance: float, guess: np.ndarray | None
    ) -> np.ndarray:
        """Hestenes, Stiefel 1952, with a preconditioner."""
        jacobian = self.derivative
        solution = np.zeros_like(b) if guess is None else guess
        residual = b if guess is None else b - self._reached(jacobian(jacobian.adjoint(guess)))
        goal = tolerance * np.linalg.norm(b)
        direction, last = np.zeros_like(b), 1.0
        for _ in range(MOST_ITERATIONS):
            if np.linalg.norm(residual) <= goal:
                break
            self.iterations += 1
            smooth = self._near(residual)
            now = np.vdot(residual, smooth)
            direction = smooth + (now / last) * direction
            image = self._reached(jacobian(jacobian.adjoint(direction)))
            length = now / np.vdot(direction, image)
            solution = solution + length * direction
            residual = residual - length * image
            last = now
        return self._reached(solution)


class nearest_inverse:  # noqa: N801
    """r -> (A x B + shift)^-1 r for the Kronecker product A x B nearest to J J^T.

    Args:
        derivative: J.

    Source:
        Van Loan, Pitsianis 1993; the singular vectors from the Gram matrices of the terms.
    """

    def __init__(self, derivative: KroneckerMap) -> None:
        left, right = derivative.products()
        flat_left, flat_right = left.reshape(len(left), -1), right.reshape(len(right), -1)
        inner_left, inner_right = flat_left @ flat_left.T, flat_right @ flat_right.T
        values, vectors = np.linalg.eig(inner_right @ inner_left)
        weights = vectors[:, np.argmax(values.real)].real
        a = np.tensordot(weights, left, 1)
        a /= np.linalg.norm(a)
        b = np.tensordot(flat_left @ a.ravel(), right, 1)
        sign = np.sign(np.trace(a))
        self._a_values, self._a = eigh(sign * (a + a.T) / 2)
        self._b_values, self._b = eigh(sign * (b + b.T) / 2)
        # Nearest to a positive matrix is a positive one: what is below zero is rounding.
        self._sizes = np.maximum(np.outer(self._a_values, self._b_values), 0) + SHIFT

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """Returns the solution for one right side."""
        return self._a @ ((self._a.T @ r @ self._b) / self._sizes) @ self._b.T
