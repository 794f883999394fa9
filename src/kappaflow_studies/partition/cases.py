"""What is trained: data, kinds of flows, depths."""

from kappaflow_studies.engine.study import Case
from kappaflow_studies.fields import Count, ImagesName, TableName
from kappaflow_studies.partition.flows import HALVES, OF_IMAGES, OF_TABLES
from kappaflow_studies.training_settings import TrainingSettings


class PartitionSettings(TrainingSettings):
    """What a preset says.

    Attributes:
        tables: Data sets of tables; "bananas-N" is one of N features with a known density.
        images: Sets of grey images; none if empty.
        depths: Couplings of the flows of tables.
        deeper: More depths for the fixed halves alone, such as those of the twins.
        steps: In each of the two levels of the flows of images.
        deeper_steps: More of them for the fixed halves alone.

    On tables `hidden` is of the fixed halves; the widths of the others follow from their number
    of parameters.
    """

    tables: tuple[TableName, ...]
    images: tuple[ImagesName, ...]
    depths: tuple[Count, ...]
    deeper: tuple[Count, ...]
    steps: tuple[Count, ...]
    deeper_steps: tuple[Count, ...]


def cases(settings: PartitionSettings, seed: int) -> list[Case]:
    """Returns a case for each set, kind, depth and seed, the deep ones first."""
    found: list[Case] = []
    for common, names, kinds, depths, deeper in (
        (settings.of_tables(), settings.tables, OF_TABLES, settings.depths, settings.deeper),
        (settings.of_images(), settings.images, OF_IMAGES, settings.steps, settings.deeper_steps),
    ):
        for depth in sorted({*depths, *deeper}, reverse=True):
            for name in names:
                for kind in kinds if depth in depths else (HALVES,):
                    found += [
                        {**common, "data": name, "kind": kind, "depth": depth, "seed": seed + i}
                        for i in range(settings.seeds)
                    ]
    return found
