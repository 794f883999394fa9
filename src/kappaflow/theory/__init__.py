"""Computable theorems about couplings.

counts             how many couplings linear maps need, and how well conditioned they can be
impossibility      proofs that a given map is, or is not, a product of a number of couplings
arguments          the arguments behind these proofs
diagonal_scalings  properties of D M that hold for every diagonal matrix D
exact              matrices of fractions, in which zero is exact
"""

from kappaflow.theory.counts import (
    ROTATION_BLOCK_NORMS,
    Bounds,
    CouplingsNeeded,
    couplings_needed,
    min_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow.theory.impossibility import Verdict, check_count, check_pattern, fewest_couplings

__all__ = [
    "Bounds",
    "CouplingsNeeded",
    "ROTATION_BLOCK_NORMS",
    "Verdict",
    "check_count",
    "check_pattern",
    "couplings_needed",
    "fewest_couplings",
    "min_condition_number",
    "rotation_bound",
    "unit_condition_number",
]
