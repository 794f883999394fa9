"""What is provable: linear maps as couplings, and how deep flows of sphere mixtures must be."""

from kappaflow.theory.bounds import (
    ROTATION_BLOCK_NORMS,
    least_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow.theory.cannot import Verdict, check_count, check_word, fewest_couplings
from kappaflow.theory.counts import Bounds, CouplingsNeeded, couplings_needed
from kappaflow.theory.generator import MixtureGenerator
from kappaflow.theory.monte_carlo import Estimate
from kappaflow.theory.paper_route import PAPER, PaperRoute, paper_route
from kappaflow.theory.sphere import cap_share, code_size, gaussian_norm, nearest_distance
from kappaflow.theory.sphere_mixture import SphereMixture
from kappaflow.theory.swaps import permutation_couplings
from kappaflow.theory.triangular import triangular_couplings

__all__ = [
    "PAPER",
    "ROTATION_BLOCK_NORMS",
    "Bounds",
    "CouplingsNeeded",
    "Estimate",
    "MixtureGenerator",
    "PaperRoute",
    "SphereMixture",
    "Verdict",
    "cap_share",
    "check_count",
    "check_word",
    "code_size",
    "couplings_needed",
    "fewest_couplings",
    "gaussian_norm",
    "least_condition_number",
    "nearest_distance",
    "paper_route",
    "permutation_couplings",
    "rotation_bound",
    "triangular_couplings",
    "unit_condition_number",
]
