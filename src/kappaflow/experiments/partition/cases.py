"""What is trained: data, kinds of flows, depths."""

from pydantic import PositiveFloat, PositiveInt

from kappaflow.experiments.partition.flows import HALVES, OF_IMAGES, OF_TABLES
from kappaflow.experiments.study import Case, StudySettings


class PartitionSettings(StudySettings):
    """What a preset says.

    Attributes:
        tables: Data sets of tables; "bananas-N" is one of N features with a known density.
        images: Sets of grey images; none if empty.
        depths: Couplings of the flows of tables.
        deeper: More depths for the fixed halves alone, such as those of the twins.
        steps: In each of the two levels of the flows of images.
        deeper_steps: More of them for the fixed halves alone.
        hidden: Width of the two hidden layers of the fixed halves, on tables; the widths of the
            others follow from their number of parameters.
        channels: Of the networks of images.
        rows: Of a table, to train on.
        epochs: Over a table.
        image_epochs: Over the images.
        batch_size: Rows a step.
        image_batch_size: Images a step.
        learning_rate: The highest one, on tables.
        image_learning_rate: The highest one, on images.
        seeds: How often each is trained.
        points: At which the conditioning of flows of tables is measured.
        image_points: The same of images.
    """

    tables: tuple[str, ...]
    images: tuple[str, ...]
    depths: tuple[PositiveInt, ...]
    deeper: tuple[PositiveInt, ...]
    steps: tuple[PositiveInt, ...]
    deeper_steps: tuple[PositiveInt, ...]
    hidden: PositiveInt
    channels: PositiveInt
    rows: PositiveInt
    epochs: PositiveInt
    image_epochs: PositiveInt
    batch_size: PositiveInt
    image_batch_size: PositiveInt
    learning_rate: PositiveFloat
    image_learning_rate: PositiveFloat
    seeds: PositiveInt
    points: PositiveInt
    image_points: PositiveInt


def cases(settings: PartitionSettings, seed: int) -> list[Case]:
    """Returns a case for each set, kind, depth and seed, the deep ones first."""
    table = {
        "what": "table",
        "hidden": settings.hidden,
        "rows": settings.rows,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "points": settings.points,
    }
    image = {
        "what": "image",
        "hidden": settings.channels,
        "epochs": settings.image_epochs,
        "batch_size": settings.image_batch_size,
        "learning_rate": settings.image_learning_rate,
        "points": settings.image_points,
    }
    found: list[Case] = []
    for common, names, kinds, depths, deeper in (
        (table, settings.tables, OF_TABLES, settings.depths, settings.deeper),
        (image, settings.images, OF_IMAGES, settings.steps, settings.deeper_steps),
    ):
        for depth in sorted({*depths, *deeper}, reverse=True):
            for name in names:
                for kind in kinds if depth in depths else (HALVES,):
                    found += [
                        {**common, "data": name, "kind": kind, "depth": depth, "seed": seed + i}
                        for i in range(settings.seeds)
                    ]
    return found
