"""The page of `kappaflow factor`: a factorization, and the same map with more couplings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kappaflow.factor import Factorization
from kappaflow_studies.factors.page import render_factors
from kappaflow_studies.factors.trade_off import nearest_reference, trade_off


def factors_page(
    factorization: Factorization,
    matrix: Tensor | np.ndarray,
    source: str,
    *,
    known: Mapping[int, Factorization],
    **search: Any,  # noqa: ANN401
) -> str:
    """Returns the page of a factorization, with other numbers of couplings for its matrix."""
    trials = trade_off(matrix, known=known, **search)
    condition = float(np.linalg.cond(factorization.matrix.numpy()))
    reference = nearest_reference(condition, len(factorization.matrix))
    return render_factors(factorization, source, trials=trials, reference=reference)
