"""Which flows are trained on which laws, and how ideal layers whiten."""

from typing import Annotated

from pydantic import Field

from kappaflow_studies.depth_conditioning.peers import LIBRARIES, installed
from kappaflow_studies.depth_conditioning.whitening import SCHEMES
from kappaflow_studies.engine.study import Case, StudySettings
from kappaflow_studies.fields import Count, Counts, Even, Many, NotEmpty, Positive, one_of

MOST_DRAWS = 1000  # of one seed of the experiment, so that those of another are different ones
Library = Annotated[str, one_of("library", lambda: LIBRARIES)]
AboveOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]


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

    libraries: Annotated[tuple[Library, ...], NotEmpty]
    depths: Annotated[tuple[Even, ...], NotEmpty]  # a block of FrEIA is two couplings
    features: Annotated[int, Field(ge=4, multiple_of=2)]
    hidden: Counts
    condition_number: AboveOne
    thickness: Positive
    draws: Annotated[int, Field(ge=1, le=MOST_DRAWS)]
    steps: Count
    batch: Count
    learning_rate: Positive
    points: Count
    test_points: Many
    whitening_draws: Count
    whitening_layers: Many

    @property
    def laws(self) -> dict[str, float]:
        """The laws with what makes them hard."""
        return {"Gaussian": self.condition_number, "sheet": self.thickness}


def cases(settings: DepthConditioningSettings, seed: int) -> list[Case]:
    """Returns a case for each law, depth, library and draw, deep ones first, and the whitening."""
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
                    found.append({**case, "seed": seed * MOST_DRAWS + draw})
    for scheme in SCHEMES:
        case = {"what": "whitening", "scheme": scheme, "features": settings.features}
        case |= {"hardness": settings.condition_number, "layers": settings.whitening_layers}
        found.append({**case, "draws": settings.whitening_draws, "seed": seed})
    return found
