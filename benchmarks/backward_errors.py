"""Measures rounding errors of linear maps as couplings, triangular factors, reflectors, shears."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from scipy.linalg import lu_factor

import kappaflow as kf
from benchmarks.lines import Line, grouped, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from kappaflow_studies import ensembles

ENSEMBLES = "orthogonal", "Gaussian", "geometric 1e2", "geometric 1e4"
SIZES = 4, 8, 16, 32
VECTORS = 64
ROUNDOFF = 2.0**-53
LARGE = 1e9  # beyond it a bound says nothing
TABLE = Path(__file__).parents[1] / "docs" / "papers" / "backward-errors.tex"
Factors = list[np.ndarray]


def backward_errors(*, draws: int = 4, results: Path = KEPT, table: Path = TABLE) -> None:
    """Measure rounding errors of linear maps that are applied factor by factor.

    Writes results, and their table for the paper on couplings.

    Parameters
    ----------
    draws
        Maps of each ensemble and size.
    results
        Folder of the file of results.
    table
        File of the table, in LaTeX.
    """
    lines: list[Line] = []
    for ensemble in ENSEMBLES:
        for n in SIZES:
            for draw in range(draws):
                matrix = ensembles.draw(ensemble, n, draw)
                for kind, factor in KINDS.items():
                    line = {"ensemble": ensemble, "n": n, "draw": draw, "kind": kind}
                    lines.append(line | measured(matrix, factor(matrix)))
            console.print(f"{ensemble}, {n} features: done")
    write_results(results / "backward-errors.json", {"machine": machine(), "lines": lines})
    table.write_text(latex_table(lines), "utf-8")


def measured(matrix: np.ndarray, factors: Sequence[np.ndarray]) -> Line:
    """Returns the errors of the product, of its application and of its inverse, in roundoffs.

    Each error is relative to the norm of the map, or of its inverse, times that of the input.
    """
    exact = np.eye(len(matrix), dtype=np.longdouble)
    for factor in factors:
        exact = exact @ factor
    x = np.random.default_rng(len(matrix)).standard_normal((len(matrix), VECTORS))
    true = exact @ x  # so that errors of the product are counted in the residual alone
    there, back = x, true.astype(float)
    for factor in reversed(factors):
        there = factor @ there
    for factor in factors:
        back = np.linalg.solve(factor, back)
    norm, inverse = np.linalg.norm(matrix, 2), np.linalg.norm(np.linalg.inv(matrix), 2)
    errors = {
        "residual": np.linalg.norm((exact - matrix).astype(float), 2) / norm,
        "application": _size(there - true) / (norm * _size(x)),
        "inverse": _size(back - x) / (inverse * _size(true)),
    }
    norms = [np.linalg.norm(factor, 2) for factor in factors]
    numbers = [np.linalg.cond(factor) for factor in factors]
    return {
        "factors": len(factors),
        "condition_number": float(max(numbers)),
        "amplification": float(np.prod(norms) / norm),
        "inverse_amplification": float(np.prod(np.divide(numbers, norms)) / inverse),
        **{name: float(error) / ROUNDOFF for name, error in errors.items()},
    }


def _size(matrix: np.ndarray) -> float:
    """Returns the Frobenius norm."""
    return float(np.linalg.norm(matrix.astype(float)))


def six_couplings(matrix: np.ndarray) -> Factors:
    """Returns six couplings, or fewer if these are better conditioned."""
    return _dense(kf.factor_linear(matrix, couplings=6))


def eleven_couplings(matrix: np.ndarray) -> Factors:
    """Returns eleven couplings in closed form."""
    return _dense(kf.factor_linear(matrix, couplings=11, method="svd"))


def _dense(found: kf.factor.Factorization) -> Factors:
    """Returns couplings as matrices."""
    return [coupling.matrix().detach().numpy() for coupling in found.couplings]


def ldu(matrix: np.ndarray) -> Factors:
    """Returns P, L, D and U with partial pivoting."""
    packed, swaps = lu_factor(matrix)
    order = np.arange(len(matrix))
    for i, j in enumerate(swaps):
        order[[i, j]] = order[[j, i]]
    lower, diagonal = np.tril(packed, -1) + np.eye(len(matrix)), np.diag(packed)
    upper = np.triu(packed) / diagonal[:, None]
    return [np.eye(len(matrix))[:, order], lower, np.diag(diagonal), upper]


def householder(matrix: np.ndarray) -> Factors:
    """Returns reflectors and a triangular matrix."""
    rest, factors = matrix.copy(), []
    for i in range(len(matrix) - 1):
        v = np.zeros(len(matrix))
        v[i:] = rest[i:, i]
        v[i] += np.copysign(np.linalg.norm(v), v[i])
        factors.append(np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v))
        rest = factors[-1] @ rest
    return [*factors, np.triu(rest)]


def lifting(matrix: np.ndarray) -> Factors:
    """Returns plane rotations as three shears each, a diagonal, and shears that add one row."""
    n = len(matrix)
    rest, factors = matrix.copy(), []
    for j in range(n - 1):
        for i in range(n - 1, j, -1):
            sign = np.copysign(1, rest[i - 1, j])  # so that no angle exceeds a quarter turn
            angle = np.arctan2(sign * rest[i, j], sign * rest[i - 1, j])
            across = _shear(n, i - 1, i, -np.tan(angle / 2))
            factors += [across, _shear(n, i, i - 1, np.sin(angle)), across]
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            rest[[i - 1, i]] = turn @ rest[[i - 1, i]]
    diagonal = np.diag(rest)
    rows = np.triu(rest) / diagonal[:, None]
    factors.append(np.diag(diagonal))
    for i in range(n - 2, -1, -1):
        factors.append(np.eye(n))
        factors[-1][i, i + 1 :] = rows[i, i + 1 :]
    return factors


def _shear(n: int, row: int, column: int, weight: float) -> np.ndarray:
    """Returns the identity with one more entry."""
    matrix = np.eye(n)
    matrix[row, column] = weight
    return matrix


KINDS: dict[str, Callable[[np.ndarray], Factors]] = {
    "six couplings": six_couplings,
    "eleven couplings": eleven_couplings,
    "LDU, pivoted": ldu,
    "Householder": householder,
    "lifting": lifting,
}
COLUMNS = "condition_number", "amplification", "residual", "application", "inverse"


def latex_table(lines: Sequence[Line]) -> str:
    """Returns the rows of a table: medians, with the worst in brackets."""
    rows = ["% Made by python -m benchmarks backward-errors."]
    for (ensemble, kind), group in grouped(lines, ("ensemble", "kind")).items():
        first = kind == next(iter(KINDS))
        if first and len(rows) > 1:
            rows.append(r"\addlinespace")
        most = max(line["factors"] for line in group)
        cells = [_both([line[name] for line in group]) for name in COLUMNS]
        rows.append(" & ".join([ensemble * first, kind, str(most), *cells]) + r" \\")
    return "\n".join(rows) + "\n"


def _both(values: Sequence[float]) -> str:
    """Returns the median, and the largest value in brackets."""
    if median(values) > LARGE:
        return "--"
    middle, largest = _short(median(values)), _short(max(values))
    return middle if middle == largest else f"{middle} ({largest})"


def _short(value: float) -> str:
    """Returns a number with two digits, or all digits of an integer below 10^5."""
    if value < 1e5:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa}\cdot 10^{{{int(exponent)}}}$"
