"""Which laws are approximated, to which errors."""

from typing import Annotated

from kappaflow_studies.engine.study import Case, StudySettings
from kappaflow_studies.fields import Count, Many, NotEmpty, Positive, one_of
from kappaflow_studies.universal.targets import TARGETS

Law = Annotated[str, one_of("law", lambda: TARGETS)]


class UniversalSettings(StudySettings):
    """What a preset says.

    Attributes:
        targets: Names of laws.
        errors: That are allowed, in W2.
        samples: Normal draws for the bound on W2.
        points: At which singular values are taken.
        draws: Points of a sample of which the two-sample W2 is taken.
        two_sample_down_to: The least error for which it is.
        pictured: Errors of which draws are shown.
        picture_draws: How many draws of each.
        bins: Of a picture, along each axis.
    """

    targets: Annotated[tuple[Law, ...], NotEmpty]
    errors: Annotated[tuple[Positive, ...], NotEmpty]
    samples: Many
    points: Count
    draws: Many
    two_sample_down_to: Positive
    pictured: tuple[Positive, ...]
    picture_draws: Count
    bins: Many


def cases(settings: UniversalSettings, seed: int) -> list[Case]:
    """Returns a case for each law and error, and one for each picture, the law itself first."""
    found: list[Case] = []
    for name in settings.targets:
        for error in settings.errors:
            draws = settings.draws if error >= settings.two_sample_down_to else 0
            counts = {"samples": settings.samples, "points": settings.points, "draws": draws}
            found.append({"what": "error", "target": name, "epsilon": error, **counts})
        if TARGETS[name].features == 2:
            counts = {"draws": settings.picture_draws, "bins": settings.bins}
            for error in (0.0, *settings.pictured):
                found.append({"what": "picture", "target": name, "epsilon": error, **counts})
    return [{**case, "seed": seed} for case in found]
