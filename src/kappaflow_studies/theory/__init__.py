"""Computable theorems about couplings.

counts             how many couplings linear maps need, and how well conditioned they can be
conditioning       bounds on the condition numbers of couplings, and the constructions behind them
impossibility      proofs that a given map is, or is not, a product of a number of couplings
arguments          the arguments behind these proofs
diagonal_scalings  properties of D M that hold for every diagonal matrix D
separated_modes    the Lipschitz constant that two groups of rows demand of a flow
exact              matrices of fractions, in which zero is exact
"""

from kappaflow_studies.theory.conditioning import (
    additive_lower_bound,
    outlier_lower_bound,
    positive_definite_bound,
    scaled_lower_bound,
)
from kappaflow_studies.theory.counts import (
    ROTATION_BLOCK_NORMS,
    Bounds,
    CouplingsNeeded,
    couplings_needed,
    min_condition_number,
    rotation_bound,
    unit_condition_number,
)
from kappaflow_studies.theory.impossibility import (
    Verdict,
    check_count,
    check_pattern,
    fewest_couplings,
)
from kappaflow_studies.theory.separated_modes import (
    SeparatedModes,
    least_lipschitz,
    separated_modes,
)

__all__ = [
    "Bounds",
    "CouplingsNeeded",
    "ROTATION_BLOCK_NORMS",
    "SeparatedModes",
    "Verdict",
    "additive_lower_bound",
    "check_count",
    "check_pattern",
    "couplings_needed",
    "fewest_couplings",
    "least_lipschitz",
    "min_condition_number",
    "outlier_lower_bound",
    "positive_definite_bound",
    "rotation_bound",
    "scaled_lower_bound",
    "separated_modes",
    "unit_condition_number",
]
