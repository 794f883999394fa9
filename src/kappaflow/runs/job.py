"""What a run is asked to do, and the tables that follow from it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kappaflow.data import Table, drop_duplicate_rows, load_table, prepare, split
from kappaflow.errors import ArgumentError, FileError
from kappaflow.files import CONFIG, read_config

FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Source:
    """Where the rows of a run come from.

    Attributes:
        data: A path or a shipped name.
        columns: Columns to model; None for all of numbers.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on.
        where: Conditions on the rows, such as "class=g".
        against: A condition on other rows of the same data, which are never trained on and should
            score lower; None for no such comparison.
        repair: "drop" or "jitter" where the data has no density.
        split_seed: Decides which rows train (80 %), validate (10 %) and test (10 %).
    """

    data: str
    columns: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    against: str | None = None
    repair: Literal["drop", "jitter"] | None = None
    split_seed: int = 0


@dataclass(frozen=True)
class Tables:
    """The rows of a run, by what they are for, and what was said about them."""

    train: Table
    validation: Table
    test: Table
    against: Table | None
    loaded: int
    duplicates: int
    notes: tuple[str, ...]


def tables_of(source: Source) -> Tables:
    """Returns the rows of a run: loaded, examined, without duplicate rows, split.

    Args:
        source: Where they come from.

    Returns:
        Training, validation and test rows; no two of them are equal.
    """
    whole = load_table(
        source.data,
        columns=source.columns,
        exclude=source.exclude,
        context=source.context,
        where=source.where or None,
    )
    table, duplicates = drop_duplicate_rows(whole)
    table, notes = prepare(table, repair=source.repair)
    train, validation, test = split(table, fractions=FRACTIONS, seed=source.split_seed)
    if duplicates:
        notes = (
            f"{duplicates} rows that repeat earlier ones were dropped before the split",
            *notes,
        )
    against = None
    if source.against is not None:
        against = load_table(
            source.data, columns=list(table.columns), context=source.context, where=source.against
        )
        against, _ = drop_duplicate_rows(against)
    return Tables(train, validation, test, against, len(whole), duplicates, notes)


def read_run(folder: Path) -> dict[str, Any]:
    """Returns what config.json says of a run, or says that the folder holds none."""
    run = read_config(folder / CONFIG).run
    if run is None:
        raise FileError(
            f"{folder} holds a model but no run: it was saved, not fitted by a command."
        )
    return run


def source_of(run: dict[str, Any], folder: Path) -> Source:
    """Returns where the rows of a run came from."""
    try:
        return Source(**run["source"])
    except (KeyError, TypeError):
        raise FileError(
            f"{folder / CONFIG} does not say where the data of the run came from."
        ) from None


def matching_table(data: str, run: dict[str, Any]) -> Table:
    """Returns the columns of a run from other data, without missing or infinite values."""
    import numpy as np

    table = load_table(data, columns=run["columns"], context=run["context_columns"])
    parts = table.values if table.context is None else np.hstack([table.values, table.context])
    bad = ~np.isfinite(parts)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = [*table.columns, *table.context_columns][column]
        raise ArgumentError(
            f"column {json.dumps(name)} of {data} should hold finite numbers, "
            f"row {table.rows[row]} has {parts[row, column]}."
        )
    return table
