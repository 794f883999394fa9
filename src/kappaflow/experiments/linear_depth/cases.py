"""What is fitted: the settings of the experiment, and the cases that they come to."""

from kappaflow.experiments.study import Case, StudySettings

EXACT_FROM, EXACT_TO = 4, 16  # couplings: below, no count is known to be enough for anything here


class LinearDepthSettings(StudySettings):
    """What is fitted to what.

    Attributes:
        ensembles: Of `kappaflow.experiments.ensembles`.
        sizes: Features of the maps.
        depths: Numbers of couplings.
        draws: Maps of each kind and size.
        restarts: Starts for each map and optimiser.
        adam_steps: Of Adam, its learning rate falling to zero.
        adam_learning_rate: Where it starts.
        lbfgs_steps: Of L-BFGS, at most.
    """

    ensembles: tuple[str, ...]
    sizes: tuple[int, ...]
    depths: tuple[int, ...]
    draws: int
    restarts: int
    adam_steps: int
    adam_learning_rate: float
    lbfgs_steps: int


def cases(settings: LinearDepthSettings, seed: int) -> list[Case]:
    """Returns a case for each ensemble, size, depth and method, deep and large ones first."""
    found: list[Case] = []
    for n in sorted(settings.sizes, reverse=True):
        for depth in sorted(settings.depths, reverse=True):
            for ensemble in settings.ensembles:
                if ensemble == "three-cycle" and n < 6:
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
