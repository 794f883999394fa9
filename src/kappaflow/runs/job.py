"""What a run is asked to do, and the tables that follow from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kappaflow.data import (
    MappedTable,
    Table,
    TableOnDisk,
    examine,
    load_table,
    split,
)
from kappaflow.data.domains import bounds_hint, domains_of, within
from kappaflow.data.gaps import refuse_gaps
from kappaflow.data.prepare import FEW_ROWS, few_to_train_on, noisy, prepare_table
from kappaflow.data.problem import listed
from kappaflow.data.raw import ReadOptions
from kappaflow.data.repair import Repair
from kappaflow.data.repeats import (
    Duplicates,
    drop_duplicate_rows,
    repeated_rows,
    weigh_duplicate_rows,
)
from kappaflow.data.rows_folder import Asked, Divided
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.training.on_disk import divided, divided_for, looked_at, rows_while

FRACTIONS = (0.8, 0.1, 0.1)
NO_MISSING = "none"


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
        repair: "drop" or "jitter" where the data has no density, "dequantize" where values are
            rounded.
        jitter: Columns that are given Gaussian noise of 1e-3 of their standard deviation.
        bounds: Domains of columns, such as "mass=positive" and "p=0,1".
        decimal: The decimal sign of a text file; None to recognise it.
        missing: Values that mean a missing one, such as "-999"; "none" where each number is one.
        split_seed: Decides which rows train (80 %), validate (10 %) and test (10 %).
        on_disk: True to leave the rows to train on in a file; 100,000 rows at most are then held
            out to validate, and as many to test.
        duplicates: "keep" rows that repeat earlier ones, "drop" them, or "weigh" each row by the
            number of its copies.
    """

    data: str
    columns: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    against: str | None = None
    repair: Repair | None = None
    split_seed: int = 0
    jitter: list[str] | None = None
    bounds: list[str] | None = None
    on_disk: bool | None = None
    duplicates: Duplicates = "keep"
    decimal: Literal[".", ","] | None = None
    missing: list[str] = field(default_factory=list)

    def reading(self) -> ReadOptions:
        """Returns how the values are read."""
        return ReadOptions(self.decimal, tuple(self.missing))


@dataclass(frozen=True)
class Tables:
    """The rows of a run, by what they are for, and what was said about them.

    Attributes:
        train: Rows to train on: all, or a sample of those in a file.
        validation: Rows to stop by.
        test: Rows to judge by.
        against: Rows that should score lower.
        loaded: How many rows there were.
        repeats: How many of them repeat earlier ones.
        notes: What there is to know, one sentence each.
        domains: By column, of those that have one.
        in_file: Rows to train on in a file; None where they are in memory.
        warnings: The notes that keep the verdict of a run from being green, however good the fit
            looks.
        widths: By column, the width of the uniform noise that was added to rounded values.
        weighed: Whether training counts equal rows by a weight.
    """

    train: Table
    validation: Table
    test: Table
    against: Table | None
    loaded: int
    repeats: int
    notes: tuple[str, ...]
    domains: dict[str, Interval] = field(default_factory=dict)
    in_file: MappedTable | None = None
    warnings: tuple[str, ...] = ()
    widths: dict[str, float] = field(default_factory=dict)
    weighed: bool = False

    @property
    def trained_on(self) -> Table | MappedTable:
        """All rows to train on, in memory or in a file."""
        if self.in_file is not None:
            return self.in_file
        return weigh_duplicate_rows(self.train)[0] if self.weighed else self.train


def tables_of(source: Source) -> Tables:
    """Returns the rows of a run: loaded, examined, repaired, split.

    Args:
        source: Where they come from.

    Returns:
        Training, validation and test rows; equal rows are in the same part. A table on disk is
        read, but its training rows are not written.
    """
    if source.on_disk:
        return _divided(source, divided(_asked(source), None, progress=False))
    if source.against is not None and source.data == "-":
        raise ArgumentError("'against' needs data that can be read twice, not standard input.")
    whole = load_table(
        source.data,
        columns=source.columns,
        exclude=source.exclude,
        context=source.context,
        where=source.where or None,
        decimal=source.decimal,
        missing=source.missing,
    )
    against, notes = _against(source, whole)
    if against is not None:
        whole = whole.select(~np.isin(whole.rows, against.rows))
    _refuse_few_different(whole)
    if NO_MISSING not in source.missing:
        _refuse_sentinels(whole)
    prepared = prepare_table(
        whole,
        bounds=source.bounds,
        repair=source.repair,
        jitter=source.jitter or (),
        duplicates=source.duplicates,
    )
    table, domains = prepared.table, prepared.domains
    train, validation, test = split(table, fractions=FRACTIONS, seed=source.split_seed)
    if against is not None:
        if source.duplicates != "keep":
            against, _ = drop_duplicate_rows(against)
        against = against.without_columns(set(against.columns) - set(table.columns))
        refuse_gaps(against, source.data)
        against, _ = within(against, domains, repair=source.repair, rounded=tuple(prepared.widths))
        against = noisy(against, prepared.widths, domains)
    warnings = train.warnings + few_to_train_on(len(train))
    return Tables(
        train,
        validation,
        test,
        against,
        loaded=len(whole),
        repeats=prepared.repeats.total,
        notes=notes + prepared.notes + prepared.warnings + few_to_train_on(len(train)),
        domains=domains,
        widths=prepared.widths,
        warnings=warnings,
        weighed=source.duplicates == "weigh",
    )


def _refuse_few_different(table: Table) -> None:
    """Refuses rows that are nearly all the same, before their number is called too small."""
    for rows in (table.select(slice(0, FEW_ROWS)), table):  # the first few nearly always do
        different = len(rows) - int(repeated_rows(rows).sum())
        if different >= min(len(FRACTIONS), len(table)) or not np.isfinite(rows.values).all():
            return
    raise DataError(
        f"'{table.source}' holds only {different} different row{'s' if different > 1 else ''} "
        f"among {len(table):,}: give at least {len(FRACTIONS)} different ones, to train on, to "
        "stop by and to test with."
    )


def _refuse_sentinels(table: Table) -> None:
    """Refuses numbers that most likely stand for missing values."""
    problems = [one for one in examine(table) if one.code == "sentinel"]
    if problems:
        raise DataError(
            f"{listed(problems)}, and --repair drop to leave out its rows; if it is a "
            f"measurement, say --missing {NO_MISSING}."
        )


@contextmanager
def tables_for(
    source: Source, out: Path, device: str | None, progress: bool | None
) -> Iterator[Tables]:
    """Yields the rows of a run to be trained on; those in a file are there for as long.

    Args:
        source: Where they come from.
        out: The run folder, which no other process may be writing to.
        device: Where to train.
        progress: Show a progress bar; on a terminal only if left out.

    Yields:
        The rows.
    """
    if not source.on_disk:
        yield tables_of(source)
        return
    asked = _asked(source)
    with rows_while(out):
        yield _divided(source, divided_for(asked, out=out, device=device, progress=progress))


def _asked(source: Source) -> Asked:
    """Returns what is to be made of a table on disk, if nothing needs all of it in memory."""
    needs = {"where": source.where, "against": source.against, "repair": source.repair}
    for name, value in (needs | {"jitter": source.jitter}).items():
        if value:
            raise ArgumentError(
                f"'{name}' should be left out with 'on_disk', which reads each row once: write a "
                "file of the rows to train on first."
            )
    columns = None if source.columns is None else tuple(source.columns)
    table = TableOnDisk(
        source.data,
        columns,
        tuple(source.exclude),
        tuple(source.context),
        decimal=source.decimal,
        missing=tuple(source.missing),
    )
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")  # of all recipes
    return Asked(table, FRACTIONS, source.split_seed, dtype, source.duplicates)


def _divided(source: Source, found: Divided) -> Tables:
    """Returns the rows of a table on disk as those of a run, if a density can be fitted."""
    sample, notes, warned = looked_at(found, source.duplicates)
    if NO_MISSING not in source.missing:
        _refuse_sentinels(sample)
    domains = domains_of(source.bounds, sample)
    few = few_to_train_on(len(found.train))
    for part in (sample, *found.held_out):
        within(part, domains, offered=())
    return Tables(
        sample,
        *found.held_out,
        against=None,
        loaded=found.rows,
        repeats=found.repeats,
        notes=notes + bounds_hint(sample, domains) + warned + few,
        domains=domains,
        in_file=found.train,
        warnings=sample.warnings + few,
    )


def _against(source: Source, whole: Table) -> tuple[Table | None, tuple[str, ...]]:
    """Returns the rows to compare with, and what to say where training would have seen them."""
    if source.against is None:
        return None, ()
    against = load_table(
        source.data,
        columns=list(whole.columns),
        context=source.context,
        where=source.against,
        decimal=source.decimal,
        missing=source.missing,
    )
    both = int(np.isin(whole.rows, against.rows).sum())
    said = (f"{both} rows that meet {source.against!r} are compared with, and not trained on",)
    return against, said if both else ()
