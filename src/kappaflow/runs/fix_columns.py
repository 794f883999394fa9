"""Fixes of the data of a run: drops or jitters a column that nearly follows from others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kappaflow.data.dependence import nearest_relation
from kappaflow.data.repair import JITTER
from kappaflow.errors import ArgumentError
from kappaflow.files import CONFIG, read_config
from kappaflow.registry import build
from kappaflow.runs.fit import fit_run
from kappaflow.runs.job import Tables
from kappaflow.runs.recipes import Model, named_recipe
from kappaflow.runs.trainable import Trainable

COLUMN_FIXES = ("drop", "jitter")
GIVEN = ("features", "context_features", "bounds")  # by the table


def near_relation(tables: Tables) -> tuple[str, str] | None:
    """Returns the column that nearly follows from the others, and the relation as text.

    None where its deviation from the relation is as large as the noise that jittering adds.
    """
    train = tables.train
    if len(train.columns) < 2 or train.context is not None:
        return None
    relation, left = nearest_relation(train.values)
    if left >= JITTER / 2:
        return None
    text = f"{relation.text(train.columns)}, up to {left:.1e} of its spread"
    return train.columns[relation.column], text


def train_anew(folder: Path, out: Path, fix: str, data: Trainable, progress: bool | None) -> str:
    """Trains a run again without a column, or with noise added to it; returns what was done.

    Args:
        folder: The run.
        out: The new run.
        fix: "drop" or "jitter".
        data: The data and the settings of the run.
        progress: Show a progress bar; by default on a terminal only.

    Returns:
        A sentence.
    """
    found = near_relation(data.tables)
    if found is None:
        raise ArgumentError(
            f"'fix' should not be {fix!r}: no column of the run follows from the others up to "
            f"{JITTER / 2:g} of its spread."
        )
    (column, relation), source = found, data.source
    if fix == "drop":
        source = replace(
            source,
            exclude=[] if source.columns else [*source.exclude, column],
            columns=[c for c in source.columns if c != column] if source.columns else None,
        )
        said = f"dropped column {column!r}: {relation}"
    else:
        source = replace(source, jitter=[*(source.jitter or []), column])
        said = f"added Gaussian noise of {JITTER:g} of its spread to column {column!r}: {relation}"
    fit_run(source, _model(folder), out, progress=progress, **data.settings.model_dump())
    return said


def _model(folder: Path) -> Model:
    """Returns the recipe of a run's flow, with its arguments."""
    described: dict[str, Any] = read_config(folder / CONFIG).model
    named = named_recipe(described["name"], described["arguments"])
    if named is None:
        raise ArgumentError(
            "'fix' should not be 'drop' or 'jitter': they train the recipe of the run again, and "
            "this flow was assembled from layers."
        )
    arguments = {
        name: build(value) if isinstance(value, dict) else value
        for name, value in named[1].items()
        if name not in GIVEN
    }
    return Model(named[0], arguments)
