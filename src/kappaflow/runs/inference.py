"""Scores and samples of runs on data of any kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

from kappaflow._checks import finite_float, natural_int, positive_int
from kappaflow.data import check_writable
from kappaflow.data.write import table_writer
from kappaflow.errors import ArgumentError
from kappaflow.runs.stored import open_run, run_kind
from kappaflow.runs.written import Columns, Written
from kappaflow.table_options import TextFormat


def score_run(
    folder: Path,
    data: str,
    *,
    identifier: str | None = None,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> Columns:
    """Returns the log-density and the percentile of each row or image of some data.

    A row with a value that is missing, text, or outside of the range of the flow's dtype has no
    score: its numbers are NaN. With padding that has no density, joint_log_prob, the density of a
    row and its padding, replaces log_prob. A percentile of 1 means that 99 % of the held-out data
    has a higher density. A column `identifier` of a table is copied, as text. Images are anything
    that `kappaflow.load_images` takes. `decimal`, `separator` and `comment` say how a text file is
    written, by default as the data of the run. The device is "cpu" (the default) or "cuda". A
    warning says if more than a tenth of the rows lie outside of the range of the training rows.

    Returns:
        Columns. For a table: row (its number, from 1), the identifier if one is named, log_prob
        (nats, in the units of the data) and percentile. For images: image (the name of the file,
        or its number from 0), bits_per_dimension (if the flow treats pixels as whole numbers),
        log_prob and percentile.

    Raises:
        ArgumentError: The data does not fit the run, an option is for tables only, or the device
            does not exist.
        FileError: The run is not finished, or a file cannot be read.
    """
    run = open_run(folder, device, finished=True)
    return run_kind(folder).scores(run, data, identifier=identifier, **text).together()


def write_scores(
    folder: Path,
    data: str,
    out: str,
    *,
    identifier: str | None = None,
    repair: Literal["drop"] | None = None,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> Written:
    """Writes the scores of `score_run` to a file or to standard output.

    A parquet, Arrow, npy, csv or tsv file with more rows than one chunk is read, scored and
    written a chunk at a time, with the same numbers. The file appears when all rows are scored. A
    NaN is written as empty; `repair` "drop" leaves out such rows of a table.

    Returns:
        A summary.

    Raises:
        ArgumentError: The file cannot hold text, such as an identifier; or an option is for
            tables only.
        DataError: The data changed while it was read.
    """
    check_writable(out, read=data)
    run, kind = open_run(folder, device, finished=True), run_kind(folder)
    kind.refuse({"repair": repair})
    with table_writer(out) as writer:
        scores = kind.scores(run, data, identifier=identifier, scratch=writer.folder, **text)
        return scores.write(writer, repair)


def sample_run(
    folder: Path,
    n: int,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> Columns:
    """Returns samples of the flow of a run on a table, by column, in the units of the data.

    There are n samples, or n for each row of the data `context`, whose columns are returned too.
    The options of a text file are as for `score_run`. The device is "cpu" (the default) or "cuda".
    A warning says if many context rows lie outside of the training range.

    Raises:
        ArgumentError: An argument is out of its range, a context is missing or not needed, or the
            device does not exist.
    """
    check_sampling(n, temperature, seed)
    options = {"context": context, "temperature": temperature, "seed": seed, **text}
    return run_kind(folder).samples(open_run(folder, device), n, **options).together()


def write_samples(
    folder: Path,
    n: int,
    out: str,
    *,
    context: str | None = None,
    class_name: str | None = None,
    given: Sequence[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> Written:
    """Writes samples of the flow of a run to a file or to standard output.

    More rows than one chunk are sampled and written a chunk at a time, with the same numbers.
    `given` are values such as "age=40" that all samples of a run with kinds of columns have.
    `out` is as for `write_table`; for images a png or npy file, or a new folder.

    Returns:
        A summary.

    Raises:
        ArgumentError: An argument is out of its range or for other data.
    """
    check_sampling(n, temperature, seed)
    options = {"context": context, "class_name": class_name, **text}
    options |= {} if given is None else {"given": given}
    return run_kind(folder).write_samples(
        open_run(folder, device), n, out, temperature=temperature, seed=seed, **options
    )


def check_sampling(n: int, temperature: float, seed: int) -> None:
    """Raises an error for an argument that is out of its range."""
    positive_int("n", n)
    if finite_float("temperature", temperature) < 0:
        raise ArgumentError(f"'temperature' should be 0 or more, got {temperature}.")
    if natural_int("seed", seed) >= 2**63:
        raise ArgumentError(f"'seed' should be below 2**63, got {seed}.")
