"""Which flows are trained and rewritten."""

from typing import Annotated

from pydantic import Field, model_validator

from kappaflow_studies.engine.study import Case
from kappaflow_studies.fields import Count, ImagesName, TableName
from kappaflow_studies.training_settings import TrainingSettings


class DepthFactorSettings(TrainingSettings):
    """What a preset says.

    Attributes:
        tables: Data sets of tables; "bananas-N" is one of N features.
        depths: Couplings of the flows of tables, an LU map in front of each.
        images: Sets of grey images.
        sizes: Sides that they are brought to, place by place; 0 for their own.
        levels: Of the Glow of each, place by place.
        steps: In each level.
        repeats: Of a measurement of time.
    """

    tables: tuple[TableName, ...]
    depths: tuple[Count, ...]
    images: tuple[ImagesName, ...]
    sizes: tuple[Annotated[int, Field(ge=0)], ...]
    levels: tuple[Count, ...]
    steps: tuple[Count, ...]
    repeats: Count

    @model_validator(mode="after")
    def _check(self) -> "DepthFactorSettings":
        if not len(self.images) == len(self.sizes) == len(self.levels):
            raise ValueError("'images', 'sizes' and 'levels' should be equally long lists")
        return self


def cases(settings: DepthFactorSettings, seed: int) -> list[Case]:
    """Returns a case for each flow and seed, large images first."""
    table = settings.of_tables() | {"repeats": settings.repeats}
    image = settings.of_images() | {"repeats": settings.repeats}
    found: list[Case] = []
    sets = zip(settings.images, settings.sizes, settings.levels, strict=True)
    for name, size, levels in sorted(sets, key=lambda one: -one[1]):
        for steps in sorted(settings.steps, reverse=True):
            found.append({**image, "data": name, "size": size, "levels": levels, "depth": steps})
    for name in settings.tables:
        for depth in sorted(settings.depths, reverse=True):
            found.append({**table, "data": name, "depth": depth})
    return [{**case, "seed": seed + i} for case in found for i in range(settings.seeds)]
