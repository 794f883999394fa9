"""Goals for factorizations: the rows of the table of `python -m benchmarks factor`."""

import math
from dataclasses import dataclass

from kappaflow.options import FactorMethod

DRAWS = 20
OF_A_ROTATION = 13.6
WELL = 9  # well-conditioned factors of eleven; the other two share the condition number of the map


@dataclass(frozen=True)
class Goal:
    """Matrices of one kind and size, with limits for their factorizations.

    Attributes:
        row: Name of the row of the table, which may contain several goals.
        ensemble: Name of `kappaflow_studies.ensembles`.
        n: Size of the matrices.
        couplings: Number of couplings.
        method: Method of `factor_linear`.
        residual: Largest relative residual of the product.
        condition_number: Largest condition number of a factor.
        time_s: Largest time in seconds; None for no limit.
        every_draw: Whether the limits hold for the worst draw instead of the median.
        carriers: Whether two of the factors may have ten times the condition number of the map.
        by_inverse: Whether the residual is |product T^-1 - I| instead.
        draws: Number of draws; None for all matrices of a numbered ensemble.
    """

    row: str
    ensemble: str
    n: int
    couplings: int
    method: FactorMethod
    residual: float
    condition_number: float
    time_s: float | None = None
    every_draw: bool = False
    carriers: bool = False
    by_inverse: bool = False
    draws: int | None = DRAWS


GOALS = [
    *(
        Goal("rotations", ensemble, n, 6, "rotation", residual, OF_A_ROTATION, time_s, True)
        for ensemble in ("orthogonal", "permutation")
        for n, residual, time_s in ((64, 1e-13, 0.05), (512, 1e-12, 1.0), (2048, 1e-11, 60.0))
    ),
    *(
        Goal(
            "all-permutations",
            ensemble,
            n,
            6,
            "rotation",
            1e-14,
            OF_A_ROTATION,
            every_draw=True,
            draws=None,
        )
        for ensemble in ("even permutations", "odd permutations")
        for n in (4, 6)
    ),
    *(
        Goal("svd", ensemble, 512, 11, "svd", 1e-12, OF_A_ROTATION, 3.0, carriers=True)
        for ensemble in ("Gaussian", "geometric 1e2", "geometric 1e4", "geometric 1e6")
    ),
    *(
        Goal("descent", ensemble, 64, 6, "auto", 1e-13, 4.5, 3.0)
        for ensemble in ("orthogonal", "permutation")
    ),
    Goal("gaussian-64", "Gaussian", 64, 6, "auto", 1e-12, 8.0, 2.0),
    Goal("geometric-1e2", "geometric 1e2", 256, 6, "auto", 1e-12, 6.0, 60.0),
    Goal("gaussian-large", "Gaussian", 256, 6, "auto", 1e-11, 15.0, 60.0),
    Goal("gaussian-large", "Gaussian", 512, 6, "auto", 1e-11, 20.0, 600.0),
    Goal("geometric-1e4", "geometric 1e4", 64, 6, "auto", 1e-11, 20.0, 10.0),
    *(
        Goal("geometric-1e6", "geometric 1e6", 64, m, "auto", 1e-8, limit, 60.0, by_inverse=True)
        for m, limit in ((6, 80.0), (8, 40.0))
    ),
]
REWRITE = "rewrite"
# A flow of 10 features with linear layers; its residual is the difference of log_prob in nats.
GOALS.append(Goal(REWRITE, "trained flow", 10, 6, "auto", 1e-3, math.inf, draws=5))
ROWS = tuple(dict.fromkeys(goal.row for goal in GOALS))
