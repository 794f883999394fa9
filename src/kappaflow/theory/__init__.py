"""What is provable about linear maps as couplings: counts, bounds, proofs that fewer cannot do."""

from kappaflow.theory.bounds import (
    ROTATION_BLOCK_NORMS,
    least_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow.theory.cannot import Verdict, check_count, check_word, fewest_couplings
from kappaflow.theory.counts import Bounds, CouplingsNeeded, couplings_needed
from kappaflow.theory.paper_route import PAPER, PaperRoute, paper_route
from kappaflow.theory.swaps import permutation_couplings
from kappaflow.theory.triangular import triangular_couplings

__all__ = [
    "PAPER",
    "ROTATION_BLOCK_NORMS",
    "Bounds",
    "CouplingsNeeded",
    "PaperRoute",
    "Verdict",
    "check_count",
    "check_word",
    "couplings_needed",
    "fewest_couplings",
    "least_condition_number",
    "paper_route",
    "permutation_couplings",
    "rotation_bound",
    "triangular_couplings",
    "unit_condition_number",
]
