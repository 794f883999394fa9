"""Which flows are trained and rewritten."""

from pydantic import PositiveFloat, PositiveInt

from kappaflow.errors import ArgumentError
from kappaflow.experiments.study import Case, StudySettings


class DepthFactorSettings(StudySettings):
    """What a preset says.

    Attributes:
        tables: Data sets of tables; "bananas-N" is one of N features.
        depths: Couplings of the flows of tables, an LU map in front of each.
        images: Sets of grey images.
        sizes: Sides that they are brought to, place by place; 0 for their own.
        levels: Of the Glow of each, place by place.
        steps: In each level.
        hidden: Width of the two hidden layers, on tables.
        channels: Of the networks of images.
        rows: Of a table, to train on.
        epochs: Over a table.
        image_epochs: Over the images.
        batch_size: Rows a step, and in a measurement of time.
        image_batch_size: Images a step, and in a measurement of time.
        learning_rate: The highest one, on tables.
        image_learning_rate: The highest one, on images.
        seeds: How often each is trained.
        points: At which the conditioning of flows of tables is measured.
        image_points: The same of images.
        repeats: Of a measurement of time.
    """

    tables: tuple[str, ...]
    depths: tuple[PositiveInt, ...]
    images: tuple[str, ...]
    sizes: tuple[int, ...]
    levels: tuple[PositiveInt, ...]
    steps: tuple[PositiveInt, ...]
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
    repeats: PositiveInt


def cases(settings: DepthFactorSettings, seed: int) -> list[Case]:
    """Returns a case for each flow and seed, large images first."""
    if not len(settings.images) == len(settings.sizes) == len(settings.levels):
        raise ArgumentError("'images', 'sizes' and 'levels' should be equally long lists.")
    table = {
        "what": "table",
        "hidden": settings.hidden,
        "rows": settings.rows,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "points": settings.points,
        "repeats": settings.repeats,
    }
    image = {
        "what": "image",
        "hidden": settings.channels,
        "epochs": settings.image_epochs,
        "batch_size": settings.image_batch_size,
        "learning_rate": settings.image_learning_rate,
        "points": settings.image_points,
        "repeats": settings.repeats,
    }
    found: list[Case] = []
    sets = zip(settings.images, settings.sizes, settings.levels, strict=True)
    for name, size, levels in sorted(sets, key=lambda one: -one[1]):
        for steps in sorted(settings.steps, reverse=True):
            found.append({**image, "data": name, "size": size, "levels": levels, "depth": steps})
    for name in settings.tables:
        for depth in sorted(settings.depths, reverse=True):
            found.append({**table, "data": name, "depth": depth})
    return [{**case, "seed": seed + i} for case in found for i in range(settings.seeds)]
