"""What is provable: linear maps as couplings, and how deep flows of sphere mixtures must be."""

from kappaflow.theory.bounds import (
    ROTATION_BLOCK_NORMS,
    least_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow.theory.cannot import Verdict, check_count, check_word, fewest_couplings
from kappaflow.theory.counts import Bounds, CouplingsNeeded, couplings_needed
from kappaflow.theory.depth_bound import DepthBound, LayerClass, least_depth, least_numbers
from kappaflow.theory.far_apart import FarApart, mixtures_far_apart
from kappaflow.theory.generator import MixtureGenerator
from kappaflow.theory.lipschitz_bounds import divergence_at_least, tearing_bound, volume_bound
from kappaflow.theory.mixture_distances import RandomFamily, random_family, wasserstein_bounds
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
    "DepthBound",
    "Estimate",
    "FarApart",
    "LayerClass",
    "MixtureGenerator",
    "PaperRoute",
    "RandomFamily",
    "SphereMixture",
    "Verdict",
    "cap_share",
    "check_count",
    "check_word",
    "code_size",
    "couplings_needed",
    "divergence_at_least",
    "fewest_couplings",
    "gaussian_norm",
    "least_condition_number",
    "least_depth",
    "least_numbers",
    "mixtures_far_apart",
    "nearest_distance",
    "paper_route",
    "permutation_couplings",
    "random_family",
    "rotation_bound",
    "tearing_bound",
    "triangular_couplings",
    "unit_condition_number",
    "volume_bound",
    "wasserstein_bounds",
]
