"""Tables and images that the studies train and evaluate flows on."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kappaflow.data import Table
from kappaflow.errors import ArgumentError
from kappaflow.images import Images, load_images, split_images
from kappaflow.runs import TableConfig
from kappaflow.runs.table_data import FRACTIONS
from kappaflow_studies import ensembles
from kappaflow_studies.engine.pool import Case

BEND = 1.0  # curvature of each banana


def bananas(n: int, features: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns points (n, features), features even, and their log-densities in nats, in float64."""
    z = torch.randn(n, features, dtype=torch.float64, generator=generator)
    bent = z.clone()
    bent[:, 1::2] += BEND * (z[:, ::2].square() - 1)
    turn = torch.from_numpy(np.ascontiguousarray(ensembles.draw("orthogonal", features, 0)))
    log_prob = -0.5 * z.square().sum(1) - 0.5 * features * math.log(2 * math.pi)
    return bent @ turn.mT, log_prob


HELD_OUT = 2000  # number of validation rows, and of test rows, of a table


@dataclass(frozen=True)
class DataParts:
    """Rows or images, split for training, validation and test."""

    train: Table | Images
    validation: Table | Images
    test: Table | Images
    log_prob: Tensor | None = None  # true log-densities of the test rows in nats, if known


def parts_of(case: Case, size: int | None = None) -> DataParts:
    """Returns the data of a case: of a table, or of images, resized if `size` is given."""
    if case["what"] == "table":
        return table_parts(case["data"], case["rows"], case["seed"])
    return image_parts(case["data"], size, case["seed"])


def table_parts(name: str, rows: int, seed: int) -> DataParts:
    """Returns a shipped table, or bananas such as "bananas-8", with at most so many rows."""
    features = banana_features(name)
    if features is not None:
        return _bananas(name, features, rows, seed)
    # The stored measurements were made without duplicate rows.
    tables = TableConfig(name, split_seed=seed, duplicates="drop").load()
    validation, test = (
        table.select(slice(0, HELD_OUT)) for table in (tables.validation, tables.test)
    )
    return DataParts(tables.train.select(slice(0, rows)), validation, test)


def image_parts(name: str, size: int | None, seed: int) -> DataParts:
    """Returns gray images, resized if `size` is given, and split."""
    images = load_images(name, size=size, gray=True)
    train, validation, test = split_images(images, fractions=FRACTIONS, seed=seed)
    return DataParts(train, validation, test)


def banana_features(name: str) -> int | None:
    """Returns the number of features of a table of bananas; None for other names."""
    kind, _, number = name.partition("-")
    if kind != "bananas":
        return None
    if not number.isdecimal() or int(number) < 2 or int(number) % 2:
        raise ArgumentError(
            f"a table of bananas should be bananas-N with an even number of features, got "
            f"{name!r}."
        )
    return int(number)


def _bananas(name: str, features: int, rows: int, seed: int) -> DataParts:
    generator = torch.Generator().manual_seed(seed)
    tables, log_prob = [], None
    for count in (rows, HELD_OUT, HELD_OUT):
        x, log_prob = bananas(count, features, generator)
        columns = tuple(f"x{i}" for i in range(features))
        tables.append(Table(x.numpy(), columns, np.arange(1, count + 1), name))
    return DataParts(*tables, log_prob=log_prob)
