"""The theorems, computable: linear maps as couplings, any law by three, and the depth of flows."""

from kappaflow.theory.approximation import Approximation, approximate
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
from kappaflow.theory.power import PowerLaw, power_law
from kappaflow.theory.sphere import cap_share, code_size, gaussian_norm, nearest_distance
from kappaflow.theory.sphere_mixture import SphereMixture
from kappaflow.theory.staircases import Grid, staircase
from kappaflow.theory.swaps import permutation_couplings
from kappaflow.theory.targets import (
    TARGETS,
    Banana,
    Checkerboard,
    Ring,
    Target,
    TruncatedMixture,
    UniformCube,
)
from kappaflow.theory.triangular import triangular_couplings
from kappaflow.theory.universal import Recoding, Scales, universal_flow
from kappaflow.theory.wasserstein import TransportError, transport_error, two_sample_w2
from kappaflow.theory.whitening import (
    after_ideal_coupling,
    expected_non_standardness,
    last_whitening_factor,
    non_standardness,
    whitening_factor,
)

__all__ = [
    "PAPER",
    "ROTATION_BLOCK_NORMS",
    "TARGETS",
    "Approximation",
    "Banana",
    "Bounds",
    "Checkerboard",
    "CouplingsNeeded",
    "DepthBound",
    "Estimate",
    "FarApart",
    "Grid",
    "LayerClass",
    "MixtureGenerator",
    "PaperRoute",
    "PowerLaw",
    "RandomFamily",
    "Recoding",
    "Ring",
    "Scales",
    "SphereMixture",
    "Target",
    "TransportError",
    "TruncatedMixture",
    "UniformCube",
    "Verdict",
    "after_ideal_coupling",
    "approximate",
    "cap_share",
    "check_count",
    "check_word",
    "code_size",
    "couplings_needed",
    "divergence_at_least",
    "expected_non_standardness",
    "fewest_couplings",
    "gaussian_norm",
    "last_whitening_factor",
    "least_condition_number",
    "least_depth",
    "least_numbers",
    "mixtures_far_apart",
    "nearest_distance",
    "non_standardness",
    "paper_route",
    "permutation_couplings",
    "power_law",
    "random_family",
    "rotation_bound",
    "staircase",
    "tearing_bound",
    "transport_error",
    "triangular_couplings",
    "two_sample_w2",
    "unit_condition_number",
    "universal_flow",
    "volume_bound",
    "wasserstein_bounds",
    "whitening_factor",
]
