"""The older route from a linear map to couplings, for comparison (Koehler et al. 2021)."""

from kappaflow_studies.koehler2021.permutations import permutation_couplings
from kappaflow_studies.koehler2021.route import PAPER, PaperRoute, paper_route
from kappaflow_studies.koehler2021.triangular import triangular_couplings

__all__ = [
    "PAPER",
    "PaperRoute",
    "paper_route",
    "permutation_couplings",
    "triangular_couplings",
]
