"""`Factorization`, a linear map as a product of couplings, with its residual and file format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kappaflow.bijection import Chain
from kappaflow.errors import FileError
from kappaflow.factor.coupling import Factor, LinearCoupling, weight_and_diagonal
from kappaflow.factor.problem import power_of_two, square_floats
from kappaflow.partition import Partition
from kappaflow.storage import read_tensors, write_tensors
from kappaflow.summary import Facts, PlottedSummary

EXACT, EXACT_INVERSE = 1e-10, 1e-6  # largest residuals of an exact product and of its inverse
ONE_SIZE = 1e-12  # largest difference of the logarithms of entries that count as equal
SPLITTER = 2.0**27 + 1
FORMAT, VERSION = "kappaflow couplings", "2"
PARTS = ("weight", "diagonal", "kept", "changed")


@dataclass(frozen=True, eq=False, repr=False)
class Factorization(PlottedSummary):
    """A linear map T as a product of couplings, T = M1 M2 ...; the last coupling is applied first.

    Attributes:
        matrix: T, (n, n), float64.
        couplings: The couplings in the order of the product.
        residual: |M1 M2 ... - T| / |T| in Frobenius norms, computed in extended precision.
        inverse_residual: |(M1 M2 ...)^-1 T - I| / |I|: how well the couplings undo the matrix.
            Rounding the entries of T alone changes it by about 1e-16 times the condition number.
        method: The method that found them: "direct", "rotation", "positive", "svd" or
            "continuation".
        flipped: Index of the coupling with the one negative diagonal entry that a map of negative
            determinant needs; None if all diagonals are positive.
        note: A sentence about the number of couplings; may be empty.
        before_search: Largest condition number of a coupling in closed form, which the search
            improved; None without a search or a closed form.
    """

    matrix: Tensor
    couplings: tuple[LinearCoupling, ...]
    residual: float
    inverse_residual: float
    method: str
    flipped: int | None = None
    note: str = ""
    before_search: float | None = None

    def __len__(self) -> int:
        return len(self.couplings)

    @property
    def condition_numbers(self) -> tuple[float, ...]:
        """Condition number of each coupling, in the order of the product."""
        return tuple(coupling.condition_number for coupling in self.couplings)

    @property
    def condition_number(self) -> float:
        """Largest condition number of a coupling; 1 for the identity, which needs no coupling."""
        return max(self.condition_numbers, default=1.0)

    @property
    def is_exact(self) -> bool:
        """Whether the residual is at most 1e-10 and the inverse residual at most 1e-6.

        These bounds hold for every map. So if the condition number of T is above about 1e10, no
        product of rounded couplings is exact.
        """
        return self.residual <= EXACT and self.inverse_residual <= EXACT_INVERSE

    @property
    def lower_bound(self) -> float:
        r"""Lower bound of the largest condition number of as many couplings as these.

        :math:`\kappa(T)^{1/m}` for m couplings. If the halves are equal and the entries of each
        diagonal have one size, also :math:`\max(|T|/c, c|T^{-1}|, c, 1/c)^{2/m}` with the scale
        :math:`c = |\det T|^{1/n}` (`kappaflow.theory.scaled_lower_bound`).

        Example:
            >>> import kappaflow as kf
            >>> found = kf.factor_linear(np.diag([8.0, 8.0, 8.0, 1.0]) + np.eye(4)[::-1])
            >>> found.condition_number > found.lower_bound > 1
            True
        """
        if not self.couplings:
            return 1.0
        logs = np.log(np.linalg.svd(self.matrix.numpy(), compute_uv=False))
        width, scale = logs[0] - logs[-1], logs.mean()
        if self._one_size_each():
            width = 2 * max(logs[0] - scale, scale - logs[-1], abs(scale))
        return float(np.exp(width / len(self)))

    def _one_size_each(self) -> bool:
        """Returns whether halves are equal and each diagonal has entries of one size."""
        sizes = [coupling.log_scale.detach() for coupling in self.couplings]
        even = 2 * len(sizes[0]) == len(self.matrix)
        return even and all(bool((size - size[0]).abs().max() <= ONE_SIZE) for size in sizes)

    def bijection(self) -> Chain:
        """Returns the map as a chain: `fact.bijection()(x)[0]` is x T^T for rows x.

        Returns:
            A chain of the couplings themselves (not copies), in the order in which they act.

        Example:
            >>> import torch, kappaflow as kf
            >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
            >>> chain = kf.factor_linear(turn).bijection()
            >>> chain(torch.tensor([[3.0, 7.0]], dtype=torch.float64))[0].detach().round()
            tensor([[-7.,  3.]], dtype=torch.float64)
        """
        return Chain(reversed(self.couplings))

    def _facts(self) -> Facts:
        sizes = ", ".join(f"{number:.3g}" for number in self.condition_numbers)
        facts = [
            ("map", f"{len(self.matrix)} features in {len(self)} couplings, by {self.method}"),
            ("relative residual", f"{self.residual:.1e}"),
            ("inverse residual", f"{self.inverse_residual:.1e}"),
            ("condition numbers", sizes or "none"),
            ("lower bound for the largest", f"{self.lower_bound:.3g}"),
        ]
        if self.before_search is not None:
            gain = f"{self.before_search:.3g} in closed form, then {self.condition_number:.3g}"
            facts.append(("search", f"largest condition number {gain}"))
        if self.flipped is not None:
            facts.append(("sign", f"one sign flip in coupling {self.flipped + 1} of {len(self)}"))
        return [*facts, ("note", self.note)] if self.note else facts


def ranking_key(result: Factorization) -> tuple[bool, float]:
    """Returns a sort key: the best conditioned exact one comes first, then the most accurate."""
    exact = result.is_exact
    return not exact, result.condition_number if exact else result.inverse_residual


def residuals(factors: Sequence[Factor], matrix: np.ndarray) -> tuple[float, float]:
    r"""Returns :math:`\|P - T\|_F / \|T\|_F` and :math:`\|P^{-1} T - I\|_F / \|I\|_F`.

    P is the product of the factors. It is kept as a sum of two float64 matrices. Each weight and
    each matrix is split into leading bits and a rest. There are so few leading bits that sums of
    their products are exact. The error of P is about 2^-20 times the error of a float64 product,
    for four times the work.

    Source:
        Error-free splitting of matrix products: Ozaki, Ogita, Oishi, Rump 2012.
    """
    high, low = np.eye(len(matrix)), np.zeros_like(matrix)
    for factor in reversed(factors):
        rows, read = factor.sides
        mixed = _product(factor.weight, high[read], low[read])
        scaled = _scaled(factor.diagonal[:, None], high[rows], low[rows])
        high[rows], low[rows] = _sum(mixed, scaled)
    size = power_of_two(matrix)  # so that squares do not overflow
    off = (high - matrix) / size + low / size
    residual = np.linalg.norm(off) / np.linalg.norm(matrix / size)
    off *= size
    for factor in factors:  # P^-1 (P - T) = I - P^-1 T
        rows, read = factor.sides
        off[rows] = (off[rows] - factor.weight @ off[read]) / factor.diagonal[:, None]
    return float(residual), float(np.linalg.norm(off) / len(matrix) ** 0.5)


def _product(a: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the product a (high + low) as a sum of two matrices."""
    bits = (53 - int(np.ceil(np.log2(max(a.shape[1], 2))))) // 2
    leading, leading_high = _leading(a, bits, axis=1), _leading(high, bits, axis=0)
    exact = leading @ leading_high
    rest = leading @ (high - leading_high) + (a - leading) @ high + a @ low
    return _two_sum(exact, rest)


def _leading(a: np.ndarray, bits: int, *, axis: int) -> np.ndarray:
    """Returns `a` rounded to `bits` bits below the largest entry of its row or column."""
    largest = np.abs(a).max(axis=axis, keepdims=True, initial=0.0)
    shift = 0.75 * 2.0 ** (np.ceil(np.log2(np.where(largest > 0, largest, 1))) + 54 - bits)
    return (a + shift) - shift


def _scaled(d: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns d (high + low) as a sum of two matrices, by the exact product of Dekker 1971."""
    value = d * high
    d_big, high_big = _half(d), _half(high)
    d_small, high_small = d - d_big, high - high_big
    error = d_big * high_big - value + d_big * high_small + d_small * high_big
    return value, error + d_small * high_small + d * low


def _half(a: np.ndarray) -> np.ndarray:
    """Returns the leading 26 bits of each entry."""
    large = SPLITTER * a
    return large - (large - a)


def _sum(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of two matrices, each stored as a sum of two."""
    high, low = _two_sum(one[0], other[0])
    return _two_sum(high, low + one[1] + other[1])


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rounded sum and its rounding error (Knuth's two-sum)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def save_couplings(found: Factorization, path: str | Path) -> None:
    """Writes a factorization to one safetensors file, atomically.

    Coupling number i, counted from 1, is stored as four tensors: `coupling.i.weight` (changed,
    kept) and `coupling.i.diagonal` (changed,) in float64, and the feature indices
    `coupling.i.kept` and `coupling.i.changed`, counted from 0. `matrix` is their product. The
    metadata gives the number of couplings and the order of the product, so any safetensors reader
    can use the file.

    Args:
        found: The factorization.
        path: The file to write.

    Raises:
        FileError: The file cannot be written.
    """
    tensors = {"matrix": found.matrix}
    for number, coupling in enumerate(found.couplings, start=1):
        tensors[f"coupling.{number}.weight"] = coupling.weight
        tensors[f"coupling.{number}.diagonal"] = coupling.diagonal
        for part in ("kept", "changed"):
            indices = torch.tensor(getattr(coupling.partition, part))
            tensors[f"coupling.{number}.{part}"] = indices
    write_tensors(Path(path), tensors, _metadata(found))


def load_couplings(path: str | Path) -> Factorization:
    """Reads a factorization that `save_couplings` or `kappaflow factor --out` wrote.

    Args:
        path: The safetensors file.

    Returns:
        The factorization, with couplings in float64 and a recomputed residual.

    Raises:
        FileError: The file is missing or damaged, has another version, or holds no couplings.

    Example:
        >>> import pathlib, tempfile, kappaflow as kf
        >>> found = kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "couplings.safetensors"
        ...     kf.factor.save_couplings(found, file)
        ...     again = kf.factor.load_couplings(file)
        >>> len(again), again.residual < 1e-14
        (6, True)
    """
    file = Path(path)
    if not file.is_file():
        what = f"{file} is a folder" if file.is_dir() else f"there is no file '{file}'"
        raise FileError(f"{what}: give a file that 'kappaflow factor --out' wrote.")
    tensors, metadata = read_tensors(file)
    if metadata.get("format") != FORMAT:
        raise FileError(
            f"{file} holds no couplings: give a file that 'kappaflow factor --out' wrote."
        )
    if metadata.get("format_version") != VERSION:
        raise FileError(
            f"{file} has format version {metadata.get('format_version')!r}, this kappaflow reads "
            f"version {VERSION}: factor the matrix again."
        )
    try:
        return _factorization(tensors, metadata)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{file} is damaged ({error}): factor the matrix again.") from None


def _metadata(result: Factorization) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "features": str(len(result.matrix)),
        "couplings": str(len(result)),
        "order": "matrix = coupling.1 coupling.2 ...: the last acts first on a column",
        "coupling": "z[changed] = diagonal * x[changed] + weight @ x[kept]; z[kept] = x[kept]",
        "method": result.method,
        "residual": repr(result.residual),
        "note": result.note,
    }


def _factorization(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Factorization:
    """Returns the factorization in the tensors; invalid tensors raise any kind of error."""
    matrix = square_floats(tensors["matrix"])
    couplings = tuple(
        _coupling(len(matrix), *(tensors[f"coupling.{number}.{name}"] for name in PARTS))
        for number in range(1, int(metadata["couplings"]) + 1)
    )
    return Factorization(
        torch.from_numpy(matrix),
        couplings,
        *_residuals(matrix, couplings),
        metadata["method"],
        next((i for i, one in enumerate(couplings) if (one.diagonal < 0).any()), None),
        metadata["note"],
    )


def _coupling(
    features: int, weight: Tensor, diagonal: Tensor, kept: Tensor, changed: Tensor
) -> LinearCoupling:
    partition = Partition(features, tuple(kept.tolist()))
    if list(partition.changed) != changed.tolist():
        raise ValueError("the kept and the changed features are not all features")
    return LinearCoupling.of(partition, weight, diagonal)


def _residuals(matrix: np.ndarray, couplings: tuple[LinearCoupling, ...]) -> tuple[float, float]:
    """Returns the residuals of alternating couplings."""
    if not couplings:
        return residuals([], matrix)
    first = couplings[0].partition
    if any(coupling.partition not in (first, first.swapped()) for coupling in couplings):
        raise ValueError("the couplings have different partitions")
    order = np.array(first.kept + first.changed)
    factors = [
        Factor(coupling.partition == first, *weight_and_diagonal(coupling))
        for coupling in couplings
    ]
    return residuals(factors, matrix[np.ix_(order, order)])
