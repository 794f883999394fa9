"""Factors as a `Factorization`: layers, their residuals, and a note on their number."""

from collections.abc import Sequence

import numpy as np
import torch

from kappaflow.errors import NumericalError
from kappaflow.factor.closed_forms import HALVES_COUPLINGS, min_couplings
from kappaflow.factor.coupling import Factor, flip_last, to_layers, weight_and_diagonal
from kappaflow.factor.factorization import EXACT, Factorization, residuals
from kappaflow.factor.problem import FactorProblem

DIRECT_NOTES = (
    "the identity needs no coupling",
    "only the identity needs fewer than one",
    "one would leave a part of the features unchanged",
    "two would need a diagonal block with a diagonal Schur complement",
    "three would need an off-diagonal entry, or a positive diagonal",
)
SIX_NOTE = (
    "three work for special matrices only, and this is not one; five may work, with larger "
    "condition numbers: pass couplings=5, or couplings=None for the fewest"
)
FIVE_NOTE = "three work for special matrices only; so do four, which are not tried"
UNEVEN_NOTE = "one or two work for special matrices only; three to five are not tried"
STRUCTURE = 1e-12  # largest relative residual if the structure is present
USELESS = 0.1  # inverse residual at which an inexact product is not a factorization


def assembled(factors: Sequence[Factor], problem: FactorProblem, method: str) -> Factorization:
    """Returns the factors as layers, with the sign of the determinant and their residuals."""
    factors, flipped = _signed(factors, problem, method)
    couplings = to_layers(factors, problem.partition)
    rounded = [
        Factor(f.lower, *weight_and_diagonal(c)) for f, c in zip(factors, couplings, strict=True)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        residual, inverse = residuals(rounded, problem.blocks)
    if not np.isfinite(residual):
        raise out_of_range(problem)
    if method == "direct" and residual > STRUCTURE:
        raise NumericalError("rounding hides the structure of this matrix.")
    if residual > EXACT and not inverse <= USELESS:
        raise NumericalError(
            f"method={method!r} lost this matrix T to rounding: with the product P of its "
            f"couplings, P^-1 T differs from the identity by {inverse:.1g}. Likely cause: the "
            f"condition number of the matrix, {problem.condition_number:.1g}. Pass "
            f"couplings={min_couplings(problem, 'svd')}, the fewest in closed form."
        )
    matrix, note = torch.from_numpy(problem.given.copy()), _note(len(couplings), method, problem)
    return Factorization(matrix, couplings, residual, inverse, method, flipped, note)


def _signed(
    factors: Sequence[Factor], problem: FactorProblem, method: str
) -> tuple[Sequence[Factor], int | None]:
    """Returns factors of the map with its own sign, and the one with a negative diagonal."""
    if method == "direct":
        negative = [i for i, factor in enumerate(factors) if (factor.diagonal < 0).any()]
        return factors, negative[0] if negative else None
    return flip_last(factors) if problem.flipped else (factors, None)


def _note(count: int, method: str, problem: FactorProblem) -> str:
    """Returns a note on the number of couplings."""
    if method == "direct":
        return DIRECT_NOTES[count]
    if not problem.even:
        return UNEVEN_NOTE if count >= HALVES_COUPLINGS else ""
    return {5: FIVE_NOTE, HALVES_COUPLINGS: SIX_NOTE}.get(count, "")


def out_of_range(problem: FactorProblem) -> NumericalError:
    """Returns the error for a matrix whose scale is too large or too small for float64."""
    return NumericalError(
        f"the product of the couplings leaves the range of float64. Likely cause: the scale "
        f"of the matrix, |det T|^(1/n) = {problem.scale:.1g}; divide the matrix by that."
    )
