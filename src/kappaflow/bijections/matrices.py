"""Structured square matrices for linear layers, with products, solves and log|det|.

Each row of a batch (N, n) is treated as a column vector r: `times(rows)` returns M r for each row,
which is rows M^T.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow.errors import NumericalError


class Matrix(ABC):
    """Base class of an invertible matrix M, (n, n), with differentiable products.

    1. `solve(times(rows))` equals rows. No inverse matrix is ever formed.
    2. `transposed()` is M^T, with the same structure.
    3. `log_det()` is log|det M| in nats, a scalar.
    """

    @abstractmethod
    def times(self, rows: Tensor) -> Tensor:
        """Returns M r for each row r, (N, n)."""

    @abstractmethod
    def solve(self, rows: Tensor) -> Tensor:
        """Returns M^-1 r for each row r, (N, n)."""

    @abstractmethod
    def transposed(self) -> "Matrix":
        """Returns M^T."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """Returns log|det M|."""

    def dense(self, like: Tensor) -> Tensor:
        """Returns M as a dense tensor (n, n), with the dtype and device of `like` (..., n)."""
        n = like.shape[-1]
        return self.times(torch.eye(n, dtype=like.dtype, device=like.device)).mT


class Dense(Matrix):
    """An unstructured matrix, which solves by pivoted LU."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def times(self, rows: Tensor) -> Tensor:
        return rows @ self._matrix.mT

    def solve(self, rows: Tensor) -> Tensor:
        try:
            return torch.linalg.solve(self._matrix.mT, rows, left=False)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            raise NumericalError(
                "the matrix of a linear layer is singular and cannot be inverted. Likely causes: "
                "(a) training steps were too long, (b) the given matrix was singular. Watch its "
                "condition_number; LULinear, QRLinear and SVDLinear cannot become singular."
            ) from None

    def transposed(self) -> Matrix:
        return Dense(self._matrix.mT)

    def log_det(self) -> Tensor:
        return torch.linalg.slogdet(self._matrix).logabsdet

    def dense(self, like: Tensor) -> Tensor:
        return self._matrix


class Triangular(Matrix):
    """A triangular matrix, which solves by substitution; the caller knows its log|det|."""

    def __init__(self, matrix: Tensor, *, upper: bool, log_det: Tensor) -> None:
        self._matrix, self._upper, self._log_det = matrix, upper, log_det

    def times(self, rows: Tensor) -> Tensor:
        return rows @ self._matrix.mT

    def solve(self, rows: Tensor) -> Tensor:
        return _solve_triangular(self._matrix, rows, upper=self._upper)

    def transposed(self) -> Matrix:
        return Triangular(self._matrix.mT, upper=not self._upper, log_det=self._log_det)

    def log_det(self) -> Tensor:
        return self._log_det

    def dense(self, like: Tensor) -> Tensor:
        return self._matrix


class Diagonal(Matrix):
    """A positive diagonal matrix, given by the logarithms of its diagonal (n,)."""

    def __init__(self, log_scale: Tensor) -> None:
        self._log_scale = log_scale

    def times(self, rows: Tensor) -> Tensor:
        return rows * self._log_scale.exp()

    def solve(self, rows: Tensor) -> Tensor:
        return rows * (-self._log_scale).exp()

    def transposed(self) -> Matrix:
        return self

    def log_det(self) -> Tensor:
        return self._log_scale.sum()


class Reordering(Matrix):
    """A permutation matrix, M r = r[index], applied by indexing."""

    def __init__(self, index: Tensor) -> None:
        self._index = index

    def times(self, rows: Tensor) -> Tensor:
        return rows.index_select(1, self._index)

    def solve(self, rows: Tensor) -> Tensor:
        return self.transposed().times(rows)

    def transposed(self) -> Matrix:
        return Reordering(self._index.argsort())

    def log_det(self) -> Tensor:
        return torch.zeros((), device=self._index.device)


class Reflections(Matrix):
    r"""The orthogonal matrix :math:`H_1 \cdots H_k`, :math:`H_i = 1 - 2 v_i v_i^T / |v_i|^2`.

    All reflections, by the rows v_i of `vectors`, are applied at once. With the v_i as the columns
    of V, the product is :math:`1 - V T V^T`, where :math:`T^{-1}` is the upper triangle of
    :math:`V^T V` with half its diagonal. (Joffrain, Low, Quintana-Orti, van de Geijn, Van Zee
    2006.)
    """

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors

    def times(self, rows: Tensor) -> Tensor:
        gram = self._vectors @ self._vectors.mT
        triangle = gram.triu(1) + gram.diagonal().diag() / 2
        parts = _solve_triangular(triangle, rows @ self._vectors.mT, upper=True)
        return rows - parts @ self._vectors

    def solve(self, rows: Tensor) -> Tensor:
        return self.transposed().times(rows)

    def transposed(self) -> Matrix:
        return Reflections(self._vectors.flip(0))

    def log_det(self) -> Tensor:
        return self._vectors.new_zeros(())


class Product(Matrix):
    """The product M_1 M_2 ... M_m of structured matrices; the last one acts first."""

    def __init__(self, factors: Sequence[Matrix]) -> None:
        self._factors = factors

    def times(self, rows: Tensor) -> Tensor:
        for factor in reversed(self._factors):
            rows = factor.times(rows)
        return rows

    def solve(self, rows: Tensor) -> Tensor:
        for factor in self._factors:
            rows = factor.solve(rows)
        return rows

    def transposed(self) -> Matrix:
        return Product([factor.transposed() for factor in reversed(self._factors)])

    def log_det(self) -> Tensor:
        return torch.stack([factor.log_det() for factor in self._factors]).sum()

    def dense(self, like: Tensor) -> Tensor:
        *others, last = self._factors
        return Product(others).times(last.dense(like).mT).mT


def _solve_triangular(matrix: Tensor, rows: Tensor, *, upper: bool) -> Tensor:
    """Returns M^-1 r for each row r, the solution X of X M^T = rows."""
    return torch.linalg.solve_triangular(matrix.mT, rows, upper=not upper, left=False)
