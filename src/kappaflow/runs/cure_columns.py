"""Cures of the data of a run: a column that nearly follows from others is left out or jittered."""

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

COLUMN_CURES = ("drop", "jitter")
GIVEN = ("features", "context_features", "bounds")  # by the table


def near_relation(tables: Tables) -> tuple[str, str] | None:
    """Returns the column that nearly follows from the others, and how, in words.

    None where what the relation leaves of it is near the noise that jittering adds, or above.
    """
    train = tables.train
    if len(train.columns) < 2 or train.context is not None:
        return None
    relation, left = nearest_relation(train.values)
    if left >= JITTER / 2:
        return None
    said = f"{relation.text(train.columns)}, up to {left:.1e} of its spread"
    return train.columns[relation.column], said


def train_anew(folder: Path, out: Path, cure: str, data: Trainable, progress: bool | None) -> str:
    """Returns what was done to a column, after the run was trained without it, or with noise.

    Args:
        folder: The run.
        out: The new one.
        cure: "drop" or "jitter".
        data: Of the run.
        progress: Show a progress bar; on a terminal only if left out.

    Returns:
        A sentence.
    """
    found = near_relation(data.tables)
    if found is None:
        raise ArgumentError(
            f"'fix' should not be {cure!r}: no column of the run follows from the others up to "
            f"{JITTER / 2:g} of its spread."
        )
    (column, relation), source = found, data.source
    if cure == "drop":
        source = replace(
            source,
            exclude=[] if source.columns else [*source.exclude, column],
            columns=[c for c in source.columns if c != column] if source.columns else None,
        )
        said = f"left out column {column!r}: {relation}"
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
            "'fix' should not be 'drop' or 'jitter': they train anew, and the flow of the run was "
            "put together from its layers."
        )
    arguments = {
        name: build(value) if isinstance(value, dict) else value
        for name, value in named[1].items()
        if name not in GIVEN
    }
    return Model(named[0], arguments)
