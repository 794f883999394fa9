"""Tables and images that flows of experiments are trained and judged on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kappaflow.data import Images, Table, load_images, split_images
from kappaflow.errors import ArgumentError
from kappaflow.runs import Source
from kappaflow.runs.job import FRACTIONS, tables_of
from kappaflow_studies.bananas import bananas

HELD_OUT = 2000  # rows of a table, to stop by and to judge by


@dataclass(frozen=True)
class Parts:
    """Rows or images by what they are for.

    Attributes:
        train: To train on.
        validation: To stop by.
        test: To judge by.
        log_prob: The true log-density of the rows to judge by, in nats, where it is known.
    """

    train: Table | Images
    validation: Table | Images
    test: Table | Images
    log_prob: Tensor | None = None


def table_parts(name: str, rows: int, seed: int) -> Parts:
    """Returns a table in three parts.

    Args:
        name: "bananas-8", with any even number of features, or a data set that comes along.
        rows: To train on, at most.
        seed: Of the split, or of the draws.

    Returns:
        The parts.

    Raises:
        ArgumentError: There is no such table.
    """
    features = banana_features(name)
    if features is not None:
        return _bananas(name, features, rows, seed)
    # Copies are dropped: the stored measurements were made of such rows.
    tables = tables_of(Source(name, split_seed=seed, duplicates="drop"))
    held_out = slice(0, HELD_OUT)
    return Parts(
        tables.train.select(slice(0, rows)),
        tables.validation.select(held_out),
        tables.test.select(held_out),
    )


def image_parts(name: str, size: int | None, seed: int) -> Parts:
    """Returns grey images in three parts, all brought to a size if one is given."""
    images = load_images(name, size=size, grey=True)
    train, validation, test = split_images(images, fractions=FRACTIONS, seed=seed)
    return Parts(train, validation, test)


def banana_features(name: str) -> int | None:
    """Returns the features of a table of bananas by its name, None if it is another table.

    Args:
        name: "bananas-8", or a name of another table.

    Returns:
        How many features.

    Raises:
        ArgumentError: It is a name of bananas without an even number.
    """
    kind, _, number = name.partition("-")
    if kind != "bananas":
        return None
    if not number.isdecimal() or int(number) < 2 or int(number) % 2:
        raise ArgumentError(
            f"a table of bananas should be bananas-N with an even number of features, got "
            f"{name!r}."
        )
    return int(number)


def _bananas(name: str, features: int, rows: int, seed: int) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    tables, log_prob = [], None
    for count in (rows, HELD_OUT, HELD_OUT):
        x, log_prob = bananas(count, features, generator)
        tables.append(
            Table(
                values=x.numpy(),
                columns=tuple(f"x{i}" for i in range(features)),
                context=None,
                context_columns=(),
                rows=np.arange(1, count + 1),
                left_out=(),
                source=name,
                integer_columns=(),
            )
        )
    return Parts(*tables, log_prob=log_prob)
