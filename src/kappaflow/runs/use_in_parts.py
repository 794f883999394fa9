"""Scores and samples of a run in a file, in bounded memory however many rows there are."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kappaflow import __version__
from kappaflow.data import check_writable, write_table
from kappaflow.data.load import load_to_score
from kappaflow.data.open_pieces import open_pieces
from kappaflow.data.pieces import piece_size
from kappaflow.data.problem import describe_rows
from kappaflow.data.raw import Decimal
from kappaflow.errors import ArgumentError, DataError
from kappaflow.files import CONFIG, WEIGHTS
from kappaflow.runs.parts import SCORES, Columns, Work, Written, write_in_parts, written
from kappaflow.runs.use import Draws, Scores, check_draws
from kappaflow.storage import as_of
from kappaflow.training.measure import rows_at_once, scoring_generator
from kappaflow.training.progress import rows_shown

RESULT = "result.json"


def write_scores(
    folder: Path,
    data: str,
    out: str,
    *,
    identifier: str | None = None,
    repair: Literal["drop"] | None = None,
    decimal: Decimal | None = None,
) -> Written:
    """Writes what `score_run` returns, to a file or to standard output.

    A parquet, Arrow, npy, csv or tsv file of more rows than one chunk has is read, scored and
    written a chunk at a time, to the same numbers. If the process is killed, the same call
    resumes, if neither run nor data has changed. A score that is NaN is written as empty.

    Args:
        folder: The run folder.
        data: A path or a shipped name, with the columns of the run.
        out: As for `write_table`.
        identifier: A column of the data that is copied, as text.
        repair: "drop" leaves out the rows that cannot be scored; None writes them without a
            score.
        decimal: The decimal sign of the data; as in the run's data if None.

    Returns:
        What was written.

    Raises:
        ArgumentError: Parts of `out` exist that another call left; or the file cannot hold the
            text of an identifier.
        DataError: The data changed while it was read.
    """
    check_writable(out)
    if identifier is not None and Path(out).suffix.lower() in (".npy", ".npz"):
        raise ArgumentError(
            f"'out' should be a csv, parquet or arrow file where 'id' names a column, got "
            f"{out!r}: identifiers are text, and such a file holds numbers."
        )
    scores = Scores(folder)
    run, multiple = scores.run, rows_at_once(scores.flow)
    options = scores.reading(identifier, decimal)
    pieces = open_pieces(
        data,
        run.columns,
        run.context_columns,
        multiple=multiple,
        options=options,
    )
    if pieces is None:
        table = load_to_score(data, run.columns, run.context_columns, options)
        found = _written_whole(_repaired(scores.of(table), repair), out)
        return _named(found, len(table), lambda row: describe_rows(table, [row - 1])[0])
    generator = None if scores.flow.augment is None else scoring_generator()
    before = as_of(pieces.path)
    with rows_shown("reading", pieces.rows, 0) as told:
        for _ in pieces.suspects(told):  # settles what the columns of a text file hold
            pass

    def make(place: int) -> Columns:
        found = scores.of(pieces.read(place), generator=generator)
        if as_of(pieces.path) != before:
            raise DataError(f"{data} has changed while it was read: score it when it is whole.")
        return _repaired(found, repair)

    made_of = {
        "command": "score",
        "run": _digest(folder, (CONFIG, WEIGHTS, RESULT)),
        "data": {
            **before,
            "rows": pieces.rows,
            "columns": [*pieces.columns, *pieces.context],
        },
        "id": identifier,
        "repair": repair,
        "decimal": options.decimal,
        "rows of a part": pieces.size,
        "versions": _versions(),
    }
    rows = [pieces.rows_of(place) for place in range(len(pieces))]
    found = write_in_parts(Work("scoring", made_of, rows, make, generator), out)

    def name(row: int) -> str:
        place, index = divmod(row - 1, pieces.size)
        return describe_rows(pieces.read(place), [index])[0]

    return _named(found, pieces.rows, name)


def write_samples(
    folder: Path,
    n: int,
    out: str,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
) -> Written:
    """Writes what `sample_run` returns, to a file or to standard output.

    More rows than one piece has are drawn and written a piece at a time, to the same numbers. The
    same call goes on where a killed process stopped.

    Args:
        folder: The run folder.
        n: How many; for each row of `context`, where there is one.
        out: As for `write_table`.
        context: Data with the context columns, for a conditional flow.
        temperature: Deviation of the latents.
        seed: Of the draws.
        decimal: The decimal sign of the context; as in the run's data if None.

    Returns:
        What was written.

    Raises:
        ArgumentError: An argument is out of its range, or parts of `out` are there that another
            call left.
    """
    check_writable(out)
    check_draws(n, temperature, seed)
    draws = Draws(folder, context, temperature, decimal)
    generator = torch.Generator().manual_seed(seed)
    width, contexts = len(draws.run.columns) + len(draws.run.context_columns), draws.contexts
    size = piece_size(width, draws.at_once * contexts) // contexts
    if n <= size:
        return _written_whole(draws.draw(n, generator), out)
    sizes = [min(size, n - start) for start in range(0, n, size)]
    made_of = {
        "command": "sample",
        "run": _digest(folder, (CONFIG, WEIGHTS)),
        "n": n,
        "context": draws.fingerprint,
        "temperature": temperature,
        "seed": seed,
        "rows of a part": size * contexts,
        "versions": _versions(),
    }
    work = Work(
        "sampling",
        made_of,
        [count * contexts for count in sizes],
        lambda place: draws.draw(sizes[place], generator),
        generator,
    )
    return write_in_parts(work, out)


def _written_whole(columns: Columns, out: str) -> Written:
    write_table(columns, out)
    return written(columns)


def _named(found: Written, rows: int, name: Callable[[int], str]) -> Written:
    """Returns what was written of so many rows, with a name of the first one without a score."""
    first = "" if found.first_empty is None else name(found.first_empty)
    return replace(found, first_name=first, dropped=rows - found.rows)


def _repaired(columns: Columns, repair: Literal["drop"] | None) -> Columns:
    """Returns scores with NaN masked, or without the rows that have NaN."""
    scores = next(columns[name] for name in SCORES if name in columns)
    gaps = np.isnan(scores)
    if not gaps.any():
        return columns
    if repair == "drop":
        return {name: values[~gaps] for name, values in columns.items()}
    return {
        name: np.ma.masked_array(values, gaps) if name in (*SCORES, "percentile") else values
        for name, values in columns.items()
    }


def _digest(folder: Path, names: Sequence[str]) -> str:
    """Returns a SHA-256 over files of a run."""
    sha = hashlib.sha256()
    for name in names:
        sha.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return sha.hexdigest()


def _versions() -> str:
    return f"kappaflow {__version__}, torch {torch.__version__}"
