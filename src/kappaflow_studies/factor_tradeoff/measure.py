"""Settings, cases, and one case: a random map, and its best factorization within a count."""

import time
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from kappaflow.errors import NumericalError
from kappaflow.factor import factor_linear
from kappaflow_studies import ensembles
from kappaflow_studies.engine.study import Case, Row, StudySettings
from kappaflow_studies.fields import Counts, Ensemble, Many, NotEmpty

Enough = Annotated[int, Field(ge=6)]  # for all maps


class TradeOffSettings(StudySettings):
    """Which maps, and how many couplings.

    Attributes:
        ensembles: Of `kappaflow_studies.ensembles`.
        sizes: Features of the maps.
        draws: Maps of each ensemble, for each size.
        couplings: The largest numbers of couplings allowed, from six on: fewer do not always do.
    """

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Many, ...], NotEmpty]
    draws: Counts
    couplings: Annotated[tuple[Enough, ...], NotEmpty]

    @model_validator(mode="after")
    def _check(self) -> "TradeOffSettings":
        if len(self.sizes) != len(self.draws):
            raise ValueError("'draws' should have a number for each size")
        return self


def cases(settings: TradeOffSettings, seed: int) -> list[Case]:
    """Returns a case for each map and count, large maps first."""
    first = 1000 * seed
    return [
        {"ensemble": name, "n": n, "draw": first + draw, "couplings": most}
        for n, draws in sorted(zip(settings.sizes, settings.draws, strict=True), reverse=True)
        for draw in range(draws)
        for name in settings.ensembles
        if ensembles.has_size(name, n)
        for most in settings.couplings
    ]


def measure(case: Case) -> list[Row]:
    """Returns what is found for one map within so many couplings, or why nothing is."""
    matrix = ensembles.draw(case["ensemble"], case["n"], case["draw"])
    of_the_map = float(np.linalg.cond(matrix))
    started = time.perf_counter()
    try:
        found = factor_linear(matrix, couplings=case["couplings"])
    except NumericalError as error:
        return [{"error": str(error), "of_the_map": of_the_map}]
    return [
        {
            "found": len(found),
            "method": found.method,
            "condition_number": found.condition_number,
            "residual": found.residual,
            "time_s": time.perf_counter() - started,
            "of_the_map": of_the_map,
        }
    ]
