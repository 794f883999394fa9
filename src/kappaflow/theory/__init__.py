"""Theorems about couplings, computable: how many a linear map needs, and how well conditioned."""

from kappaflow.theory.bounds import (
    ROTATION_BLOCK_NORMS,
    least_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow.theory.counts import Bounds, CouplingsNeeded, couplings_needed
from kappaflow.theory.impossibility import Verdict, check_count, check_word, fewest_couplings

__all__ = [
    "Bounds",
    "CouplingsNeeded",
    "ROTATION_BLOCK_NORMS",
    "Verdict",
    "check_count",
    "check_word",
    "couplings_needed",
    "fewest_couplings",
    "least_condition_number",
    "rotation_bound",
    "unit_condition_number",
]
