"""Scores and samples of a run in a file, in bounded memory however many rows there are."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from kappaflow import __version__
from kappaflow.data import check_writable, write_table
from kappaflow.data.gaps import refuse_gaps
from kappaflow.data.open_pieces import open_pieces
from kappaflow.data.pieces import Pieces, piece_size
from kappaflow.errors import DataError
from kappaflow.files import CONFIG, WEIGHTS
from kappaflow.runs.parts import Columns, Work, Written, write_in_parts, written
from kappaflow.runs.use import Draws, Scores, check_draws, finite_table
from kappaflow.storage import as_of
from kappaflow.training.measure import rows_at_once, scoring_generator
from kappaflow.training.progress import rows_shown

RESULT = "result.json"


def write_scores(folder: Path, data: str, out: str) -> Written:
    """Writes what `score_run` returns, to a file or to standard output.

    A parquet, Arrow, npy, csv or tsv file of more rows than one piece has is read, scored and
    written a piece at a time, to the same numbers; all of it is looked through first, so that a
    value that is missing is said at once. The same call goes on where a killed process stopped,
    if neither run nor data has changed.

    Args:
        folder: The run folder.
        data: A path or a shipped name, with the columns of the run.
        out: As for `write_table`.

    Returns:
        What was written.

    Raises:
        ArgumentError: Parts of `out` are there that another call left.
        DataError: A value is missing or infinite; or the data changed while it was read.
    """
    check_writable(out)
    scores = Scores(folder)
    run, multiple = scores.run, rows_at_once(scores.flow)
    options = run.reading()
    pieces = open_pieces(
        data, run.columns, run.context_columns, multiple=multiple, options=options
    )
    if pieces is None:
        table = finite_table(data, run.columns, run.context_columns, options)
        return _written_whole(scores.of(table), out)
    generator = None if scores.flow.augment is None else scoring_generator()
    before = as_of(pieces.path)
    _look_through(pieces, data)

    def make(place: int) -> Columns:
        found = scores.of(pieces.read(place), generator=generator)
        if as_of(pieces.path) != before:
            raise DataError(f"{data} has changed while it was read: score it when it is whole.")
        return found

    made_of = {
        "command": "score",
        "run": _digest(folder, (CONFIG, WEIGHTS, RESULT)),
        "data": {
            **before,
            "rows": pieces.rows,
            "columns": [*pieces.columns, *pieces.context],
        },
        "rows of a part": pieces.size,
        "versions": _versions(),
    }
    rows = [pieces.rows_of(place) for place in range(len(pieces))]
    return write_in_parts(Work("scoring", made_of, rows, make, generator), out)


def write_samples(
    folder: Path,
    n: int,
    out: str,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
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

    Returns:
        What was written.

    Raises:
        ArgumentError: An argument is out of its range, or parts of `out` are there that another
            call left.
    """
    check_writable(out)
    check_draws(n, temperature, seed)
    draws = Draws(folder, context, temperature)
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


def _look_through(pieces: Pieces, data: str) -> None:
    """Refuses data with columns that do not serve, or with a value missing, before any work."""
    with rows_shown("reading", pieces.rows, 0) as told:
        for place in pieces.suspects(told):
            refuse_gaps(pieces.read(place), data)


def _digest(folder: Path, names: Sequence[str]) -> str:
    """Returns a SHA-256 over files of a run."""
    sha = hashlib.sha256()
    for name in names:
        sha.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return sha.hexdigest()


def _versions() -> str:
    return f"kappaflow {__version__}, torch {torch.__version__}"
