"""Which flows are trained on which laws, and how ideal layers whiten."""

from pydantic import PositiveFloat, PositiveInt

from kappaflow.errors import ArgumentError
from kappaflow.experiments.depth_conditioning.peers import LIBRARIES, installed
from kappaflow.experiments.depth_conditioning.whitening import SCHEMES
from kappaflow.experiments.study import Case, StudySettings


class DepthConditioningSettings(StudySettings):
    """What a preset says.

    Attributes:
        libraries: Names; what is not installed is left out, and the page says so.
        depths: Even numbers of couplings.
        features: D, an even number of at least 4.
        hidden: Widths of the networks' hidden layers.
        condition_number: Of the Gaussian.
        thickness: Of the sheet.
        draws: Laws of each kind, and flows of each depth.
        steps: Of Adam.
        batch: Draws of the law in a step.
        learning_rate: At the start.
        points: At which Jacobians are taken.
        test_points: For the likelihood, and for gradients.
        whitening_draws: Gaussians that ideal layers whiten.
        whitening_layers: How many layers.
    """

    libraries: tuple[str, ...]
    depths: tuple[PositiveInt, ...]
    features: PositiveInt
    hidden: tuple[PositiveInt, ...]
    condition_number: PositiveFloat
    thickness: PositiveFloat
    draws: PositiveInt
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    points: PositiveInt
    test_points: PositiveInt
    whitening_draws: PositiveInt
    whitening_layers: PositiveInt

    @property
    def laws(self) -> dict[str, float]:
        """The laws with what makes them hard."""
        return {"Gaussian": self.condition_number, "sheet": self.thickness}


def cases(settings: DepthConditioningSettings, seed: int) -> list[Case]:
    """Returns a case for each law, depth, library and draw, deep ones first, and the whitening."""
    _check(settings)
    found: list[Case] = []
    common = settings.model_dump(
        include={"features", "steps", "batch", "learning_rate", "points", "test_points"}
    )
    for depth in sorted(settings.depths, reverse=True):
        for library in filter(installed, settings.libraries):
            for law, hardness in settings.laws.items():
                for draw in range(settings.draws):
                    case = {"what": "flow", "library": library, "law": law, "hardness": hardness}
                    case |= {"depth": depth, "hidden": list(settings.hidden), **common}
                    found.append({**case, "seed": seed * 1000 + draw})
    for scheme in SCHEMES:
        case = {"what": "whitening", "scheme": scheme, "features": settings.features}
        case |= {"hardness": settings.condition_number, "layers": settings.whitening_layers}
        found.append({**case, "draws": settings.whitening_draws, "seed": seed})
    return found


def _check(settings: DepthConditioningSettings) -> None:
    unknown = [name for name in settings.libraries if name not in LIBRARIES]
    if unknown:
        raise ArgumentError(
            f"'libraries' should be among {', '.join(LIBRARIES)}, got {unknown[0]!r}."
        )
    if any(depth % 2 for depth in settings.depths):
        raise ArgumentError(
            f"'depths' should be even, got {list(settings.depths)}: a block of FrEIA is two "
            "couplings."
        )
    if settings.features % 2 or settings.features < 4:
        raise ArgumentError(
            f"'features' should be an even number of at least 4, got {settings.features}."
        )
