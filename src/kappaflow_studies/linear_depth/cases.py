"""What is fitted: the settings of the experiment, and the cases that they come to."""

from typing import Annotated

from kappaflow_studies.engine.study import Case, StudySettings
from kappaflow_studies.ensembles import has_size
from kappaflow_studies.fields import Count, Counts, Ensemble, Even, NotEmpty, Positive

EXACT_FROM, EXACT_TO = 4, 16  # couplings: below, no count is known to be enough for anything here


class LinearDepthSettings(StudySettings):
    """What is fitted to what.

    Attributes:
        ensembles: Of `kappaflow_studies.ensembles`.
        sizes: Features of the maps, even numbers; the three-cycle has six at least.
        depths: Numbers of couplings.
        draws: Maps of each kind and size.
        restarts: Starts for each map and optimiser.
        adam_steps: Of Adam, its learning rate falling to zero.
        adam_learning_rate: Where it starts.
        lbfgs_steps: Of L-BFGS, at most.
    """

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Even, ...], NotEmpty]
    depths: Counts
    draws: Count
    restarts: Count
    adam_steps: Count
    adam_learning_rate: Positive
    lbfgs_steps: Count


def cases(settings: LinearDepthSettings, seed: int) -> list[Case]:
    """Returns a case for each ensemble, size, depth and method, deep and large ones first."""
    found: list[Case] = []
    for n in sorted(settings.sizes, reverse=True):
        for depth in sorted(settings.depths, reverse=True):
            for ensemble in settings.ensembles:
                if not has_size(ensemble, n):
                    continue
                case = {"ensemble": ensemble, "n": n, "depth": depth, "draws": settings.draws}
                case["seed"] = seed
                adam = {"steps": settings.adam_steps, "rate": settings.adam_learning_rate}
                starts = {"restarts": settings.restarts}
                found.append({**case, "method": "Adam", **starts, **adam})
                lbfgs = {"steps": settings.lbfgs_steps}
                found.append({**case, "method": "L-BFGS", **starts, **lbfgs})
                if EXACT_FROM <= depth <= EXACT_TO:
                    found.append({**case, "method": "exact"})
    return found
